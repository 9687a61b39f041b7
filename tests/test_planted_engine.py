"""What could go wrong when a run is continued and when codes are cached is noticed by the checks that watch over it.

Faults of ranks are planted where the ranks are: in test_ranks.py.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_resume import WORDS, resume, stop
from torch import Tensor, nn
from toys import PIXELCNN, TILES, TWO_STEPS, VQ, fingerprint, metrics, plugged_in

import toolkit
from toolkit.batches import TrainBatches, split_batches
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.optimization import Optimization
from toolkit.running_metrics import RunningMetrics
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.codes import HASH, cache_key, check_codes, encode_batches, read_codes
from toolkit.runs.folder import Run
from toolkit.runs.log import Log
from toolkit.runs.random_state import set_random_state
from toolkit.runs.tensors import check_safetensors
from toolkit.stages.run import train

pytestmark = pytest.mark.usefixtures("toys")
Fault = Callable[[pytest.MonkeyPatch], None]


def instead_of(function: Callable[..., Any], other: Callable[..., Any]) -> Fault:
    """Another function, wherever toolkit has it by name."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "toolkit" and vars(module).get(function.__name__) is function:
                monkeypatch.setattr(module, function.__name__, other)

    return plant


def method(cls: type, name: str, other: Callable[..., Any]) -> Fault:
    return lambda monkeypatch: monkeypatch.setattr(cls, name, other)


def nothing(*_: object, **__: object) -> None:
    """In the place of what should be done."""


# -- a run that is continued


def load_without(home: str) -> Callable[..., None]:
    """Of an optimizer's state, all but what lies under one name."""
    load = Optimization.load

    def other(self: Optimization, tensors: dict[str, Tensor], step: int) -> None:
        load(self, {name: value for name, value in tensors.items() if not name.startswith(home)}, step)

    return other


def from_the_start() -> Callable[..., None]:
    begin = TrainBatches.__init__
    return lambda self, *args, **words: begin(self, *args, **{**words, "start": 0})


def load_parameters() -> Callable[..., None]:
    """Weights, and the buffers as they were."""
    load = Checkpoint.load_weights

    def other(self: Checkpoint, module: nn.Module, *, averaged: bool) -> None:
        kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
        load(self, module, averaged=averaged)
        for buffer, value in kept:
            buffer.copy_(value)

    return other


RESUME: dict[str, Fault] = {
    "nothing is wrong": nothing,
    "random numbers start again": instead_of(set_random_state, nothing),
    "moments are lost": method(Optimization, "load", load_without("optimizer.")),
    "averages are lost": method(Optimization, "load", load_without("average.")),
    "the data start again": method(TrainBatches, "__init__", from_the_start()),
    "buffers are lost": method(Checkpoint, "load_weights", load_parameters()),
    "figures since the last line are lost": method(RunningMetrics, "load", nothing),
    "the log is not cut": method(Log, "cut", nothing),
}
ALONE = [*WORDS, "stage=autoencoder"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was never stopped, and one that was: between a checkpoint and a line of the log."""
    folder = tmp_path_factory.mktemp("stopped")
    with plugged_in():
        train(compose(ALONE).config, folder / "whole")
        stop(ALONE, folder / "run", "autoencoder", 17)
    return folder / "whole", folder / "run"


@pytest.mark.parametrize("fault", RESUME)
def test_a_faulty_continuation_is_not_the_uninterrupted_run(
    stopped: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    whole, run = stopped[0], tmp_path / "run"
    shutil.copytree(stopped[1], run)
    RESUME[fault](monkeypatch)
    resume(run)
    alike = fingerprint(run) == fingerprint(whole) and metrics(run) == metrics(whole)
    assert alike == (fault == "nothing is wrong")


# -- codes that are cached


def key_without(place: int) -> Callable[..., str]:
    """A key that does not look at one of its parts: the weights, the dataset, its version, or the split."""
    return lambda *parts: cache_key(*parts[:place], *parts[place + 1 :])


def encode_backwards(*args: Any) -> Iterator[dict[str, Tensor]]:
    for made in encode_batches(*args):
        yield {**made, "codes": made["codes"].flip(0)}


def encode_greedily(autoencoder: Any, batches: Any, positions: Any) -> Iterator[dict[str, Tensor]]:
    """In training mode, where tables move as they look."""
    for batch in batches:
        codes = autoencoder.train().quantize(batch.x).codes
        yield {"codes": (codes + 1) % 16, **batch.conditions}


def train_longer(run: Path) -> None:
    """The codes of before are of other weights."""
    words = ["stage=all", "trainer.steps=9", "prior_trainer.steps=3"]
    train(reopen(Run.open(run).config_values(), words).config, run)


def again(run: Path, steps: int = 3) -> None:
    train(reopen(Run.open(run).config_values(), ["stage=all", f"prior_trainer.steps={steps}"]).config, run)


def keyed(act: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same after codes were kept under keys of the faulty kind."""

    def both(run: Path) -> None:
        shutil.rmtree(run / "codes")
        again(run)
        act(run)

    return both


def swap_again(run: Path) -> None:
    swap(run / "codes")
    again(run, 4)


def after(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        change(run / "codes")
        again(run)

    return act


def swap(codes: Path) -> None:
    for file, other in (("train", "aside"), ("val", "train"), ("aside", "val")):
        (codes / f"{file}.safetensors").rename(codes / f"{other}.safetensors")


def unsigned(path: Path, more: int = 0) -> None:
    """The codes, so many more each, in a file without a hash, which would give them away."""
    with safe_open(path, "pt") as file:
        key = {name: value for name, value in file.metadata().items() if name != HASH}
    tensors = load_file(path)
    save_file({**tensors, "codes": tensors["codes"] + more}, path, key)


def tear(codes: Path) -> None:
    path = codes / "train.safetensors"
    unsigned(path)
    path.write_bytes(path.read_bytes()[:-50])


def shift(codes: Path) -> None:
    """Other codes under the same key, out of range."""
    unsigned(codes / "train.safetensors", 100)


CACHE: dict[str, tuple[Fault, Callable[[Path], None]]] = {
    "nothing is wrong": (nothing, train_longer),
    "nothing is wrong with what was spoilt": (nothing, after(lambda codes: (swap(codes), tear(codes)))),
    "codes of older weights are taken": (instead_of(cache_key, key_without(0)), keyed(train_longer)),
    "codes of another split are taken": (instead_of(cache_key, key_without(4)), keyed(swap_again)),
    "a torn file is taken": (instead_of(check_safetensors, nothing), after(tear)),
    "codes out of range are taken": (instead_of(check_codes, nothing), after(shift)),
    "codes come in another order": (instead_of(encode_batches, encode_backwards), train_longer),
    "codes are not the model's": (instead_of(encode_batches, encode_greedily), train_longer),
}


def codes_are_the_models(run: Path) -> bool:
    """Whether the cache holds what the newest weights make of the very examples, in their order."""
    model = toolkit.load(run)
    for split in ("train", "val"):
        batches = split_batches(model.dataset, split, torch.device("cpu"), batch_size=4, workers=0)
        expected = torch.cat([made["codes"] for made in encode_batches(model.autoencoder, batches)])
        cached = torch.from_numpy(read_codes(run / "codes" / f"{split}.safetensors")[0]["codes"].astype("int64"))
        if not torch.equal(cached, expected):
            return False
    return True


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with codes, of splits that are equally large."""
    folder = tmp_path_factory.mktemp("cached") / "run"
    with plugged_in(), pytest.MonkeyPatch.context() as patch:
        equal_splits(patch)
        train(compose([*TILES, *VQ, *PIXELCNN, *TWO_STEPS, "trainer.learning_rate=0.1"]).config, folder)
    return folder


def equal_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit import registry

    monkeypatch.setattr(registry.load("dataset", "toy_tiles"), "examples", {"train": 12, "val": 12, "test": 4})


@pytest.mark.parametrize("fault", CACHE)
def test_a_faulty_cache_is_not_the_models_codes(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(cached, run)
    equal_splits(monkeypatch)
    plant, act = CACHE[fault]
    with monkeypatch.context() as patch:
        plant(patch)
        try:
            act(run)
        except (ValueError, IndexError):  # a loud end is noticed, too
            assert fault in ("a torn file is taken", "codes out of range are taken")
            return
    assert codes_are_the_models(run) == fault.startswith("nothing")
