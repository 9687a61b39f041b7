"""What ``toolkit check`` says of a training step's memory, against what the step takes.

    python benchmarks/memory.py [--only 0,3] [--resident] [--out results.json]

A stage is trained for three steps on a CPU, on random data of the configured shapes. ``allocated`` is the most that
torch's allocator had handed out at once, by its own account (the profiler's record of every allocation, from before the
stage is built): this is what the estimate is of, and what ``max_memory_allocated`` says on a GPU. With ``--resident``
also what the system gave a process of its own at most, above what it had before: with the workspaces of libraries, of
which no account is kept. glibc is told there to give back what is freed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import toolkit
from toolkit.batches import Batch
from toolkit.build import build_autoencoder, build_prior, build_stage
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.estimate import StepMemory, batch_of, memory_by_stage
from toolkit.model import open_dataset
from toolkit.optimization import Optimization
from toolkit.sharding import checkpoint_activations
from toolkit.step import step_of
from toolkit.training import PriorStage

CPU, MIB = torch.device("cpu"), 1 << 20
STEPS = 3
PRIOR = "stage=prior prior=transformer prior.hidden=384 prior.layers=10 prior.heads=6 prior_trainer.ema=0.999"
CASES = (
    "experiment=image_shapes stage=autoencoder trainer.ema=0.99",
    "experiment=image_shapes stage=prior",
    f"experiment=image_shapes {PRIOR} prior_trainer.batch_size=32",
    f"experiment=image_shapes {PRIOR} prior_trainer.batch_size=64 trainer.checkpoint_activations=true",
    "experiment=video_sprites stage=autoencoder",
    "experiment=audio_vowels stage=autoencoder",
    "experiment=image_shapes stage=autoencoder objective=adversarial",
)
"""Networks whose memory is mostly activations, and such whose memory is mostly weights and moments."""


def built(config: RunConfig) -> tuple[Any, dict[str, torch.Tensor], Any]:
    """The stage that is trained, a batch for it and its options."""
    torch.manual_seed(0)
    data = open_dataset(config).spec
    if config.stage == "prior":
        code_spec, options = build_autoencoder(config, data).code_spec, config.prior_trainer
        prior = build_prior(config, code_spec, data)
        if config.trainer.checkpoint_activations:
            checkpoint_activations(prior)
        size = min(code_spec.codebook_sizes)
        x = torch.randint(size, (options.batch_size, *code_spec.shape))
        return PriorStage(prior), batch_of(x, data.conditions, data.axes[0]), options
    shape = (config.trainer.batch_size, *data.shape)
    x = torch.rand(shape) * 2 - 1 if data.levels is None else torch.randint(data.levels, shape)
    return build_stage(config, data, None), batch_of(x, data.conditions, data.axes[0]), config.trainer


def trained(words: str) -> None:
    stage, batch, options = built(compose(words.split()).config)
    groups = () if isinstance(stage, PriorStage) else stage.groups(options)
    optimization = Optimization(stage, replace(options, steps=STEPS), groups)
    step = step_of(stage, stage.metrics, optimization, CPU)
    stage.train()
    for _ in range(STEPS):
        step(repeat(Batch(batch, CPU)))


def estimated(words: str) -> StepMemory:
    config = compose(words.split()).config
    (memory,) = memory_by_stage(config, open_dataset(config).spec).values()
    assert isinstance(memory, StepMemory), memory
    return memory


def measured(words: str) -> int:
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        trained(words)
        gc.collect()
    return allocated(record)


def measured_by_the_system(words: str) -> int:
    """The same in a process of its own, in resident bytes."""
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", words]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True).stdout.split()[-1])


def allocated(record: profile) -> int:
    """The most bytes that the allocator had handed out at once."""
    totals, events = list[int](), list(record.profiler.kineto_results.experimental_event_tree())  # type: ignore[union-attr]
    while events:
        event = events.pop()
        events += event.children
        if hasattr(event.extra_fields, "total_allocated"):
            totals.append(event.extra_fields.total_allocated)
    return max(totals)


def resident(what: str) -> int:
    """KiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of cases, such as 0,3")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.case:
        before = resident("VmRSS")
        trained(args.case)
        print((resident("VmHWM") - before) << 10)
        return
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": "CPU, one thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "steps": STEPS,
    }
    chosen = [int(number) for number in args.only.split(",")] if args.only else range(len(CASES))
    for words in (CASES[number] for number in chosen):
        start = time.process_time()
        memory = estimated(words)
        seconds = time.process_time() - start
        facts[words] = {"estimated": vars(memory), "allocated": (taken := measured(words)), "seconds": seconds}
        print(
            f"{words}\n  estimated {memory.peak / MIB:8,.1f} MiB in {seconds:.1f} s, allocated {taken / MIB:8,.1f}:"
            f" {memory.peak / taken:.3f}",
            flush=True,
        )
        if args.resident:
            facts[words]["resident"] = measured_by_the_system(words)
            print(f"  resident {facts[words]['resident'] / MIB:8,.1f}", flush=True)
        if args.out:
            args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
