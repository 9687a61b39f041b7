"""The composition: lifting, and the proof that parts fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.fit import MisfitError, label
from toolkit.folding import fold, unfold
from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import CodeGrid, Condition, DataSpec
from toolkit.testing.parts import PointDecoder, PointEncoder, plain_likelihood, point_autoencoder, random_data

T, H, W = 3, 4, 6
SCENE = Condition("scene", 4)
MOVE = Condition("move", 5, per_step=True)
FORCE = Condition("force", 2, per_step=True, real=True)
FILM = DataSpec(3, (T, H, W), levels=8, conditions=(SCENE, MOVE, FORCE))


class FrameEncoder(Encoder):
    """Halves both axes of a picture."""

    rank = 2

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.data, self.conv = data, nn.Conv2d(data.channels, dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(self.data.scale(x))
        return z


class FrameDecoder(Decoder):
    """Doubles both axes; a condition is added to its picture."""

    rank = 2

    def __init__(self, dim: int, conditions: tuple[Condition, ...], likelihood: Likelihood) -> None:
        super().__init__()
        self.conditions = ConditionEmbedding(conditions, dim)
        self.conv = nn.ConvTranspose2d(dim, likelihood.channels, 2, stride=2)
        self.likelihood = likelihood

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        features = over_grid(self.conditions(conditions, len(z)), z.shape[2:])
        return self.likelihood(self.conv(z + features))


def lifted(*names: str) -> Autoencoder:
    frame = FILM.last(2)
    conditions = tuple(Condition(c.name, c.size, real=c.real) for c in FILM.conditions if c.name in names)
    return Autoencoder(
        FILM,
        FrameEncoder(frame, 4),
        VectorQuantizer(4, codebook_size=7, init="random"),
        FrameDecoder(4, conditions, CategoricalLikelihood(frame)),
        decoder_conditions=names,
    ).eval()


# -- lifting


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("rank", [1, 2, None])
def test_unfold_undoes_fold(shape: tuple[int, ...], rank: int | None) -> None:
    t = torch.randn(shape)
    folded, extra = fold(t, rank)
    assert torch.equal(unfold(folded, extra), t)
    assert folded.shape[1] == 3
    assert rank is None or folded.dim() - 2 <= rank


def test_a_frames_latents_are_the_films() -> None:
    autoencoder, x = lifted(), random_data(FILM, 2)
    assert autoencoder.code_spec.grid == (T, H // 2, W // 2)
    with torch.no_grad():
        z, codes = autoencoder.encode(x), autoencoder.quantize(x).codes
        assert z.shape == (2, 4, T, 2, 3)
        for t in range(T):
            torch.testing.assert_close(z[:, :, t], autoencoder.encoder(x[:, :, t]))
            alone = autoencoder.quantizer(autoencoder.encoder(x[:, :, t])).codes
            assert torch.equal(codes[:, :, t], alone)


def test_a_films_likelihood_is_the_product_of_its_frames() -> None:
    autoencoder, x = lifted(), random_data(FILM, 2)
    with torch.no_grad():
        quantized = autoencoder.quantize(x)
        film = autoencoder.decode(quantized.z, {})
        frames = [autoencoder.decoder(quantized.z[:, :, t], {}) for t in range(T)]
        assert film.shape == FILM.shape
        nats = sum(frame.log_prob(x[:, :, t]) for t, frame in enumerate(frames))
        torch.testing.assert_close(film.log_prob(x), nats)
        assert film.mean is not None
        torch.testing.assert_close(film.mean, torch.stack([frame.mean for frame in frames], 2))  # type: ignore[misc]
        sample = film.sample(torch.Generator().manual_seed(0))
    assert sample.shape == x.shape
    assert sample.dtype == torch.int64


def test_a_folded_likelihood_is_as_free_and_as_dense_as_its_frames() -> None:
    frame = DataSpec(1, (4, 4), variance=1.0)
    film = DataSpec(1, (3, 4, 4), variance=1.0)
    decoder = FrameDecoder(4, (), NormalLikelihood(frame))
    quantizer = VectorQuantizer(4, codebook_size=7)
    autoencoder = Autoencoder(film, FrameEncoder(frame, 4), quantizer, decoder)
    made = autoencoder.decode(torch.zeros(2, 4, 3, 2, 2), {})
    assert made.mean_is_free
    assert made.density


def changed_frames(name: str, one: Tensor, other: Tensor) -> list[int]:
    """In which frames the mean differs between two values of a condition."""
    autoencoder = lifted("scene", "move", "force")
    z = torch.zeros(1, 4, T, 2, 3)
    with torch.no_grad():
        means = [autoencoder.decode(z, {name: value}).mean for value in (one, other)]
    assert means[0] is not None
    assert means[1] is not None
    return (means[0] != means[1]).movedim(2, 0).flatten(1).any(1).nonzero().flatten().tolist()


def test_a_condition_of_the_film_reaches_every_frame() -> None:
    assert changed_frames("scene", torch.tensor([1]), torch.tensor([2])) == [0, 1, 2]


@pytest.mark.parametrize("step", range(T))
def test_a_condition_per_step_reaches_its_frame(step: int) -> None:
    labels = torch.zeros(1, T, dtype=torch.int64)
    other = labels.clone()
    other[0, step] = 1
    assert changed_frames("move", labels, other) == [step]
    forces = torch.zeros(1, T, 2)
    pushed = forces.clone()
    pushed[0, step, 0] = 1
    assert changed_frames("force", forces, pushed) == [step]


def test_one_label_for_all_steps_is_given_once() -> None:
    """A condition that may change by the step may also be said once for the whole example."""
    autoencoder, z = lifted("move"), torch.zeros(2, 4, T, 2, 3)
    labels = torch.tensor([1, 2])
    with torch.no_grad():
        once = autoencoder.decode(z, {"move": labels}).mean
        each = autoencoder.decode(z, {"move": labels[:, None].expand(2, T)}).mean
    assert once is not None
    assert each is not None
    assert torch.equal(once, each)


def test_a_label_of_as_many_films_as_steps_is_still_of_the_film() -> None:
    autoencoder, z = lifted("scene"), torch.zeros(T, 4, T, 2, 3)
    with torch.no_grad():
        mean = autoencoder.decode(z, {"scene": torch.arange(T)}).mean
    assert mean is not None
    assert torch.equal(mean[:, :, 0], mean[:, :, 1])
    assert not torch.equal(mean[0], mean[1])


def test_two_extra_axes_fold_in_order() -> None:
    data = DataSpec(2, (3, 4, 5), conditions=(Condition("move", 9, per_step=True),))
    line = data.last(1)

    class Line(PointEncoder):
        rank = 1

    class LineDecoder(PointDecoder):
        rank = 1

        def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
            return super().forward(z + conditions["move"].view(-1, 1, 1), conditions)

    autoencoder = Autoencoder(
        data,
        Line(line, 4),
        VectorQuantizer(4, codebook_size=7),
        LineDecoder(4, plain_likelihood(line)),
        decoder_conditions=("move",),
    )
    x = random_data(data, 2)
    with torch.no_grad():
        z = autoencoder.encode(x)
        torch.testing.assert_close(z[1, :, 2, 3], autoencoder.encoder(x[1:, :, 2, 3])[0])
        plain = autoencoder.decode(z, {"move": torch.zeros(2, 3)}).mean
        moved = autoencoder.decode(z, {"move": torch.tensor([[0.0, 1, 2], [3, 4, 5]])}).mean
    assert plain is not None
    assert moved is not None
    moves = torch.tensor([[0.0, 1, 2], [3, 4, 5]]) * autoencoder.decoder.linear.weight[0].sum()
    torch.testing.assert_close((moved - plain)[:, 0, :, 1, 2], moves)


@pytest.mark.parametrize("names", [(), ("hour",), ("scene", "hour")])
def test_the_decoder_sees_what_the_configuration_lets_it_see(names: tuple[str, ...]) -> None:
    seen: list[set[str]] = []

    class Watching(PointDecoder):
        def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
            seen.append(set(conditions))
            return super().forward(z, conditions)

    data = DataSpec(1, (4,), conditions=(SCENE, Condition("hour", 24)))
    autoencoder = Autoencoder(
        data,
        PointEncoder(data, 4),
        VectorQuantizer(4, codebook_size=7),
        Watching(4, plain_likelihood(data)),
        decoder_conditions=names,
    )
    autoencoder.decode(torch.zeros(2, 4, 4), {"scene": torch.zeros(2), "hour": torch.zeros(2)})
    assert seen == [set(names), set(names)]


# -- the proof that parts fit


class Broken(PointEncoder):
    def __init__(self, data: DataSpec, dim: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__(data, dim)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class BrokenDecoder(PointDecoder):
    def __init__(self, dim: int, likelihood: Likelihood, act: Callable[[Distribution], Distribution]) -> None:
        super().__init__(dim, likelihood)
        self.act = act

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return self.act(super().forward(z, conditions))


class BrokenQuantizer(Quantizer):
    channels = dim = 4
    depth, codebook_sizes = 2, (7, 7)

    def __init__(self) -> None:
        super().__init__()
        self.inner = VectorQuantizer(4, codebook_size=7)

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)


class Elsewhere(Quantizer):
    """Says that its codes lie where they do not, or that it cannot take the latents."""

    channels = dim = 4
    depth, codebook_sizes, local = 1, (7,), False

    def __init__(self, code_grid: Any) -> None:
        super().__init__()
        self.inner, self.given = VectorQuantizer(4, codebook_size=7), code_grid

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        if self.given is None:
            raise ValueError("scales=(8,): the last must be the latents' grid")
        return self.given

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)


SOUND = DataSpec(1, (16,), levels=8)


def compose(
    encoder: Encoder | None = None, quantizer: Quantizer | None = None, decoder: Decoder | None = None
) -> Autoencoder:
    return Autoencoder(
        SOUND,
        encoder or PointEncoder(SOUND, 4),
        quantizer or VectorQuantizer(4, codebook_size=7),
        decoder or PointDecoder(4, plain_likelihood(SOUND)),
    )


def _wrong_nats(distribution: Distribution) -> Distribution:
    distribution.log_prob = lambda x: torch.zeros(2, 16)  # type: ignore[method-assign]
    return distribution


def _raise(error: Exception) -> Callable[[object], object]:
    def act(_: object) -> object:
        raise error

    return act


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: {"encoder": PointEncoder(SOUND, 5)}, "PointEncoder gives 5 channels, VectorQuantizer takes 4"),
        (
            lambda: {"encoder": Broken(SOUND, 4, lambda z: z[:, :, ::2])},
            r"PointDecoder gives \(1, 8\), the data is \(1, 16\): Broken makes a grid of \(8,\); change .* strides",
        ),
        (
            lambda: {"encoder": Broken(SOUND, 4, lambda z: z[:, :, 0])},
            r"Broken on data \(1, 16\) gives latents \(4,\)",
        ),
        (
            lambda: {"encoder": Broken(SOUND, 4, lambda z: z[:, :, :0])},
            r"Broken on data \(1, 16\) gives latents \(4, 0\)",
        ),
        (
            lambda: {"encoder": Broken(SOUND, 4, lambda z: z + torch.zeros(3))},
            r"Broken on data \(1, 16\): .*length 3.*16",
        ),
        (
            lambda: {"encoder": Broken(SOUND, 4, _raise(TypeError("unordered data")))},  # type: ignore[arg-type]
            r"Broken on data \(1, 16\): unordered data",
        ),
        (
            lambda: {"quantizer": BrokenQuantizer()},
            r"BrokenQuantizer gives codes \(2, 1, 16\), not \(2, 2, 16\)",
        ),
        (
            lambda: {"quantizer": Elsewhere(((4,), (16,)))},
            r"Elsewhere gives codes \(2, 1, 16\), not \(2, 1, 20\): its code_grid says where codes lie",
        ),
        (
            lambda: {"quantizer": Elsewhere((4, 4))},
            r"Elsewhere has a code_grid of \(4, 4\) for latents on \(16,\): .* the parts of a flat one",
        ),
        (lambda: {"quantizer": Elsewhere(((4,), ()))}, r"Elsewhere has a code_grid of \(\(4,\), \(\)\)"),
        (lambda: {"quantizer": Elsewhere(16)}, r"Elsewhere has a code_grid of 16 for latents"),
        (
            lambda: {"quantizer": Elsewhere(None)},
            r"Elsewhere on latents of a grid of \(16,\): scales=\(8,\): the last must be the latents' grid",
        ),
        (
            lambda: {"decoder": PointDecoder(5, plain_likelihood(SOUND))},
            r"PointDecoder on latents \(4, 16\) \(PointEncoder makes a grid of \(16,\)\): ",
        ),
        (
            lambda: {"decoder": BrokenDecoder(4, plain_likelihood(SOUND), _wrong_nats)},
            r"BrokenDecoder gives a log_prob of shape \(2, 16\), not \(2,\): one number for each example",
        ),
    ],
)
def test_a_misfit_names_both_sides_and_both_numbers(parts, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MisfitError, match=message) as misfit:
        compose(**parts())
    assert len(str(misfit.value).splitlines()) <= 3


def test_parts_are_called_as_they_were_chosen() -> None:
    encoder = PointEncoder(SOUND, 5)
    label(encoder, "encoder=mine")
    with pytest.raises(MisfitError, match="encoder=mine gives 5 channels"):
        compose(encoder)


def test_the_proof_leaves_nothing_behind() -> None:
    quantizer = VectorQuantizer(4, codebook_size=7)
    encoder, decoder = PointEncoder(SOUND, 4), PointDecoder(4, plain_likelihood(SOUND))
    encoder.eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    random = torch.get_rng_state()
    autoencoder = compose(encoder, quantizer, decoder)
    assert torch.equal(torch.get_rng_state(), random)
    assert (encoder.training, quantizer.training, decoder.training) == (False, True, True)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    assert all(p.grad is None for p in autoencoder.parameters())
    assert all(type(p) is nn.Parameter for p in autoencoder.parameters())


def test_the_proof_takes_no_memory() -> None:
    """Its example alone would be 1.6 GiB, its logits 12 GiB."""
    film = DataSpec(3, (16, 1024, 1024), levels=32)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert point_autoencoder(film).code_spec.grid == (16, 1024, 1024)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 200 * 1024


def test_codes_alone_give_the_same_data() -> None:
    autoencoder, x = point_autoencoder(FILM).eval(), random_data(FILM, 2)
    with torch.no_grad():
        quantized = autoencoder.quantize(x)
        z = autoencoder.embed(quantized.codes)
        assert torch.equal(z, quantized.z)
        assert torch.equal(autoencoder.decode(z, {}).log_prob(x), autoencoder.decode(quantized.z, {}).log_prob(x))
