"""The decoders of the core: patch by patch, and autoregressive over the data, told of the latents."""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar

import pytest
import torch

from toolkit.causal.distribution import AutoregressiveDistribution
from toolkit.causal.sampling import sample
from toolkit.decoder import Decoder
from toolkit.decoders.conv import ConvDecoder
from toolkit.decoders.patch import PatchDecoder
from toolkit.decoders.pixelcnn import PixelCNNDecoder, coordinates
from toolkit.decoders.wavenet import WaveNetDecoder
from toolkit.likelihood import Likelihood
from toolkit.nn.conv import UP, Up
from toolkit.nn.patches import from_patches, to_patches
from toolkit.prior import SamplingOptions
from toolkit.spec import Condition, DataSpec
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.parts import plain_likelihood, random_data
from toolkit.testing.reference import sample_slowly

KIND = Condition("kind", 3)
SMALL: dict[str, Any] = {"hidden": 8, "layers": 2, "head": 8}


class PixelCNNSuite(DecoderSuite):
    tiny = (
        (DataSpec(1, (4,), 3), (2,)),
        (DataSpec(2, (3,), 3), (1,)),
        (DataSpec(1, (2, 3), 2), (1, 1)),
        (DataSpec(2, (2, 2), 2, ordered=False), (2, 2)),
        (DataSpec(1, (2, 2, 2), 2), (1, 2, 2)),
        (DataSpec(2, (2, 1, 2), 2), (1, 1, 1)),
    )

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return PixelCNNDecoder(data, dim, conditions, **SMALL, kernel_size=3)


class TestPixelCNNDecoderOfOneAxis(PixelCNNSuite):
    data, grid = DataSpec(2, (8,), 6), (4,)


class TestPixelCNNDecoderOfTwoAxes(PixelCNNSuite):
    data, grid = DataSpec(3, (4, 6), 16), (2, 3)


class TestPixelCNNDecoderOfThreeAxes(PixelCNNSuite):
    data, grid = DataSpec(1, (2, 4, 4), 6), (1, 2, 2)


class TestPixelCNNDecoderOfCodes(PixelCNNSuite):
    """One latent for all of a map of codes, which have no order."""

    data, grid = DataSpec(2, (5, 5), 8, ordered=False), (1, 1)


class TestWaveNetDecoder(DecoderSuite):
    data, grid = DataSpec(2, (12,), 16), (3,)
    tiny: ClassVar = ((DataSpec(1, (4,), 3), (2,)), (DataSpec(2, (3,), 3), (1,)))

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return WaveNetDecoder(data, dim, grid, conditions, **SMALL, blocks=1, skip=8, context=8, context_blocks=1)


class PatchSuite(DecoderSuite):
    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return PatchDecoder(dim, grid, conditions, likelihood, patch=2, hidden=16)


class TestPatchDecoderOfOneAxis(PatchSuite):
    data, grid = DataSpec(1, (12,)), (6,)


class TestPatchDecoderOfTwoAxes(PatchSuite):
    data, grid = DataSpec(3, (8, 12), levels=5), (4, 6)


class TestPatchDecoderOfThreeAxes(PatchSuite):
    data, grid = DataSpec(2, (2, 6, 4), levels=4), (1, 3, 2)


class TestPatchDecoderOfFourAxes(PatchSuite):
    data, grid = DataSpec(1, (2, 4, 2, 6), levels=3), (1, 2, 1, 3)


class ConvSuite(DecoderSuite):
    strides: tuple[int, ...] = (2,)
    upsampling: Up = "transposed"

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        sizes: dict[str, Any] = {"hidden": 4, "residual_blocks": 1, "residual_hidden": 3, "strides": self.strides}
        return ConvDecoder(dim, grid, conditions, likelihood, upsampling=self.upsampling, **sizes)


class TestConvDecoderOfOneAxis(ConvSuite):
    data, grid, strides = DataSpec(1, (12,)), (2,), (2, 3)


class TestConvDecoderOfTwoAxes(ConvSuite):
    data, grid = DataSpec(3, (8, 12), levels=5), (4, 6)


class TestConvDecoderOfThreeAxes(ConvSuite):
    data, grid = DataSpec(2, (2, 6, 4), levels=4), (1, 3, 2)


class TestConvDecoderWithoutStrides(ConvSuite):
    data, grid, strides = DataSpec(1, (4, 6)), (4, 6), ()


class TestRepeatingConvDecoderOfOneAxis(TestConvDecoderOfOneAxis):
    upsampling = "nearest"


class TestRepeatingConvDecoderOfTwoAxes(TestConvDecoderOfTwoAxes):
    upsampling = "nearest"


class TestRepeatingConvDecoderOfThreeAxes(TestConvDecoderOfThreeAxes):
    upsampling = "nearest"


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rank", [1, 2, 3])
@torch.no_grad()
def test_repeated_positions_leave_no_grid(rank: int, stride: int) -> None:
    """What is the same everywhere stays so, away from the border; transposed convolutions make a pattern of it."""
    torch.manual_seed(0)
    even = torch.randn(1, 3, *[1] * rank).expand(1, 3, *[7] * rank)
    spread = {}
    for name, layer in UP.items():
        made = layer(rank, 3, 2, stride)(even)
        assert made.shape == (1, 2, *[7 * stride] * rank)
        inside = made[(..., *[slice(3 * stride, 4 * stride)] * rank)].flatten(2)
        spread[name] = float((inside.amax(2) - inside.amin(2)).max())
    assert spread["nearest"] < 1e-6
    assert spread["transposed"] > 1e-2 or stride == 1


@torch.no_grad()
def test_transposed_convolutions_have_a_relu_between_them() -> None:
    """mean = second(relu(first(relu(proj_in(z) + condition)))) without residual blocks."""
    torch.manual_seed(0)
    data = DataSpec(1, (8, 8), 4)
    decoder = ConvDecoder(3, (2, 2), (KIND,), plain_likelihood(data), hidden=4, residual_blocks=0)
    parameters: list[torch.Tensor] = []
    decoder.up.register_forward_hook(lambda module, inputs, output: parameters.append(output))
    z, kind = torch.randn(2, 3, 2, 2), torch.tensor([0, 2])
    decoder(z, {"kind": kind})
    assert decoder.conditions is not None
    h = decoder.proj_in(z) + decoder.conditions({"kind": kind}, 2)[:, :, None, None]
    first, second = decoder.up[0], decoder.up[2]
    torch.testing.assert_close(parameters[0], second(first(h.relu()).relu()))


@pytest.mark.parametrize("axes", [(12,), (6, 9), (3, 6, 6), (3, 6, 3, 3)], ids=str)
def test_patches_taken_apart_lie_where_they_lay(axes: tuple[int, ...]) -> None:
    x = torch.randn(2, 5, *axes)
    patches = to_patches(x, 3)
    assert patches.shape == (2, *(length // 3 for length in axes), 5 * 3 ** len(axes))
    assert torch.equal(from_patches(patches, 3), x)


@torch.no_grad()
def test_a_latent_decodes_to_its_patch_alone() -> None:
    """Every number of one patch moves with its latent, and none of another's."""
    torch.manual_seed(0)
    data = DataSpec(2, (6, 9))
    decoder = PatchDecoder(4, (2, 3), (), plain_likelihood(data), patch=3, hidden=64)
    z = torch.randn(2, 4, 2, 3)
    z[1] = z[0]
    z[1, :, 1, 2] += 1
    mean = decoder(z, {}).mean
    assert mean is not None
    moved = mean[0] != mean[1]
    assert moved[:, 3:, 6:].all()
    assert moved.sum() == 2 * 3 * 3


def wavenet(**options: Any) -> WaveNetDecoder:
    torch.manual_seed(0)
    data = DataSpec(1, (12,), 16)
    decoder = WaveNetDecoder(data, 6, (3,), (KIND,), **SMALL, blocks=1, skip=8, context=8, **options)
    return decoder.double().eval()


def distribution(decoder: Decoder, z: torch.Tensor, kind: int) -> AutoregressiveDistribution:
    made = decoder(z, {"kind": torch.full((len(z),), kind)})
    assert isinstance(made, AutoregressiveDistribution)
    return made


@torch.no_grad()
def test_samples_are_the_slow_samplers() -> None:
    """As one whole forward for every number says them."""
    z = torch.randn(3, 6, 3, dtype=torch.float64)
    made = distribution(wavenet(), z, 1)
    slow = sample_slowly(made.network, 3, (12,), context=made.context, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.sample(torch.Generator().manual_seed(0)), slow)


@torch.no_grad()
def test_temperature_prefix_and_guidance_are_those_of_priors() -> None:
    z, generator = torch.randn(3, 6, 3, dtype=torch.float64), torch.Generator()
    decoder = wavenet()
    made, free = distribution(decoder, z, 1), distribution(decoder, z, KIND.size)
    prefix = torch.randint(16, (3, 1, 4))
    sampling = SamplingOptions(temperature=0.8, top_k=5, guidance=3.0)
    drawn = made.sample_with(sampling, prefix=prefix, generator=generator.manual_seed(0))
    expected = sample(
        made.network,
        3,
        (12,),
        sampling,
        context=made.context,
        unconditional=free.context,
        prefix=prefix,
        generator=generator.manual_seed(0),
    )
    assert torch.equal(drawn, expected)
    assert torch.equal(drawn[:, :, :4], prefix)
    plain = made.sample_with(SamplingOptions(guidance=1.0), generator=generator.manual_seed(0))
    assert torch.equal(plain, made.sample(generator.manual_seed(0)))


def test_dropped_conditions_are_none_and_latents_stay() -> None:
    """With all conditions dropped in training, only z is told."""
    decoder, z = wavenet(condition_dropout=1.0).train(), torch.randn(2, 6, 3, dtype=torch.float64)
    dropped, none = distribution(decoder, z, 1), distribution(decoder.eval(), z, KIND.size)
    torch.testing.assert_close(dropped.context, none.context)
    assert not torch.allclose(none.context[0], none.context[1])


@torch.no_grad()
def test_a_dropped_history_is_silent_in_training_alone() -> None:
    """All of it dropped, any x is told from as if silence came before, and it is x that is told."""
    decoder, z = wavenet(history_dropout=1.0, condition_dropout=0.0), torch.randn(2, 6, 3, dtype=torch.float64)
    x, silence = torch.randint(16, (2, 1, 12)), torch.full((2, 1, 12), 8)
    plain = distribution(decoder, z, 1)
    (logits,) = plain.network(silence, plain.context)
    expected = logits.log_softmax(-1).gather(-1, x[:, 0].unsqueeze(-1)).sum((1, 2))
    torch.testing.assert_close(distribution(decoder.train(), z, 1).log_prob(x), expected)
    assert not torch.allclose(plain.log_prob(x), expected)
    torch.testing.assert_close(distribution(decoder.eval(), z, 1).log_prob(x), plain.log_prob(x))


def test_history_is_dropped_latent_by_latent() -> None:
    """What stands under a latent is shown or hidden as a whole, about as often as was asked."""
    decoder = wavenet(history_dropout=0.3).train()
    seen = decoder._seen(torch.ones(500, 1, 12, dtype=torch.int64)).unflatten(2, (3, 4))
    hidden = (seen == 8).double().mean(3)
    assert set(seen.unique().tolist()) == {1, 8}
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    assert float(hidden.mean()) == pytest.approx(0.3, abs=0.05)


def test_history_is_noisy_in_training_alone() -> None:
    """Levels stay levels, and go to either side by what was asked."""
    decoder, x = wavenet(history_noise=2.0), torch.full((2000, 1, 12), 8)
    off = (decoder._seen(x) - x).double()
    assert float(off.mean()) == pytest.approx(0, abs=0.05)
    assert float(off.std()) == pytest.approx(sqrt(4 + 1 / 12), abs=0.05)
    for edge in (0, 15):
        seen = decoder._seen(torch.full_like(x, edge))
        assert 0 <= int(seen.min()) < int(seen.max()) <= 15
    z = torch.randn(2, 6, 3, dtype=torch.float64)
    nats = [distribution(decoder.eval(), z, 1).log_prob(x[:2]) for _ in range(2)]
    assert torch.equal(*nats)
    assert not torch.allclose(nats[0], distribution(decoder.train(), z, 1).log_prob(x[:2]))


@pytest.mark.parametrize("option", ["history_dropout", "history_noise"])
def test_levels_without_order_have_no_middle_and_no_neighbours(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        WaveNetDecoder(DataSpec(1, (12,), 16, ordered=False), 6, (3,), (), **SMALL, **{option: 0.1})


@torch.no_grad()
def test_a_wavenet_decodes_any_number_of_latents() -> None:
    """A prefix of latents gives the same start, but for the border that knows its neighbours."""
    decoder = wavenet(context_blocks=0)
    z = torch.randn(2, 6, 9, dtype=torch.float64)
    assert distribution(decoder, z, 0).shape == (1, 36)
    x = random_data(DataSpec(1, (36,), 16), 2)
    assert distribution(decoder, z, 0).log_prob(x).shape == (2,)
    long, short = (
        distribution(decoder, each, 0).sample(torch.Generator().manual_seed(0)) for each in (z[:1], z[:1, :, :4])
    )
    assert long.shape == (1, 1, 36)
    assert torch.equal(long[..., :12], short[..., :12])


def test_coordinates_run_from_minus_one_to_one() -> None:
    places = coordinates((3, 5))
    assert places.shape == (2, 3, 5)
    assert places[0, :, 0].tolist() == [-1, 0, 1]
    assert places[1, 0].tolist() == [-1, -0.5, 0, 0.5, 1]


@torch.no_grad()
def test_one_latent_says_different_things_at_different_places() -> None:
    """What a global latent adds is not the same everywhere: it is told where it stands."""
    torch.manual_seed(0)
    decoder = PixelCNNDecoder(DataSpec(1, (6, 6), 8), 4, (), **SMALL)
    told = decoder(torch.randn(2, 4, 1, 1), {}).context  # type: ignore[attr-defined]
    change = (told[0] - told[1]).flatten(1)
    assert change.std(1).amin() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConvDecoder(4, (2, 2, 2, 2), (), plain_likelihood(DataSpec(1, (4,) * 4))),
            "works on 1 to 3 axes, but these latents have 4",
        ),
        (
            lambda: ConvDecoder(4, (2,), (), plain_likelihood(DataSpec(1, (4,))), strides=(0,)),
            r"strides=\[0\]: each at least 1",
        ),
        (lambda: PixelCNNDecoder(DataSpec(1, (8, 8)), 4, ()), "over levels.*real-valued"),
        (lambda: WaveNetDecoder(DataSpec(1, (8,)), 4, (4,), ()), "over levels.*real-valued"),
        (
            lambda: PatchDecoder(4, (2,), (), plain_likelihood(DataSpec(1, (8,))), patch=0),
            "patch=0: at least 1",
        ),
        (lambda: WaveNetDecoder(DataSpec(1, (10,), 8), 4, (4,), ()), "10 positions are not a multiple of 4 latents"),
    ],
)
def test_data_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
