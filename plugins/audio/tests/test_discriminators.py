"""Discriminators of sound, against the published formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit import DataSpec, Discriminator
from toolkit.discriminator import Judgement
from toolkit.testing.discriminator import DiscriminatorSuite
from toolkit_audio.bands_discriminator import BandsDiscriminator
from toolkit_audio.judging import heard
from toolkit_audio.periods_discriminator import PeriodsDiscriminator
from toolkit_audio.scales_discriminator import ScalesDiscriminator
from toolkit_audio.spectra_discriminator import SpectraDiscriminator
from toolkit_audio.waveform import compress, from_waveform

SOUND = DataSpec(1, (200,), levels=256, rates=(8000.0,))
FLOATS = DataSpec(1, (200,), rates=(8000.0,))
SMALL: dict[type[Discriminator], dict[str, Any]] = {
    PeriodsDiscriminator: {"periods": (2, 3), "hidden": 2},
    ScalesDiscriminator: {"scales": 2, "hidden": 16},
    SpectraDiscriminator: {"windows": (32, 16), "hidden": 2},
    BandsDiscriminator: {"windows": (32, 64), "edges": (0.25, 0.5), "hidden": 2},
}


class TestPeriods(DiscriminatorSuite):
    data: ClassVar[DataSpec] = SOUND
    part_class: ClassVar[type[Discriminator]] = PeriodsDiscriminator

    def make(self, data: DataSpec) -> Discriminator:
        return self.part_class(data, **SMALL[self.part_class])  # type: ignore[call-arg]


class TestScales(TestPeriods):
    data = FLOATS
    part_class = ScalesDiscriminator


class TestSpectra(TestPeriods):
    part_class = SpectraDiscriminator


class TestBands(TestPeriods):
    data = FLOATS
    part_class = BandsDiscriminator


def small(cls: type[Discriminator], data: DataSpec = FLOATS, **options: Any) -> Discriminator:
    return cls(data, **{**SMALL[cls], **options}).double().eval()  # type: ignore[call-arg]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * 2 - 1


def layer(conv: Any, h: Tensor, slope: float | None, **sizes: Any) -> Tensor:
    """A layer's weights in a function's hands."""
    made: Tensor = (F.conv1d if h.dim() == 3 else F.conv2d)(h, conv.weight, conv.bias, **sizes)
    return made if slope is None else F.leaky_relu(made, slope)


def assert_judged(judgement: Judgement, features: list[Tensor], logits: Tensor) -> None:
    assert len(judgement.features) == len(features)
    for ours, theirs in zip(judgement.features, features, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(judgement.logits, logits)


@torch.no_grad()
def test_periods_are_hifi_gans() -> None:
    part, x = small(PeriodsDiscriminator), noise(2, 1, 200)
    for judgement, judge, period in zip(part(x, {}), part.judges, (2, 3), strict=True):  # type: ignore[arg-type]
        h = F.pad(x, (0, -200 % period), mode="reflect")
        h, features = h.view(2, 1, -1, period), []
        for number, conv in enumerate(judge.layers):
            h = layer(conv, h, 0.1, stride=(3 if number < 4 else 1, 1), padding=(2, 0))
            features.append(h)
        assert_judged(judgement, features, layer(judge.logits, h, None, padding=(1, 0)))


@torch.no_grad()
def test_scales_are_hifi_gans() -> None:
    part, h0 = small(ScalesDiscriminator), noise(2, 1, 200)
    for judgement, judge in zip(part(h0, {}), part.judges, strict=True):  # type: ignore[arg-type]
        h, features = h0, []
        sizes = [(1, 7, 1), (2, 20, 4), (2, 20, 16), (4, 20, 16), (4, 20, 16), (1, 20, 16), (1, 2, 1)]
        for conv, (stride, padding, groups) in zip(judge.layers, sizes, strict=True):
            h = layer(conv, h, 0.1, stride=stride, padding=padding, groups=groups)
            features.append(h)
        assert_judged(judgement, features, layer(judge.logits, h, None, padding=1))
        h0 = F.avg_pool1d(h0, 4, 2, padding=2)


def around(x: Tensor, size: int) -> Tensor:
    """DAC's padding: to whole hops, and so much that there is a frame for each."""
    hop = size // 4
    return F.pad(x, ((size - hop) // 2, (size - hop) // 2 + -x.shape[-1] % hop), mode="reflect")


@torch.no_grad()
def test_spectra_are_encodecs() -> None:
    part, x = small(SpectraDiscriminator), noise(2, 1, 200)
    for judgement, judge, size in zip(part(x, {}), part.judges, (32, 16), strict=True):  # type: ignore[arg-type]
        window = torch.hann_window(size).double()
        spectrum = torch.stft(around(x, size)[:, 0], size, size // 4, window=window, center=False, return_complex=True)
        spectrum = spectrum.transpose(1, 2).unsqueeze(1) / window.square().sum().sqrt()
        h, features = torch.cat([spectrum.real, spectrum.imag], 1), []
        sizes = [(1, 1), (2, 1), (2, 2), (2, 4)]
        for conv, (stride, dilation) in zip(judge.layers, sizes, strict=False):
            h = layer(conv, h, 0.2, stride=(1, stride), dilation=(dilation, 1), padding=(dilation, 4))
            features.append(h)
        features.append(layer(judge.layers[4], h, 0.2, padding=1))
        assert_judged(judgement, features, layer(judge.logits, features[-1], None, padding=1))


@torch.no_grad()
def test_bands_are_dacs() -> None:
    """Centered frames of the padded sound without the first and last two, as its authors take them."""
    part, x = small(BandsDiscriminator), 0.1 + noise(2, 1, 200)
    leveled = x - x.mean(-1, keepdim=True)
    leveled = 0.8 * leveled / leveled.abs().max(-1, keepdim=True)[0]
    for judgement, judge, size in zip(part(x, {}), part.judges, (32, 64), strict=True):  # type: ignore[arg-type]
        window = torch.hann_window(size).double()
        padded = around(leveled, size)[:, 0]
        spectrum = torch.stft(padded, size, size // 4, window=window, center=True, return_complex=True)[..., 2:-2]
        picture = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        assert picture.shape[2] == -(-200 // (size // 4))
        features, ends = [], []
        n = size // 2 + 1
        for convs, band in zip(judge.bands, ((0, int(n / 4)), (int(n / 4), int(n / 2)), (int(n / 2), n)), strict=True):
            h = picture[..., slice(*band)]
            for number, conv in enumerate(convs):
                stride, wide = (1, 2 if 0 < number < 4 else 1), number < 4
                h = layer(conv, h, 0.1, stride=stride, padding=(1, 4) if wide else (1, 1))
                features.append(h)
            ends.append(h)
        assert_judged(judgement, features, layer(judge.logits, torch.cat(ends, -1), None, padding=1))


@pytest.mark.long
@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (PeriodsDiscriminator, 41_105_770),
        (ScalesDiscriminator, 29_618_821),
        (SpectraDiscriminator, 472_490),
        (BandsDiscriminator, 1_413_990),
    ],
)
def test_the_published_sizes(cls: Callable[[DataSpec], Discriminator], parameters: int) -> None:
    """As the papers' layers count up, each output's norm included."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in cls(FLOATS).parameters()) == parameters


@torch.no_grad()
@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize("samples", [1, 2, 31, 333])
def test_sound_of_any_length_is_judged(cls: type[Discriminator], samples: int) -> None:
    for judgement in small(cls)(noise(2, 1, samples), {}):
        assert judgement.logits.numel()
        assert judgement.logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("cls", SMALL)
def test_what_is_heard_of_mu_law_is_the_waveform(cls: type[Discriminator]) -> None:
    part, x = small(cls), noise(2, 1, 200)
    other = small(cls, SOUND)
    other.load_state_dict(part.state_dict())
    for plain, companded in zip(part(x, {}), other(compress(x), {}), strict=True):
        torch.testing.assert_close(companded.logits, plain.logits)
    levels = SOUND.scale(from_waveform(x, SOUND))
    torch.testing.assert_close(heard(levels, SOUND, False), x.float(), atol=0.025, rtol=0)


def test_a_leveled_sound_is_as_loud_as_any_and_silence_stays_silent() -> None:
    x = noise(1, 1, 200)
    torch.testing.assert_close(heard(0.01 * x + 0.2, FLOATS, True), heard(x, FLOATS, True))
    assert heard(x, FLOATS, True).abs().max() == pytest.approx(0.8)
    silent = torch.zeros(1, 1, 200, requires_grad=True)
    heard(silent, FLOATS, True).square().sum().backward()
    assert silent.grad is not None
    assert not silent.grad.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PeriodsDiscriminator(FLOATS, periods=()), r"periods=\[\]: at least one"),
        (lambda: ScalesDiscriminator(FLOATS, hidden=24), "hidden=24: a multiple of 16"),
        (lambda: SpectraDiscriminator(FLOATS, windows=(2,)), r"windows=\[2\]: at least one, of 4"),
        (lambda: BandsDiscriminator(FLOATS, edges=(0.5, 0.2)), r"edges=\[0.5, 0.2\]: ascending"),
        (lambda: BandsDiscriminator(FLOATS, windows=(8,)), r"edges=\[0.1, .*the 5 frequencies of windows=8"),
        (lambda: PeriodsDiscriminator(DataSpec(3, (8, 8))), r"\(3, 8, 8\) is not sound"),
    ],
)
def test_discriminators_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
