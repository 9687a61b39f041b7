"""``toolkit sample``: new examples from a run's prior."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.arguments import parse
from toolkit.cli.report import COMPILE, notes, watching
from toolkit.errors import printable
from toolkit.options import CHECKPOINT, DEVICE, PRIOR_CHECKPOINT

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.model import Model
    from toolkit.spec import DataSpec


SHEET, CODES = "samples.png", "samples.safetensors"
"""Of all samples together; each also has a file."""


@dataclass(frozen=True)
class SampleOptions:
    """Samples codes from a prior and decodes them: a sheet of all, a file for each, and the codes.

    They are in a folder of their own, which says prior and seed, such as samples/pixelcnn-seed0, and checkpoints that
    are asked for. The next draw of the
    same prior and seed replaces that folder; in a folder that is named by out, it replaces the files of a draw.
    """

    run: str = field(metadata={"help": "the run folder"})
    n: int = field(default=16, metadata={"help": "how many"})
    seed: int = field(default=0, metadata={"help": "the same seed gives the same codes on every device"})
    prior: str | None = field(
        default=None, metadata={"help": "which prior; null: the one the run was last trained with"}
    )
    temperature: float = field(default=1.0, metadata={"help": "below 1: likelier codes"})
    top_k: int | None = field(default=None, metadata={"help": "sample from the k likeliest codes only"})
    top_p: float | None = field(
        default=None, metadata={"help": "sample from the likeliest codes with this share of the probability"}
    )
    guidance: float = field(default=1.0, metadata={"help": "above 1: closer to the condition"})
    prefix_file: Path | None = field(
        default=None,
        metadata={"key": "prefix.file", "help": "a file of this data, whose beginning the samples continue"},
    )
    prefix_frames: int | None = field(
        default=None,
        metadata={"key": "prefix.frames", "help": "how much of it, along its first axis: rows, samples, frames"},
    )
    frames: int | None = field(
        default=None,
        metadata={"help": "how long along the first axis; more than the prior was trained on: its window slides"},
    )
    overlap: int | None = field(
        default=None, metadata={"help": "how many frames stay in the window as it slides; null: half of it"}
    )
    noise: bool = field(default=False, metadata={"help": "sample x from the likelihood instead of taking its mean"})
    condition: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "condition.KEY=LABEL, or LABEL,LABEL,… in turn; for a condition that changes from frame to frame"
            " also [LABEL,LABEL,…], one for each, or a file with one per line; for a text the text itself,"
            " [TEXT,TEXT,…] in turn, or @FILE, a file with one per line"
        },
    )
    compile: bool = field(default=False, metadata={"help": COMPILE})
    out: str | None = field(default=None, metadata={"help": "folder to write to; null: one in samples/ in the run"})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    prior_checkpoint: str | None = field(default=None, metadata={"help": PRIOR_CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("sample", SampleOptions, args)

    from toolkit.cli.files import unlabeled, write_codes_of, write_examples
    from toolkit.cli.outputs import require_folder, written_together
    from toolkit.errors import ToolkitError
    from toolkit.model import load
    from toolkit.plots.captions import Captions, plot_captioned
    from toolkit.prior import SamplingOptions
    from toolkit.stages.pictures import labels_of

    SamplingOptions(options.temperature, options.top_k, options.top_p)  # rejects wrong values before a run is opened
    if options.out:
        require_folder(Path(options.out))
    model = load(options.run, options.device, checkpoint=options.checkpoint, prior_checkpoint=options.prior_checkpoint)
    name = options.prior or model.config.chosen_prior().name
    spec = _spec(options, model.sampled_spec(name))
    conditions = model.labels(options.condition, options.n, prior=name, length=spec.axes[0])
    prefix = _prefix(options, model, name)
    clock = _SampleClock()
    with watching() as report:
        samples = model.sample(
            options.n,
            conditions,
            prior=name,
            seed=options.seed,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            guidance=options.guidance,
            prefix=prefix,
            length=options.frames,
            overlap=options.overlap,
            noise=options.noise,
            compile=options.compile,
            progress=clock.timed(report),
        )
    notes([*model.notices, *_unused(options, model.code_spec.depth), *unlabeled(model, conditions)])
    draw = name if model.code_spec.depth else "normal"
    out = Path(options.out) if options.out else model.run.samples / _folder(options, draw)
    x, row = samples.x.cpu(), _in_a_row(options.n, conditions)
    texts = labels_of(model.spec.conditions, conditions, options.n)
    captions = Captions(_title(options, model, draw), (), [texts[i : i + row] for i in range(0, options.n, row)])
    try:
        with written_together(out, _files(model.files.suffix), whole=not options.out) as folder:
            plot_captioned(model.files.plot, x.split(row), spec, folder / SHEET, captions)
            write_examples(model, x, spec, folder, "sample")
            if model.code_spec.depth:
                which = {"prior": draw, "seed": str(options.seed)}
                write_codes_of(model, [samples.codes.cpu()], options.n, folder / CODES, which)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    print(", ".join([f"samples: {options.n}", *clock.speeds()]))
    print(printable(str(out / SHEET)))
    return 0


def _folder(options: SampleOptions, draw: str) -> str:
    """What a draw's folder is called: prior, seed, and the checkpoints that were asked for."""
    asked = (("step", options.checkpoint), ("prior", options.prior_checkpoint))
    return "-".join([draw, f"seed{options.seed}", *(f"{stage}-{which}" for stage, which in asked if which)])


def _files(suffix: str) -> re.Pattern[str]:
    """The names of what a draw writes."""
    return re.compile(rf"{re.escape(SHEET)}|{re.escape(CODES)}|sample-\d{{4,}}{re.escape(suffix)}")


def _title(options: SampleOptions, model: Model, draw: str) -> str:
    """What a sheet was sampled with."""
    words = [f"prior {draw}", f"seed {options.seed}"]
    words += [f"autoencoder of step {model.checkpoint.step}"] if options.checkpoint else []
    steps = model.prior_steps if options.prior_checkpoint else {}
    words += [f"prior of step {steps[draw]}"] if draw in steps else []
    for name, plain in (("temperature", 1.0), ("top_k", None), ("top_p", None), ("guidance", 1.0)):
        value = getattr(options, name)
        words += [f"{name} {value:g}"] if value != plain else []
    words += [f"goes on from {options.prefix_file.name}"] if options.prefix_file else []
    return f"{model.run.title}: {', '.join(words)}"


def _prefix(options: SampleOptions, model: Model, name: str) -> Tensor | None:
    """The codes ``(1, depth, positions)`` of a file's beginning; ToolkitError where it ends inside a code."""
    from toolkit.cli.files import encode_examples, read_example
    from toolkit.errors import ToolkitError

    if options.prefix_file is None:
        if options.prefix_frames is not None:
            raise ToolkitError("prefix.frames needs a file: add prefix.file=FILE")
        return None
    model.code_spec.refuse_parts(f"prefix.file={options.prefix_file}", "leave prefix.file out")
    length, per_example, lead = model.spec.axes[0], model.code_spec.grid[0], model.lead
    frames = length if options.prefix_frames is None else options.prefix_frames
    slabs, remainder = divmod((frames + lead) * per_example, length + lead)
    stride, most = (length + lead) / per_example, model.prior(name).code_spec.grid[0]
    if remainder or not 0 < slabs <= most:
        less = f" less {lead}" if lead else ""
        raise ToolkitError(
            f"prefix.frames={frames}: give a multiple of {stride:g}{less}, from {stride - lead:g} to"
            f" {stride * most - lead:g}"
        )
    x = read_example(model, options.prefix_file, min(frames, length))
    (codes,) = encode_examples(model, [x])
    return codes[None].flatten(2)


def _spec(options: SampleOptions, spec: DataSpec) -> DataSpec:
    """The samples' spec, at the length that is asked for."""
    from toolkit.errors import ToolkitError

    if options.frames is None:
        if options.overlap is not None:
            raise ToolkitError("overlap needs a length: add frames=N, more than the prior was trained on")
        return spec
    if options.prefix_frames is not None and options.frames < options.prefix_frames:
        raise ToolkitError(f"frames={options.frames}: the prefix has {options.prefix_frames} already")
    return replace(spec, axes=(options.frames, *spec.axes[1:]))


def _in_a_row(n: int, conditions: Mapping[str, Tensor]) -> int:
    """Samples per row: a multiple of the labels' period, so that a column has one label."""
    turns = [next(k for k in range(1, n + 1) if (v[k:] == v[: n - k]).all()) for v in conditions.values()]
    most = max(turns, default=1)
    return most * ceil(sqrt(n) / most)


class _SampleClock:
    """How many codes, and numbers of data, were sampled one after another, and how long that took."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def timed(self, report: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
        def on_progress(what: str, done: int, total: int) -> None:
            self.seconds[what] = time.perf_counter() - self.start - sum(s for k, s in self.seconds.items() if k != what)
            self.counts[what] = total
            report(what, done, total)

        return on_progress

    def speeds(self) -> list[str]:
        return [
            f"{what}: {count} in {self.seconds[what]:.1f} s ({count / self.seconds[what]:.0f} per second)"
            for what, count in self.counts.items()
        ]


def _unused(options: SampleOptions, depth: int) -> list[str]:
    """A notice for options of a prior where there is none."""
    given = [name for name in ("prior", "top_k", "top_p") if getattr(options, name) is not None]
    given += ["guidance"] if options.guidance != 1 else []
    return [] if depth or not given else [f"a continuous bottleneck has no prior: {', '.join(given)} is not used"]
