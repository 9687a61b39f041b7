from __future__ import annotations

from types import ModuleType

import pytest
import torch

from toolkit import DataSpec
from toolkit_audio.waveform import compress, expand, from_waveform, sample_rate_of, scaled_to_waveform, to_waveform

MULAW, PCM, FLOAT = (DataSpec(1, (8,), levels=levels, rates=(8000.0,)) for levels in (256, 1 << 16, None))


def test_expanding_undoes_compressing() -> None:
    waveform = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(expand(compress(waveform)), waveform)
    assert compress(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [-1, 0, 1]


def test_the_law_is_that_of_g711_with_256_levels(functional: ModuleType) -> None:
    """F(w) = sign(w) ln(1 + 255 |w|) / ln(256), cut into equal steps."""
    waveform = torch.rand(1000) * 2 - 1
    assert torch.equal(from_waveform(waveform, MULAW), functional.mu_law_encoding(waveform, 256))
    levels = torch.arange(256)
    torch.testing.assert_close(to_waveform(levels, MULAW), functional.mu_law_decoding(levels, 256))


@pytest.mark.parametrize("spec", [MULAW, PCM])
def test_levels_survive_the_waveform(spec: DataSpec) -> None:
    assert spec.levels
    levels = torch.arange(spec.levels)
    assert torch.equal(from_waveform(to_waveform(levels, spec), spec), levels)


def test_what_is_heard_of_floats_is_what_they_are() -> None:
    waveform = torch.rand(9) * 2 - 1
    assert torch.equal(to_waveform(waveform, FLOAT), waveform)
    assert torch.equal(scaled_to_waveform(waveform, PCM), waveform)


def test_expanding_has_a_gradient() -> None:
    scaled = torch.tensor([-0.7, -0.1, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(expand, scaled)


def test_other_data_is_no_sound() -> None:
    assert sample_rate_of(MULAW) == 8000
    for spec in (DataSpec(3, (4, 4)), DataSpec(1, (4,)), DataSpec(2, (4,), rates=(8000.0,))):
        with pytest.raises(ValueError, match="is not sound"):
            sample_rate_of(spec)
