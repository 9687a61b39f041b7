"""The suite of priors catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from planted import assert_catches
from torch import Tensor

from toolkit.causal.transformer import Transformer, TransformerState
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.categorical import CategoricalPrior
from toolkit.priors.scales import ScalesPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.prior import PriorSuite
from toolkit.testing.prior_cases import PARTS


class Table(CategoricalPrior):  # type: ignore[misc]
    """A table of probabilities to be broken."""


class PriorCase(PriorSuite):
    def __init__(self, part: type[Table] = Table) -> None:
        self.of = part

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return self.of(code_spec, conditions)


Codes = Tensor
Known = Mapping[str, Tensor]


class Unnormalized(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) + 0.01


class Peeking(Table):
    """Is surer of a code the more often it comes, later ones included."""

    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) + (codes == 0).flatten(1).double().mean(1)


class MeanOverPositions(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) / codes[0].numel()


class Grouping(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        nats = super().log_prob(codes, conditions)
        return nats.mean().expand(len(codes))


class LabelZero(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, {"kind": torch.zeros(len(codes), dtype=torch.int64), **conditions})


class Deaf(Table):
    """Ignores the conditions wherever they are."""

    def _logits(self, conditions: Known, n: int, *args: Any) -> Any:
        return super()._logits({}, n, *args)


class Unconditioned(Table):
    def sample(self, n: int, conditions: Known, *args: Any, **words: Any) -> Tensor:
        return super().sample(n, {}, *args, **words)


class Turned(Table):
    """Draws in raster order and lays the codes down in another."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words).flip(-1)


class GlobalNoise(Table):
    def sample(self, n: int, conditions: Known, sampling: SamplingOptions = PLAIN, **words: Any) -> Tensor:
        return super().sample(n, conditions, sampling, **{**words, "generator": None})


class Forgetful(Table):
    def sample(self, n: int, conditions: Known, sampling: SamplingOptions = PLAIN, **words: Any) -> Tensor:
        return super().sample(n, conditions, sampling, **{**words, "prefix": None})


class Overwritten(ScalesPrior):  # type: ignore[misc]
    """Draws all codes, and puts the prefix in the place of its own."""

    def sample(self, n: int, conditions: Known, *args: Any, prefix: Tensor | None = None, **words: Any) -> Tensor:
        codes = super().sample(n, conditions, *args, **words)
        if prefix is not None:
            codes[:, :, : prefix.shape[2]] = prefix
        return codes


class Untaught(Table):
    def loss(self, codes: Codes, conditions: Known) -> Tensor:
        return super().loss(codes, conditions).detach().requires_grad_()


class ScalesCase(PriorSuite):
    def __init__(self, part: type[ScalesPrior] = ScalesPrior) -> None:
        self.of = part

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return self.of(code_spec, conditions, hidden=8, layers=1, heads=2, head=8)


GRID = {"code_spec": CodeSpec((2, 3), (3,))}


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (Unnormalized, "probabilities of all code maps sum to one", GRID),
        (Peeking, "probabilities of all code maps sum to one", GRID),
        (MeanOverPositions, "probabilities sum to one under any condition", {"kind": 1}),
        (Grouping, "examples do not influence one another", {}),
        (LabelZero, "a missing condition means none", {}),
        (Deaf, "probabilities depend on conditions", {}),
        (Unconditioned, "samples fit log prob under a condition", {}),
        (Turned, "samples fit log prob", GRID),
        (GlobalNoise, "a seed decides the codes", {}),
        (Forgetful, "the prefix is kept", {"positions": 2}),
        (Untaught, "the loss is finite and reaches every parameter", GRID),
    ],
)
def test_a_broken_prior_is_caught(broken: type[Table], law: str, words: dict[str, Any]) -> None:
    assert_catches(PriorCase(), PriorCase(broken), law, **words)


@pytest.mark.parametrize("positions", [1, 3])
def test_codes_after_a_prefix_that_do_not_depend_on_it_are_caught(positions: int) -> None:
    words = {"code_spec": PARTS, "positions": positions}
    law = "samples after a prefix fit log prob given the prefix"
    assert_catches(ScalesCase(), ScalesCase(Overwritten), law, **words)


class PrefillCase(PriorSuite):
    """A transformer that enters a prefix by the function that it is given."""

    def __init__(self, prefill: Callable[..., None] = Transformer.prefill) -> None:
        self.prefill = prefill

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        prior = TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)
        prior.network.trunk.prefill = partial(self.prefill, prior.network.trunk)  # type: ignore[method-assign]
        return prior


class PeekingCase(PriorSuite):
    """A transformer whose codes cost less, the more of all codes are the first."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        prior = TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)
        by_position, share = prior.network.by_position, self.share

        def peeking(codes: Tensor, *of: Any) -> Tensor:
            first = (codes == 0).flatten(1).double().mean(1)
            return by_position(codes, *of) - share * first.view(-1, *[1] * (codes.dim() - 1))

        prior.network.by_position = peeking  # type: ignore[method-assign]
        return prior


def test_a_prior_that_sees_its_padding_is_caught() -> None:
    law = "an example in padding costs what it does alone"
    assert_catches(PeekingCase(), PeekingCase(0.1), law, code_spec=CodeSpec((4,), (3,)))


def shifted(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    Transformer.prefill(trunk, state, grid, embedded.roll(1, 2))


def without_the_last_layers_cache(
    trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor
) -> None:
    Transformer.prefill(trunk, state, grid, embedded)
    state.layers[-1].keys.zero_()


def without_context(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    pos_emb = trunk.positions(tuple(grid)).unsqueeze(1)
    Transformer.prefill(trunk, state._replace(pos_emb=pos_emb), grid, embedded)


def without_the_last_input(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    start = state.last_input.clone()
    Transformer.prefill(trunk, state, grid, embedded)
    state.last_input.copy_(start)


@pytest.mark.parametrize("prefill", [shifted, without_the_last_layers_cache, without_context, without_the_last_input])
def test_a_broken_prefill_is_caught(prefill: Callable[..., None]) -> None:
    law = "a prefix in one pass equals its positions one by one"
    assert_catches(PrefillCase(), PrefillCase(prefill), law, **GRID)


class BlocksCase(PriorSuite):
    """A transformer that says of its blocks what the function does with them."""

    def __init__(self, said: Callable[[Sequence[Any]], Sequence[Any]] = list) -> None:
        self.said = said

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        prior = TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)
        said = self.said(prior.blocks_in_order())
        prior.blocks_in_order = lambda: said  # type: ignore[method-assign]
        return prior


@pytest.mark.parametrize(
    "said",
    [lambda blocks: blocks[::-1], lambda blocks: [*blocks, *blocks], lambda blocks: [*blocks, torch.nn.Linear(1, 1)]],
)
def test_blocks_that_are_called_otherwise_are_caught(said: Callable[..., Any]) -> None:
    assert_catches(BlocksCase(), BlocksCase(said), "its blocks are called in order")
