"""Stage two over data that is encoded as it comes: augmented anew in each epoch, or a stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from messages import assert_names
from packed import packed
from sounds import Sounds, model
from test_resume import StopAt, Stopped
from torch import Tensor
from toys import SMALL, VQ, fingerprint, metrics, plugged_in
from two_ranks import one_of_two, run_two

import toolkit
from toolkit import ToolkitError
from toolkit.autoencoder import Autoencoder
from toolkit.batches import TrainBatches
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.coded_batches import CodedBatches
from toolkit.datasets.waves import WavesDataset
from toolkit.report import Silence
from toolkit.runs.code_cache import CodeCache
from toolkit.runs.folder import Run
from toolkit.stages.run import train
from toolkit.testing.accelerator import stand_in

CPU, ALWAYS = torch.device("cpu"), "prior_trainer.encode=always"
TILES = [*SMALL, *VQ, "prior_trainer.steps=8", "prior_trainer.checkpoint_every=3", "prior_trainer.allow_collapsed=true"]
CONV = "encoder=conv encoder.hidden=8 decoder=conv decoder.hidden=8 likelihood=categorical dim=4"
STREAM = f"""
{CONV} quantizer=ema quantizer.codebook_size=16 prior=pixelcnn prior.hidden=8 prior.layers=2 prior.head=8
trainer.steps=2 trainer.batch_size=5 trainer.workers=0 prior_trainer.allow_collapsed=true {ALWAYS}
prior_trainer.steps=8 prior_trainer.batch_size=5 prior_trainer.checkpoint_every=3 prior_trainer.log_every=2
prior_trainer.validate_every=4 prior_trainer.workers=0 dataset=shard_stream dataset.shuffle=7
""".split()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards") / "waves"
    packed(root, WavesDataset(axes=(8, 8), train_size=70, val_size=6, test_size=2), shard_bytes=60_000)
    return root


def batches_of(examples: Any, **options: Any) -> TrainBatches:
    return TrainBatches(examples, CPU, **{"batch_size": 6, "seed": 3, "workers": 0, **options})


@pytest.mark.usefixtures("toys")
def test_codes_are_those_of_the_batch_as_it_was_augmented(tmp_path: Path) -> None:
    """Of three epochs, in which no example is twice the same."""
    train(compose(TILES).config, tmp_path / "run")
    opened = toolkit.load(tmp_path / "run", "cpu")
    size = opened.dataset.size("train")
    plain, coded = batches_of(opened.dataset), CodedBatches(batches_of(opened.dataset), opened.autoencoder)
    seen: dict[bytes, set[bytes]] = {}
    for _ in range(3 * size // 6):
        batch, codes = next(plain), next(coded)
        assert torch.equal(codes.x, opened.quantize(batch.x))
        assert codes.conditions.keys() == batch.conditions.keys()
        assert all(torch.equal(value, batch.conditions[name]) for name, value in codes.conditions.items())
        for x in batch.x:
            seen.setdefault(x.numpy().tobytes(), set())
    assert len(seen) > size
    assert coded.positions == codes.x[0, 0].numel()
    assert coded.waited > 0


def unequal(folder: Path) -> None:
    """With the lengths of the codes that files have, in the same batches."""
    parts = model("ema")
    cache = CodeCache(folder, parts, parts.code_spec, (), CPU, 3, 0, Silence())
    kept = batches_of(cache.read(Sounds()))
    coded = CodedBatches(batches_of(Sounds()), parts)
    for _ in range(12):
        one, other = next(kept), next(coded)
        assert one.mask is not None
        assert other.mask is not None
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.conditions["pitch"], other.conditions["pitch"])
        assert one.positions == other.positions


def unaugmented(folder: Path) -> None:
    """Where nothing is random in the data, encoding it once or always trains the same prior, bit for bit."""
    data = ["dataset=waves", "dataset.axes=[8,8]", "dataset.train_size=50", "dataset.val_size=6"]
    given = [word for word in STREAM if not word.startswith("dataset")]
    train(compose([*given, *data]).config, folder / "always")
    train(compose([*given, *data, "prior_trainer.encode=once"]).config, folder / "once")
    one, other = (fingerprint(folder / name) for name in ("always", "once"))
    del other["codes/train.safetensors"]
    assert one == other
    assert metrics(folder / "always") == metrics(folder / "once")


LAWS = {"unequal": unequal, "unaugmented": unaugmented}


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str, tmp_path: Path) -> None:
    LAWS[law](tmp_path)


def in_training_mode(self: CodedBatches, batches: Any, autoencoder: Autoencoder) -> None:
    INIT(self, batches, autoencoder)
    self._autoencoder.train()


def masked(self: Autoencoder, mask: Tensor | None) -> Autoencoder:
    return self


def beyond(self: Any) -> Any:
    """The batch after the one that was asked for."""
    next(self._batches)
    return NEXT(self)


INIT, NEXT = CodedBatches.__init__, CodedBatches.__next__
FAULTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "the codebook goes on learning": ("unaugmented", lambda p: p.setattr(CodedBatches, "__init__", in_training_mode)),
    "padding is encoded": ("unequal", lambda p: p.setattr(Autoencoder, "masked", masked)),
    "a batch is left out": ("unaugmented", lambda p: p.setattr(CodedBatches, "__next__", beyond)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law, plant = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        LAWS[law](tmp_path)


@pytest.mark.usefixtures("toys")
def test_latents_that_are_not_finite_end_the_training(tmp_path: Path) -> None:
    """On the CPU at once; on a device, which is not waited for in a step, before anything is logged or saved."""
    run = tmp_path / "run"
    train(compose([*TILES, "stage=autoencoder"]).config, run)

    def broken(self: CodedBatches, batches: Any, autoencoder: Autoencoder) -> None:
        INIT(self, batches, deepcopy(autoencoder))
        for weight in self._autoencoder.encoder.parameters():
            weight.data.fill_(float("nan"))

    words = ["stage=prior", "prior_trainer.log_every=4", ALWAYS]
    told = []
    for device in (nullcontext(), stand_in()):
        with device, patch.object(CodedBatches, "__init__", broken), pytest.raises(ToolkitError) as error:
            train(reopen(Run.open(run).config_values(), words).config, run)
        told.append(str(error.value))
        assert not list((run / "priors").rglob("model.safetensors"))
    for text in told:
        assert_names(text, "prior-pixelcnn … latents … NaN … check the data")
    assert "training examples" in told[1]


@pytest.mark.long
def test_a_stopped_prior_goes_on_exactly(shards: Path, tmp_path: Path) -> None:
    """Over data that is augmented, with codes that are drawn, and over a stream."""
    drawn = ["quantizer=categorical", "quantizer.codebook_size=16", "objective=vimco"]
    with plugged_in():
        for name, words in {"tiles": [*TILES, *drawn, ALWAYS], "stream": [*STREAM, f"dataset.root={shards}"]}.items():
            whole, run = tmp_path / name / "whole", tmp_path / name / "run"
            train(compose(words).config, whole)
            with pytest.raises(Stopped):
                train(compose(words).config, run, report=StopAt("prior-pixelcnn", 5))
            train(reopen(Run.open(run).config_values(), []).config, run)
            assert fingerprint(run) == fingerprint(whole)
            assert metrics(run) == metrics(whole)
            assert [path.name for path in (run / "codes").iterdir()] == ["val.safetensors"]


def test_a_stream_is_not_encoded_once(shards: Path, tmp_path: Path) -> None:
    """Which is known before anything is trained."""
    config = compose([*STREAM, f"dataset.root={shards}", "prior_trainer.encode=once"]).config
    with pytest.raises(ToolkitError) as error:
        train(config, tmp_path / "run")
    assert_names(str(error.value), "prior_trainer.encode=once … stream … encode=always … toolkit pack … autoencoder")
    assert not (tmp_path / "run").exists()


def test_a_prior_that_has_nothing_to_train_takes_a_stream(shards: Path, tmp_path: Path) -> None:
    """Nothing is encoded for it, whatever ``encode`` says."""
    words = [word for word in STREAM if not word.startswith("prior")]
    train(compose([*words, "prior=uniform", f"dataset.root={shards}"]).config, tmp_path / "run")
    assert not (tmp_path / "run" / "codes").exists()


def main(rank: int, folder: str, shards: str) -> None:
    """One of two ranks over a stream: in one go, and in two."""
    words = [*STREAM, f"dataset.root={shards}", "trainer.ranks=2"]
    with one_of_two(rank, folder):
        for name, steps in (("whole", 8), ("parts", 6), ("parts", 8)):
            train(compose([*words, f"prior_trainer.steps={steps}"]).config, Path(folder) / name)


@pytest.mark.long
def test_two_ranks_encode_a_stream_as_it_comes(shards: Path, tmp_path: Path) -> None:
    """Trained in two goes, they end bit for bit where they end in one."""
    run_two(__file__, tmp_path, str(shards))
    whole, parts = (fingerprint(tmp_path / name) for name in ("whole", "parts"))
    wanted = [name for name in whole if name.startswith("priors") and "step-" in name]
    assert len(wanted) == 3
    assert [parts[name] for name in wanted] == [whole[name] for name in wanted]


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
