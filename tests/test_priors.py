"""The priors of the core, and the loop they sample with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log

import pytest
import torch

from toolkit.conditioners.bytes import BytesConditioner
from toolkit.errors import ToolkitError
from toolkit.nn.rotary import RotaryPositions, rotate
from toolkit.prior import Prior, SamplingOptions
from toolkit.priors.categorical import CategoricalPrior
from toolkit.priors.coarse_to_fine import CoarseToFinePrior
from toolkit.priors.delay import DelayPrior
from toolkit.priors.factored import FactoredPrior
from toolkit.priors.maskgit import MaskGITPrior
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.priors.random_order import RandomOrderPrior
from toolkit.priors.scales import ScalesPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.priors.uniform import UniformPrior
from toolkit.priors.wavenet import WaveNetPrior
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.prior import TEXTS, PriorSuite
from toolkit.testing.tape import Tape

CODES = CodeSpec((4, 4), (5, 3))
KIND = Condition("kind", 2)


class TestUniformPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return UniformPrior(code_spec, conditions)


class TestCategoricalPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return CategoricalPrior(code_spec, conditions)


class TestWaveNetPrior(PriorSuite):
    ranks = (1,)

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return WaveNetPrior(code_spec, conditions, hidden=6, blocks=1, layers=2, skip=8, head=8)


class TestTransformerPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)


class TestRotaryTransformerPrior(TestTransformerPrior):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return TransformerPrior(code_spec, conditions, hidden=12, layers=2, heads=2, head=8, positions="rotary")


class TestDepthTransformerPrior(TestTransformerPrior):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return TransformerPrior(code_spec, conditions, hidden=8, layers=1, heads=2, head=8, depth_layers=2)


class TestDelayPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return DelayPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)


class TestParallelPrior(TestDelayPrior):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return DelayPrior(code_spec, conditions, delay=0, hidden=8, layers=2, heads=2, head=8)


class TestRandomOrderPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return RandomOrderPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)


class TestMaskGITPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return MaskGITPrior(code_spec, conditions, hidden=8, layers=2, heads=2, passes=3)


class TestRotaryMaskGITPrior(TestMaskGITPrior):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return MaskGITPrior(code_spec, conditions, hidden=12, layers=2, heads=2, passes=3, positions="rotary")


def read(condition: Condition) -> BytesConditioner:
    return BytesConditioner(condition, hidden=8, layers=1, heads=2)


@pytest.mark.long
class TestTransformerPriorWithTexts(PriorSuite):
    conditions = TEXTS

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8, conditioner=read)


@pytest.mark.long
class TestMaskGITPriorWithTexts(PriorSuite):
    conditions = TEXTS

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return MaskGITPrior(code_spec, conditions, hidden=8, layers=2, heads=2, passes=3, conditioner=read)


@pytest.mark.long
class TestDelayPriorWithTexts(PriorSuite):
    conditions = TEXTS

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return DelayPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8, conditioner=read)


@pytest.mark.long
class TestRandomOrderPriorWithTexts(PriorSuite):
    conditions = TEXTS

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return RandomOrderPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8, conditioner=read)


class TestScalesPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return ScalesPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)


class TestCoarseToFinePrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return CoarseToFinePrior(code_spec, conditions, inner=small, hidden=6, residual_blocks=1)


class TestFactoredPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return FactoredPrior(code_spec, conditions, inner=small, largest=2)


class TestPixelCNNPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return small(code_spec, conditions)


def small(code_spec: CodeSpec, conditions: tuple[Condition, ...] = ()) -> PixelCNNPrior:
    return PixelCNNPrior(code_spec, conditions, hidden=6, layers=2, kernel_size=3, head=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(prior: Prior, codes: torch.Tensor, conditions: dict[str, torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        prior(codes, conditions).mean().backward()
        optimizer.step()
    prior.eval()


def test_uniform_codes_cost_the_rate() -> None:
    code_spec = CodeSpec((8, 8), (512, 4))
    nats = UniformPrior(code_spec, ()).log_prob(torch.zeros(3, 2, 8, 8, dtype=torch.int64), {})
    torch.testing.assert_close(nats, torch.full((3,), -64 * (9 + 2) * log(2)))


def test_uniform_has_nothing_to_train() -> None:
    assert not list(UniformPrior(CODES, (KIND,)).parameters())
    assert not UniformPrior(CODES, (KIND,)).state_dict()


@pytest.fixture(scope="module")
def trained() -> PixelCNNPrior:
    """Codes are 0 or 1: three in four are their example's kind."""
    torch.manual_seed(0)
    prior = small(CODES, (KIND,))
    kinds = torch.arange(256) % 2
    flipped = torch.rand(256, *CODES.shape) < 0.25
    fit(prior, (kinds[:, None, None, None] + flipped) % 2, {"kind": kinds}, 100)
    return prior


@pytest.mark.long
def test_training_under_conditions_parts_the_distributions(trained: PixelCNNPrior) -> None:
    zeros, ones = torch.zeros(1, *CODES.shape).long(), torch.ones(1, *CODES.shape).long()
    with torch.no_grad():
        for kind, likely, unlikely in ((0, zeros, ones), (1, ones, zeros)):
            condition = {"kind": torch.tensor([kind])}
            assert trained.log_prob(likely, condition) > trained.log_prob(unlikely, condition) + 3
        # Dropped conditions have taught it the mixture of both.
        assert (trained.log_prob(zeros, {}) - trained.log_prob(ones, {})).abs() < 3


@pytest.mark.long
def test_samples_follow_their_conditions(trained: PixelCNNPrior) -> None:
    kinds = torch.arange(40) % 2
    codes = trained.sample(40, {"kind": kinds}, generator=generator())
    assert 0.65 < (codes == kinds[:, None, None, None]).double().mean() < 0.85


@pytest.mark.parametrize(
    "part",
    [TransformerPrior, RandomOrderPrior, partial(DelayPrior, delay=0)],
    ids=["transformer", "random_order", "delay"],
)
def test_steps_read_texts_as_the_whole_does(part: Callable[..., Prior]) -> None:
    torch.manual_seed(0)
    prior = part(CODES, TEXTS, hidden=8, layers=2, heads=2, head=8, conditioner=read).double().eval()
    texts = [TEXTS[1].encoded(text) for text in ("a star", "star a", "")]
    known = {"kind": torch.arange(3), "caption": torch.stack(texts)}
    codes, tape = torch.randint(3, (3, *CODES.shape), generator=generator()), Tape()
    with torch.no_grad():
        whole = prior.log_prob(codes, known)
        prior.entropy_code(tape, 3, known, codes.flatten(2))
        assert not torch.allclose(whole, prior.log_prob(codes, {**known, "caption": torch.stack(texts[::-1])}))
    torch.testing.assert_close(tape.nats(), -whole, atol=1e-3, rtol=1e-3)


def test_guidance_moves_samples_towards_their_condition(trained: PixelCNNPrior) -> None:
    kinds = {"kind": torch.zeros(1000, dtype=torch.int64)}
    shares = []
    for guidance in (0.0, 1.0, 3.0):
        codes = trained.sample(1000, kinds, SamplingOptions(guidance=guidance), generator=generator())
        # In the first row, as later codes know the kind from earlier ones.
        shares.append((codes[:, :, 0] == 0).double().mean())
    assert shares[0] < 0.65 < shares[1] < 0.8 < shares[2]


@pytest.mark.parametrize(
    "prior",
    [
        small(CODES),
        CategoricalPrior(CODES, ()),
        TransformerPrior(CODES, (), hidden=8),
        MaskGITPrior(CODES, (), hidden=8),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_guidance_without_conditions_is_refused(prior: Prior) -> None:
    with pytest.raises(ToolkitError, match="guidance=2"):
        prior.sample(2, {}, SamplingOptions(guidance=2.0))


@pytest.mark.parametrize(
    "prior",
    [small(CODES), UniformPrior(CODES, ()), CategoricalPrior(CODES, ()), MaskGITPrior(CODES, (), hidden=8, layers=1)],
    ids=lambda prior: type(prior).__name__,
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": torch.zeros(2, 1, 3, dtype=torch.int64)}, r"\(2, 1, 3\)"),
        ({"prefix": torch.full((2, 2, 3), 3)}, r"\(5, 3\)"),
    ],
)
def test_wrong_options_are_refused(prior: Prior, options: dict, message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        prior.sample(2, {}, **options)


def test_a_sample_does_not_depend_on_how_many_are_drawn_with_it() -> None:
    torch.manual_seed(0)
    prior, one = small(CODES).double(), generator()
    together = prior.sample(6, {}, generator=generator())
    in_turn = [prior.sample(3, {}, generator=one) for _ in range(2)]
    assert torch.equal(together, torch.cat(in_turn))


@pytest.mark.parametrize("cls", [PixelCNNPrior, TransformerPrior], ids=lambda cls: cls.__name__)
def test_sampling_ignores_the_training_mode(cls: type) -> None:
    torch.manual_seed(0)
    prior = cls(CODES, (KIND,), hidden=8, layers=2, head=8, dropout=0.5, condition_dropout=0.5)
    kinds = {"kind": torch.arange(16) % 2}
    training = prior.train().sample(16, kinds, generator=generator())
    assert torch.equal(training, prior.eval().sample(16, kinds, generator=generator()))


def test_a_wavenet_over_two_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid of 1 axis is needed, this one has 2"):
        WaveNetPrior(CODES, ())


def test_a_transformer_knows_the_places_it_was_made_for() -> None:
    prior = TransformerPrior(CODES, (), hidden=8, layers=1, heads=2, head=8)
    assert prior.log_prob(torch.zeros(2, 2, 3, 4, dtype=torch.int64), {}).shape == (2,)
    with pytest.raises(ToolkitError, match=r"a grid of \(5, 4\): this network has positions up to \(4, 4\)"):
        prior.log_prob(torch.zeros(2, 2, 5, 4, dtype=torch.int64), {})


@pytest.mark.parametrize("cls", [TransformerPrior, MaskGITPrior], ids=lambda cls: cls.__name__)
def test_rotary_positions_have_no_weights_of_the_grid(cls: type) -> None:
    """What was trained on one grid loads into a prior of a larger one, and costs codes of any."""
    priors = [
        cls(CodeSpec(grid, (5, 3)), (), hidden=8, layers=1, heads=2, positions="rotary") for grid in ((4, 4), (6, 9))
    ]
    priors[1].load_state_dict(priors[0].state_dict())
    codes = torch.randint(3, (2, 2, 6, 9))
    torch.manual_seed(1)
    whole = priors[1].eval().loss(codes, {})
    torch.manual_seed(1)
    torch.testing.assert_close(priors[0].eval().loss(codes, {}), whole)
    assert priors[1].sample(2, {}).shape == (2, 2, 6, 9)


def test_rotary_attention_depends_on_distances_alone() -> None:
    """Of two vectors at any two positions of a grid as far apart."""
    rotation, grid = RotaryPositions(2, 12).double()((5, 7)), (5, 7)
    query, key = (rotate(torch.randn(1, 12).double().expand(35, 12), rotation).unflatten(0, grid) for _ in range(2))
    scores = torch.einsum("abc,dec->abde", query, key)
    for rows, columns in ((0, 0), (2, 3), (4, 1)):
        apart = [scores[a, b, a + rows, b + columns] for a in range(5 - rows) for b in range(7 - columns)]
        torch.testing.assert_close(torch.stack(apart), apart[0].expand(len(apart)))
    assert scores[0, 0].std() > 0.1


def test_rotary_positions_need_a_pair_of_channels_for_each_axis() -> None:
    with pytest.raises(ValueError, match=r"positions=rotary: a head has 2 channels, and 2 axes need .* at least 4"):
        TransformerPrior(CODES, (), hidden=8, heads=4, positions="rotary")
    with pytest.raises(ValueError, match="positions=turned: one of learned, rotary"):
        MaskGITPrior(CODES, (), hidden=8, positions="turned")  # type: ignore[arg-type]


@pytest.mark.long
def test_independent_codes_are_learned_to_their_entropy() -> None:
    """Where codes are independent, none of a network's knowledge is missing: the cost is the entropy."""
    torch.manual_seed(0)
    code_spec, weights = CodeSpec((2,), (4,)), torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    codes = torch.multinomial(weights, 20_000, replacement=True).T.unsqueeze(1)
    prior = CategoricalPrior(code_spec, ())
    fit(prior, codes, {}, 300)
    shares = torch.stack([torch.bincount(codes[:, 0, i], minlength=4) / 20_000 for i in range(2)])
    entropy = torch.special.entr(shares).sum()
    torch.testing.assert_close(-prior.log_prob(codes, {}).mean(), entropy, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_paths_between_codes_beat_independent_ones() -> None:
    """Codes that copy their neighbour cost an independent model all their bits, and a causal one almost none."""
    torch.manual_seed(0)
    code_spec = CodeSpec((3, 3), (8,))
    codes = torch.randint(8, (256, 1, 3, 1)).expand(256, 1, 3, 3)
    costs = {}
    for prior in (
        CategoricalPrior(code_spec, ()),
        small(code_spec),
        TransformerPrior(code_spec, (), hidden=16, layers=1, heads=2),
    ):
        fit(prior, codes, {}, 150)
        costs[type(prior)] = -prior.log_prob(codes, {}).mean().item() / log(8)
    assert costs[CategoricalPrior] > 8.5
    assert max(costs[PixelCNNPrior], costs[TransformerPrior]) < 3.6


@pytest.mark.few(1)
@pytest.mark.parametrize("cls", [CategoricalPrior, PixelCNNPrior, TransformerPrior], ids=lambda cls: cls.__name__)
def test_training_drops_the_share_of_conditions_that_it_is_told(cls: type) -> None:
    """All of them at 1, none at 0, and in eval mode none at all."""
    kinds, codes = {"kind": torch.arange(16) % 2}, torch.zeros(16, *CODES.shape).long()
    for share, seen in ((1.0, {}), (0.0, kinds)):
        torch.manual_seed(0)
        prior = cls(CODES, (KIND,), condition_dropout=share)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            torch.testing.assert_close(prior.train().loss(codes, kinds), -prior.log_prob(codes, seen))
            torch.testing.assert_close(prior.eval().loss(codes, kinds), -prior.log_prob(codes, kinds))
        assert not torch.allclose(prior.log_prob(codes, kinds), prior.log_prob(codes, {}))
