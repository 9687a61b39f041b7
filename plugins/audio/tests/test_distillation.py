"""The objective with a teacher, which here is a small network of random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torchscript
from messages import assert_names
from torch import Tensor, nn
from toys import fingerprint

import toolkit
from toolkit import DataSpec, Objective, ToolkitError
from toolkit.objectives.elbo import ELBO
from toolkit.quantizer import Quantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.report import Silence
from toolkit.testing.objective import ObjectiveSuite
from toolkit.testing.parts import point_autoencoder, random_data
from toolkit_audio.distillation import DistillationObjective

SOUND = DataSpec(1, (96,), rates=(8000.0,))
CHANNELS, DIM = 5, 4


class Teacher(nn.Module):
    """A frame for each 16 samples."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, channels, 16, 16)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.layer(waveform.unsqueeze(1)).tanh().mT


def written(path: Path, seed: int = 0, channels: int = CHANNELS) -> str:
    torch.manual_seed(seed)
    return torchscript.write(Teacher(channels), path)


@pytest.fixture(scope="module", autouse=True)
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    DistillationLaws.teacher = written(tmp_path_factory.mktemp("teacher") / "teacher.pt")
    return DistillationLaws.teacher


class DistillationLaws(ObjectiveSuite):
    data: ClassVar[DataSpec] = SOUND
    tiny: ClassVar[DataSpec] = DataSpec(1, (2,), levels=256, rates=(8000.0,))
    teacher: ClassVar[str]

    def make(self, data: DataSpec) -> Objective:
        return DistillationObjective(data, DIM, weights=self.teacher, channels=CHANNELS)

    def test_it_computes_on_a_gpu(self) -> None:
        pytest.skip("the stand-in for a GPU does not move TorchScript")

    def test_it_compiles_whole(self) -> None:
        pytest.skip("the teacher is a program of its own, which torch.compile does not read")


@pytest.mark.long
class TestDistillation(DistillationLaws):
    def quantizer(self) -> Quantizer:
        return residual()


def residual() -> ResidualQuantizer:
    return ResidualQuantizer(DIM, depth=2, inner=partial(VectorQuantizer, codebook_size=3, init="random"))


def distilled(weights: str, **options: object) -> DistillationObjective:
    torch.manual_seed(0)
    return DistillationObjective(SOUND, DIM, weights=weights, channels=CHANNELS, **options).train()  # type: ignore[arg-type]


@pytest.mark.parametrize("along", ["features", "time"])
def test_it_is_the_papers_distance_of_the_first_codes_latents(teacher: str, along: str) -> None:
    """And its gradient reaches the encoder as if what was quantized were the first code's latents."""
    autoencoder, x = point_autoencoder(SOUND, quantizer=residual()), random_data(SOUND, 6)
    objective = distilled(teacher, weight=0.5, along=along, rate=8000)
    output = objective(autoencoder.eval(), x, {})
    network = torchscript.read(teacher)
    frames = network(x[:, 0]).detach().repeat_interleave(16, 1)  # a frame of the teacher for 16 codes
    first = autoencoder.embed(output.quantized.codes[:, :1]).detach().requires_grad_()
    student, cosine = objective.to_teacher(first.mT), nn.CosineSimilarity(1 if along == "features" else 2)
    alike = cosine(student, frames)
    wanted = -alike.sigmoid().log().mean() if along == "features" else (1 - alike).mean()
    assert output.terms["distillation"].item() == pytest.approx(wanted.item(), rel=1e-5)
    plain = ELBO()(autoencoder, x, {})
    assert (output.loss - plain.loss).item() == pytest.approx(0.5 * SOUND.dims * wanted.item(), rel=1e-3)
    (slope,) = torch.autograd.grad(0.5 * SOUND.dims * wanted, first)
    bias = autoencoder.encoder.linear.bias
    (with_teacher,), (without,) = (torch.autograd.grad(o.loss, bias) for o in (output, plain))
    torch.testing.assert_close(with_teacher - without, slope.sum((0, 2)), rtol=1e-3, atol=1e-3)


def test_the_teacher_is_no_part_of_a_checkpoint(teacher: str) -> None:
    objective = distilled(teacher)
    assert set(objective.state_dict()) == {"weights_hash", "to_teacher.weight", "to_teacher.bias"}
    assert not any(name.startswith("teacher") for name, _ in objective.named_parameters())


def test_another_teacher_is_refused(teacher: str, tmp_path: Path) -> None:
    other = DistillationObjective(SOUND, DIM, weights=written(tmp_path / "other.pt", seed=1), channels=CHANNELS)
    other.load_state_dict(distilled(teacher).state_dict())
    with pytest.raises(ToolkitError) as refusal:
        other.train()
    assert_names(str(refusal.value), "objective=audio_distillation … other.pt … weights=PATH")


def test_a_teacher_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    gone = DistillationObjective(SOUND, DIM, weights=f"{tmp_path}/gone.pt", channels=CHANNELS)
    with pytest.raises(ToolkitError) as refusal:
        gone.train()
    assert_names(str(refusal.value), f"weights={tmp_path}/gone.pt: … teacher")
    wide = distilled(written(tmp_path / "wide.pt", channels=7))
    with pytest.raises(ToolkitError) as refusal:
        wide(point_autoencoder(SOUND), random_data(SOUND, 2), {})
    assert_names(str(refusal.value), f"weights={tmp_path}/wide.pt: … (2, 12, 7) … objective.channels")


WORDS = [
    *("dataset=audio_vowels", "dataset.seconds=0.128", "dataset.train_size=16", "dataset.val_size=4"),
    *("dataset.test_size=4", "encoder=audio_conv", "encoder.hidden=4", "decoder=audio_conv", "decoder.hidden=4"),
    *("likelihood=normal", "likelihood.scale=0.1", "quantizer=residual_ema", "quantizer.depth=2", "dim=8"),
    *("quantizer.inner.codebook_size=8", "stage=autoencoder", "trainer.batch_size=4", "trainer.workers=0"),
    *("trainer.checkpoint_every=2", "trainer.validate_examples=4", "objective=audio_distillation"),
    f"objective.channels={CHANNELS}",
]


@pytest.mark.long
def test_a_continued_run_is_an_uninterrupted_one(teacher: str, tmp_path: Path) -> None:
    words = [*WORDS, f"objective.weights={teacher}"]
    for name, steps in (("whole", 4), ("parts", 2)):
        toolkit.train(toolkit.compose(*words, f"trainer.steps={steps}"), tmp_path / name, report=Silence())
    toolkit.train(toolkit.compose("trainer.steps=4", run=tmp_path / "parts"), tmp_path / "parts", report=Silence())
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "parts")
    line = [entry for entry in toolkit.load(tmp_path / "whole", "cpu").run.log if entry["split"] == "train"][-1]
    assert line["distillation"] > 0
