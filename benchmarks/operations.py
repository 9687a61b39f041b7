"""How many operations a training step asks of a device, for every experiment and both of its stages.

    python benchmarks/operations.py [--only image_cifar10_vqvae …] [--before before.json] [--out results.json]

A small operation costs a GPU more in its launch than in its arithmetic, so their number bounds how fast small models
train. They are counted on ``toolkit.testing.accelerator``'s stand-in for a device: forward and backward pass, the
optimizer's step and the running metrics, without views and allocations, at the second step after the first one, which
initializes codebooks and optimizer. Data is random and small: the number hardly depends on its size.

``--before`` takes the results of another version of toolkit, to stand beside.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import toolkit
from toolkit.build import build_autoencoder, build_dataset, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.optimization import Optimization
from toolkit.running_metrics import RunningMetrics
from toolkit.spec import Condition, DataSpec
from toolkit.testing.accelerator import stand_in
from toolkit.training import PriorStage, Stage, train_steps

EXAMPLES = 2
STEPS = 3
SPEAKER, ACTION = Condition("speaker", 3), Condition("action", 3, per_step=True)
IMAGE = DataSpec(3, (32, 32), levels=256, variance=0.06)
SOUND = DataSpec(1, (2560,), levels=256, rates=(16000.0,), conditions=(SPEAKER,))
SPEC = {
    "audio_codec": DataSpec(1, (4800,), rates=(24000.0,)),
    "audio_librispeech_paper": SOUND,
    "audio_phonemes": DataSpec(1, (2560,), rates=(16000.0,), conditions=(SPEAKER,)),
    "audio_vctk_paper": SOUND,
    "audio_voices": SOUND,
    "image_cifar10_modern": IMAGE,
    "image_cifar10_notebook": IMAGE,
    "image_cifar10_second_stage": DataSpec(1, (8, 8), levels=512, ordered=False),
    "image_cifar10_vae": IMAGE,
    "image_cifar10_vimco": IMAGE,
    "image_cifar10_vqvae": IMAGE,
    "image_imagenet128": IMAGE,
    "image_photos": IMAGE,
    "image_titok": IMAGE,
    "image_vqgan": IMAGE,
    "video_gestures": DataSpec(3, (8, 32, 32), levels=256, variance=0.1, conditions=(Condition("class", 3),)),
    "video_gpt": DataSpec(3, (4, 16, 16), levels=256, variance=0.1),
    "video_maze_frames": DataSpec(3, (28, 28), levels=256, variance=0.1),
    "video_maze_paper": DataSpec(3, (4, 28, 28), levels=256, variance=0.1, conditions=(ACTION,)),
    "video_maze_second_stage": DataSpec(1, (7, 7), levels=512, ordered=False),
}
"""Of an example of what is in files: as the experiment's data has it, but smaller."""

WORDS = {
    name: [f"experiment={name}", f"dataset.{'run' if name.endswith('second_stage') else 'root'}=none"] for name in SPEC
}
WORDS |= {name: [f"experiment={name}"] for name in ("audio_vowels", "image_shapes", "video_sprites")}
WORDS["image_cifar10_vimco"] += ["objective.samples=4"]
WORDS["image_cifar10_vimco, nvil"] = ["experiment=image_cifar10_vimco", "objective=nvil", "dataset.root=none"]


def random_examples(spec: DataSpec) -> tuple[Tensor, dict[str, Tensor]]:
    shape = (EXAMPLES, *spec.shape)
    x = torch.rand(shape) * 2 - 1 if spec.levels is None else torch.randint(spec.levels, shape)
    shapes = {c: (EXAMPLES, c.steps(spec.axes[0])) if c.per_step else (EXAMPLES,) for c in spec.conditions}
    conditions = {c.name: torch.randn(*of, c.size) if c.real else torch.randint(c.size, of) for c, of in shapes.items()}
    return x, conditions


def operations(name: str) -> Iterator[dict[str, Any]]:
    """A row for each stage."""
    config = compose(WORDS[name]).config
    spec = SPEC.get(name.partition(",")[0]) or build_dataset(config).spec
    torch.manual_seed(0)
    model = build_autoencoder(config, spec)
    x, conditions = random_examples(spec)
    yield row(name, "autoencoder", counted(Stage(build_objective(config, model), model), x, conditions, config.trainer))
    if model.code_spec.depth:
        sizes = model.code_spec.codebook_sizes
        codes = torch.stack([torch.randint(size, (EXAMPLES, *model.code_spec.grid)) for size in sizes], 1)
        stage = PriorStage(build_prior(config, model.code_spec, spec))
        yield row(name, "prior", counted(stage, codes, conditions, config.prior_trainer))


def counted(stage: Stage | PriorStage, x: Tensor, conditions: dict[str, Tensor], options: Any) -> Counter[str]:
    """The operations of the last of a few steps."""
    with stand_in() as device:
        there = torch.device("cuda")
        stage.to(there)
        batch = SimpleNamespace(
            x=x.to(there), conditions={name: value.to(there) for name, value in conditions.items()}, mask=None
        )
        steps = train_steps(stage, Batches(there, batch), Optimization(stage, options))  # type: ignore[arg-type]
        running = RunningMetrics()
        for number in range(STEPS):
            device.operations.clear()
            running.add(number, next(steps))
        return Counter(device.operations)


class Batches:
    """The same batch again and again."""

    def __init__(self, device: torch.device, batch: SimpleNamespace) -> None:
        self.device, self.batch = device, batch

    def __next__(self) -> SimpleNamespace:
        return self.batch


def row(name: str, stage: str, counts: Counter[str]) -> dict[str, Any]:
    return {"experiment": name, "stage": stage, "operations": counts.total(), "most": dict(counts.most_common(8))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=sorted(WORDS))
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    before = {}
    if args.before:
        rows = json.loads(args.before.read_text())["rows"]
        before = {(r["experiment"], r["stage"]): r["operations"] for r in rows}
    rows = []
    for name in args.only:
        try:
            for made in operations(name):
                if (name, made["stage"]) in before:
                    made["before"] = before[name, made["stage"]]
                rows.append(made)
                print(f"{name:28} {made['stage']:12} {made.get('before', ''):>6} {made['operations']:>6}", flush=True)
        except ModuleNotFoundError as error:
            print(f"{name:28} left out: {error}")
    if args.out:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "toolkit": toolkit.__version__}
        args.out.write_text(
            json.dumps({"date": str(date.today()), "versions": versions, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
