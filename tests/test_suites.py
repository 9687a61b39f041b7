"""The conformance suites themselves: sound parts pass, and each kind of broken part is caught."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from random import random
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from toolkit.decoder import Decoder
from toolkit.distributed import all_reduce_sum, rank
from toolkit.encoder import Encoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.quantizer import Posterior, Quantized, Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.spec import CodeGrid, Condition, DataSpec
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit.testing.parts import PointDecoder, PointEncoder
from toolkit.testing.quantizer import QuantizerSuite


class CausalEncoder(Encoder):
    """Sees this position and those before it."""

    causal = True

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.data, self.stride, self.ahead = data, (2,), 0
        self.conv = nn.Conv1d(data.channels, dim, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(self.data.scale(x), (2 - self.ahead, self.ahead))
        z: Tensor = self.conv(padded)
        return z


class TestPointEncoder(EncoderSuite):
    data: ClassVar[DataSpec] = DataSpec(2, (3, 4, 5), levels=5)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return PointEncoder(data, dim)


class TestCausalEncoder(EncoderSuite):
    data: ClassVar[DataSpec] = DataSpec(1, (24,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return CausalEncoder(data, dim)


class TestPointDecoder(DecoderSuite):
    data, grid = DataSpec(2, (3, 4)), (3, 4)
    conditional = False

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return PointDecoder(dim, likelihood)


def test_an_encoder_that_looks_ahead_is_caught() -> None:
    class Suite(TestCausalEncoder):
        def make(self, data: DataSpec, dim: int) -> Encoder:
            encoder = CausalEncoder(data, dim)
            encoder.ahead = 1
            return encoder

    with pytest.raises(AssertionError):
        Suite().test_a_prefix_in_gives_the_prefix_out()


def test_an_encoder_with_another_stride_is_caught() -> None:
    class Suite(TestCausalEncoder):
        def make(self, data: DataSpec, dim: int) -> Encoder:
            encoder = CausalEncoder(data, dim)
            encoder.stride = (1,)
            return encoder

    with pytest.raises(AssertionError):
        Suite().test_the_stride_divides_the_axes()
    with pytest.raises(AssertionError):
        Suite().test_shifting_the_data_by_a_stride_shifts_the_latents_by_one()


def test_an_encoder_that_normalizes_over_all_positions_is_told_so() -> None:
    class Normalized(PointEncoder):
        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x)
            return z - z.mean((2, 3, 4), keepdim=True)

    class Suite(TestPointEncoder):
        def make(self, data: DataSpec, dim: int) -> Encoder:
            return Normalized(data, dim)

    with pytest.raises(AssertionError, match="every position sees a border"):
        Suite().test_shifting_the_data_by_a_stride_shifts_the_latents_by_one()


class Wrapped(Quantizer):
    """An EMA quantizer to be broken."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = EMAQuantizer(dim, codebook_size=7)
        self.channels = self.dim = dim
        self.depth, self.codebook_sizes = 1, (7,)

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)


class Shifted(Wrapped):
    def embed(self, codes: Tensor) -> Tensor:
        return super().embed(codes) + 0.01


class AlwaysLearning(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        self.inner.train()
        return super().forward(z)


class Mixing(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z + z.cumsum(-1))


class Unannounced(Wrapped):
    """Has its codes flat, and does not say so."""

    def forward(self, z: Tensor) -> Quantized:
        made = super().forward(z)
        return made._replace(codes=made.codes.flatten(2))


class Promising(Wrapped):
    """Says that its codes lie at two scales, which they do not."""

    local = False

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        return ((1,) * len(grid), grid)


class Elsewhere(Unannounced):
    """Would be local if its codes were where its latents are."""

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        return (grid,)


class Deaf(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z.detach())


class Still(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        self.inner.eval()
        return super().forward(z)


class Trusting(Wrapped):
    def __call__(self, z: Tensor) -> Quantized:
        return self.forward(z)


class Narrow(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        made = super().forward(z)
        return made._replace(z=made.z.float())


class Branching(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z if z.sum() > 0 else -z)


class Counting(Wrapped):
    """Takes the number of examples for a constant."""

    def forward(self, z: Tensor) -> Quantized:
        made = super().forward(z)
        return made._replace(kl=made.kl + z.new_zeros(len(z)))


class Alone(Wrapped):
    """Counts what it has seen itself, whatever other ranks have."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            self.seen += z.detach().sum()
        return super().forward(z)


class Uneven(Wrapped):
    """Meets the other ranks only sometimes."""

    def forward(self, z: Tensor) -> Quantized:
        if self.training and rank() == 0:
            all_reduce_sum(z.detach().sum())
        return super().forward(z)


class Unseeded(Wrapped):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z + random())


class Whimsical(Wrapped):
    """Begins anywhere."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = nn.Parameter(torch.tensor(random()))


class Shared(Wrapped):
    """A copy of it is not its own."""

    def __deepcopy__(self, memo: object) -> Shared:
        return self


class Misdrawn(Wrapped):
    def sample(self, z: Tensor) -> Quantized:
        made = self(z)
        return made._replace(z=made.z + 0.01)


class Drawing(Quantizer):
    """A categorical quantizer to be broken."""

    has_posterior = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = CategoricalQuantizer(dim, codebook_size=4)
        self.channels, self.dim = 4, dim
        self.depth, self.codebook_sizes = 1, (4,)

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)

    def sample(self, z: Tensor) -> Quantized:
        return self.inner.sample(z)

    def posterior(self, z: Tensor) -> Posterior:
        return self.inner.posterior(z)


class Sharpened(Drawing):
    def sample(self, z: Tensor) -> Quantized:
        return super().sample(2 * z)._replace(kl=super().sample(z).kl)


class Entropic(Drawing):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z)._replace(kl=self.posterior(z).entropy())


class Free(Drawing):
    def sample(self, z: Tensor) -> Quantized:
        made = super().sample(z)
        return made._replace(kl=0 * made.kl)


class Unsaid(Drawing):
    has_posterior = False


class Unnormalized(Drawing):
    def posterior(self, z: Tensor) -> Posterior:
        made = super().posterior(z)
        made.log_probs = [each + 0.01 for each in made.log_probs]
        return made


class RemoteError(Drawing):
    """Samples what it does not say."""

    def posterior(self, z: Tensor) -> Posterior:
        made = super().posterior(z)
        made.sample = super().posterior(-z).sample  # type: ignore[method-assign]
        return made


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Trusting, "test_invalid_latents_are_rejected_by_name"),
        (Narrow, "test_double_precision_stays_double"),
        (Branching, "test_it_exports"),
        (Counting, "test_it_exports"),
        (Branching, "test_it_compiles_whole"),
        (Alone, "test_two_ranks_keep_the_same_statistics_as_one"),
        (Uneven, "test_two_ranks_keep_the_same_statistics_as_one"),
        (Unseeded, "test_a_seed_decides_the_outcome"),
        (Whimsical, "test_a_seed_decides_the_initial_state"),
        (Shared, "test_a_copy_does_the_same_and_shares_no_tensor"),
        (Misdrawn, "test_a_sample_is_not_relaxed"),
        (Free, "test_a_sample_has_the_exact_kl"),
        (Unsaid, "test_it_has_a_posterior_or_raises_an_error"),
        (Unnormalized, "test_the_posterior_sums_to_one"),
        (Entropic, "test_the_kl_is_the_rate_less_the_entropy"),
        (RemoteError, "test_samples_of_the_posterior_fit_its_probabilities"),
        (Sharpened, "test_samples_of_the_quantizer_fit_the_posterior"),
        (Shifted, "test_embedding_the_codes_gives_the_latents"),
        (AlwaysLearning, "test_eval_changes_no_state"),
        (Mixing, "test_positions_do_not_influence_one_another"),
        (Unannounced, "test_the_output_has_the_declared_shape"),
        (Promising, "test_the_output_has_the_declared_shape"),
        (Elsewhere, "test_codes_of_a_local_quantizer_are_on_the_latents_grid"),
        (Deaf, "test_the_decoders_gradient_reaches_every_channel"),
        (Still, "test_training_reaches_every_depth"),
    ],
)
def test_a_broken_quantizer_is_caught(broken: type[Quantizer], law: str) -> None:
    class Suite(QuantizerSuite):
        def make(self, dim: int) -> Quantizer:
            return broken(dim)  # type: ignore[call-arg]

    arguments = {"grid": (3, 4), "training": False, "strict": False}
    wanted = {name: arguments[name] for name in signature(getattr(Suite, law)).parameters if name != "self"}
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)) as caught:
        getattr(Suite(), law)(**wanted)
    if caught.type is AssertionError:
        assert str(caught.value).startswith(f"Suite breaks the law: {law[5:].replace('_', ' ')}\n")


def test_a_decoder_that_leaks_between_examples_is_caught() -> None:
    class Leaking(PointDecoder):
        def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
            return super().forward(z - z.mean(0), conditions)

    class Suite(TestPointDecoder):
        def make(
            self,
            data: DataSpec,
            dim: int,
            grid: tuple[int, ...],
            conditions: tuple[Condition, ...],
            likelihood: Likelihood,
        ) -> Decoder:
            return Leaking(dim, likelihood)

    with pytest.raises(AssertionError):
        Suite().test_examples_do_not_influence_one_another()
