"""``toolkit sample``: new examples from a run's prior."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import ceil, prod, sqrt
from pathlib import Path
from typing import Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes, progress


@dataclass(frozen=True)
class SampleOptions:
    """Draws codes from a prior and decodes them: a sheet of all, a file each, and the codes."""

    run: str = field(metadata={"help": "the run folder"})
    n: int = field(default=16, metadata={"help": "how many"})
    seed: int = field(default=0, metadata={"help": "the same seed gives the same codes on every device"})
    prior: str | None = field(
        default=None, metadata={"help": "which prior; null: the one the run was last trained with"}
    )
    temperature: float = field(default=1.0, metadata={"help": "below 1: likelier codes"})
    top_k: int | None = field(default=None, metadata={"help": "draw from the k likeliest codes only"})
    top_p: float | None = field(default=None, metadata={"help": "draw from the likeliest codes that hold this share"})
    guidance: float = field(default=1.0, metadata={"help": "above 1: closer to the condition"})
    noise: bool = field(default=False, metadata={"help": "draw x from the likelihood instead of taking its mean"})
    condition: dict[str, str] = field(
        default_factory=dict, metadata={"help": "condition.KEY=LABEL, or LABEL,LABEL,… which take turns"}
    )
    out: str | None = field(default=None, metadata={"help": "folder to write to; null: samples/ in the run"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("sample", SampleOptions, args)

    from toolkit.cli.files import unlabelled, write_codes_of, write_examples
    from toolkit.errors import ToolkitError
    from toolkit.model import load
    from toolkit.priors.sampling import check_filters

    check_filters(options.temperature, options.top_k, options.top_p)
    model = load(options.run, options.device)
    name = options.prior or model.config["prior"]["name"]
    conditions = model.labels(options.condition, options.n, prior=name)
    spec = model.sampled_spec(name)
    grid = model.prior(name).latent.grid if model.latent.depth else model.latent.grid
    began = time.perf_counter()
    with progress("sample", prod(grid)) as report:
        made = model.sample(
            options.n,
            conditions,
            prior=name,
            seed=options.seed,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            guidance=options.guidance,
            noise=options.noise,
            progress=report,
        )
    seconds = time.perf_counter() - began
    notes([*model.notices, *_unused(options, model.latent.depth), *unlabelled(model, conditions)])
    out = Path(options.out) if options.out else model.run.samples
    try:
        out.mkdir(parents=True, exist_ok=True)
        x = made.x.cpu()
        sheet = out / "samples.png"
        model.files.draw(x.split(ceil(sqrt(options.n))), spec, sheet)
        write_examples(model, x, spec, out, "sample")
        if model.latent.depth:
            write_codes_of(model, [made.codes.cpu()], options.n, out / "samples.safetensors")
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    codes = made.codes.numel()
    speed = f", codes: {codes} in {seconds:.1f} s ({codes / seconds:.0f} per second)" if codes else ""
    print(f"samples: {options.n}{speed}")
    print(sheet)
    return 0


def _unused(options: SampleOptions, depth: int) -> list[str]:
    """A notice for words about a prior where there is none."""
    said = [name for name in ("prior", "top_k", "top_p") if getattr(options, name) is not None]
    said += ["guidance"] if options.guidance != 1 else []
    return [] if depth or not said else [f"a continuous bottleneck has no prior: {', '.join(said)} is not used"]
