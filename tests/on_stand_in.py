"""Trains, and does what comes after it, on the stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

import toolkit
from toolkit.__main__ import run
from toolkit.running_metrics import RunningMetrics
from toolkit.stages.recorder import Recorder
from toolkit.testing.accelerator import StandIn, stand_in

STEPS = 2
"""Between the figures of the first and those of the last one, nothing is logged."""


def act(command: str, *words: str) -> None:
    """A command that ends well, with what is raised in it."""
    assert run(["--debug", command, *words]) == 0


@contextmanager
def counted_waits(gpu: StandIn) -> Iterator[list[int]]:
    """How often the device was waited for when the figures of each step have been added."""
    add, waits = RunningMetrics.add, list[int]()

    def counting(running: RunningMetrics, step: int, metrics: dict[str, torch.Tensor]) -> None:
        add(running, step, metrics)
        waits.append(gpu.waits.total())

    with patch.object(RunningMetrics, "add", counting):
        yield waits


def train_quietly(words: Sequence[str], folder: Path, *, steps: int = STEPS, stages: int = 2) -> None:
    """Trains the stages on a stand-in; AssertionError where a step waits for the device, but for the first of a stage.

    Nothing is validated or drawn.
    """
    with stand_in() as gpu, counted_waits(gpu) as waits, patch.object(Recorder, "_evaluate", lambda *_: None):
        lengths = [f"{trainer}.steps={steps}" for trainer in ("trainer", "prior_trainer")[:stages]]
        act("train", *words, *lengths, f"hydra.run.dir={folder}")
        assert len(waits) == stages * steps
        for stage in range(stages):
            first, *quiet = waits[stage * steps : (stage + 1) * steps]
            assert quiet == [first] * len(quiet), f"a step waits for the device: {dict(gpu.waits)}"


def sampled_alike(folder: Path, n: int = 3) -> StandIn:
    """Samples of a run on a stand-in are those on the CPU, also where graphs are there already; the stand-in, which has
    the captured graphs."""
    alone = toolkit.load(folder, "cpu")
    expected = [alone.sample(n, seed=seed).codes for seed in (1, 2)]
    with stand_in() as gpu:
        model = toolkit.load(folder, "cuda")
        prior = model.prior()
        with patch.object(toolkit.model.Model, "prior", lambda *_: prior):
            sampled = [model.sample(n, seed=seed).codes for seed in (1, 2)]
        assert all(codes.is_cuda for codes in sampled)
        for codes, wanted in zip(sampled, expected, strict=True):
            assert torch.equal(codes.cpu(), wanted), "samples through captured graphs are not those of the CPU"
    return gpu


def resumed_alike(words: Sequence[str], folder: Path) -> None:
    """On a stand-in, two steps that are stopped and two more give the weights of four."""
    alone = [*words, "stage=autoencoder"]
    with stand_in():
        act("train", *alone, "trainer.steps=4", f"hydra.run.dir={folder / 'whole'}")
        act("train", *alone, "trainer.steps=2", f"hydra.run.dir={folder / 'parts'}")
        act("train", f"run={folder / 'parts'}", "trainer.steps=4", "stage=autoencoder")
    file = Path("autoencoder", "step-00000004", "model.safetensors")
    whole, parts = (load_file(folder / name / file) for name in ("whole", "parts"))
    for name in whole:
        assert torch.equal(whole[name], parts[name]), f"{name} differs after a continuation"


def used_alike(folder: Path, examples: int = 2) -> None:
    """Codes of the test split on a stand-in stand for what the CPU's do, and decode to the same.

    Among equal entries, of which a table that was hardly trained has many, another may be taken.
    """
    results = {}
    with stand_in():
        for device in ("cpu", "cuda"):
            model = toolkit.load(folder, device)
            x = torch.stack([model.dataset.example("test", i, None)["x"] for i in range(examples)]).to(device)
            codes = model.quantize(x)
            with torch.no_grad():
                results[device] = [model.autoencoder.embed(codes).cpu(), model.decode(codes, seed=1).cpu()]
            assert codes.device.type == device
    for one, other, what in zip(*results.values(), ("codes", "decoded data"), strict=True):
        assert torch.equal(one, other), f"{what} of a GPU are not those of the CPU"


def commands_work(folder: Path, out: Path) -> None:
    """Evaluates, reconstructs and samples a run on a stand-in."""
    with stand_in():
        act("evaluate", f"run={folder}", "examples=2")
        act("reconstruct", f"run={folder}", "examples=2")
        act("sample", f"run={folder}", "n=1", f"out={out}")
