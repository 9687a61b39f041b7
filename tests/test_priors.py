"""The priors of the core, and the loop they sample with."""

from __future__ import annotations

from math import log

import pytest
import torch

from toolkit.errors import ToolkitError
from toolkit.prior import Prior
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.priors.sampling import pick
from toolkit.priors.uniform import UniformPrior
from toolkit.spec import Condition, LatentSpec
from toolkit.testing.prior import PriorSuite

CODES = LatentSpec((4, 4), (5, 3))
KIND = Condition("kind", 2)


class TestUniformPrior(PriorSuite):
    def make(self, latent: LatentSpec, conditions: tuple[Condition, ...]) -> Prior:
        return UniformPrior(latent, conditions)


class TestPixelCNNPrior(PriorSuite):
    def make(self, latent: LatentSpec, conditions: tuple[Condition, ...]) -> Prior:
        return small(latent, conditions)


def small(latent: LatentSpec, conditions: tuple[Condition, ...] = ()) -> PixelCNNPrior:
    return PixelCNNPrior(latent, conditions, hidden=6, layers=2, kernel_size=3, head=8)


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
    latent = LatentSpec((8, 8), (512, 4))
    nats = UniformPrior(latent, ()).log_prob(torch.zeros(3, 2, 8, 8, dtype=torch.int64), {})
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


def test_training_under_conditions_parts_the_distributions(trained: PixelCNNPrior) -> None:
    zeros, ones = torch.zeros(1, *CODES.shape).long(), torch.ones(1, *CODES.shape).long()
    with torch.no_grad():
        for kind, likely, unlikely in ((0, zeros, ones), (1, ones, zeros)):
            condition = {"kind": torch.tensor([kind])}
            assert trained.log_prob(likely, condition) > trained.log_prob(unlikely, condition) + 3
        # Dropped conditions have taught it the mixture of both.
        assert (trained.log_prob(zeros, {}) - trained.log_prob(ones, {})).abs() < 3


def test_samples_follow_their_conditions(trained: PixelCNNPrior) -> None:
    kinds = torch.arange(40) % 2
    codes = trained.sample(40, {"kind": kinds}, generator=generator())
    assert 0.65 < (codes == kinds[:, None, None, None]).double().mean() < 0.85


def test_guidance_moves_samples_towards_their_condition(trained: PixelCNNPrior) -> None:
    kinds = {"kind": torch.zeros(1000, dtype=torch.int64)}
    shares = []
    for guidance in (0.0, 1.0, 3.0):
        codes = trained.sample(1000, kinds, guidance=guidance, generator=generator())
        # In the first row, as later codes know the kind from earlier ones.
        shares.append((codes[:, :, 0] == 0).double().mean())
    assert shares[0] < 0.65 < shares[1] < 0.8 < shares[2]


def test_guidance_without_conditions_is_refused() -> None:
    with pytest.raises(ToolkitError, match="guidance=2"):
        small(CODES).sample(2, {}, guidance=2.0)


@pytest.mark.parametrize("prior", [small(CODES), UniformPrior(CODES, ())], ids=["pixelcnn", "uniform"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
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


def test_sampling_ignores_the_training_mode() -> None:
    torch.manual_seed(0)
    prior = PixelCNNPrior(CODES, (KIND,), hidden=6, layers=2, head=8, dropout=0.5, condition_dropout=0.5)
    kinds = {"kind": torch.arange(16) % 2}
    training = prior.train().sample(16, kinds, generator=generator())
    assert torch.equal(training, prior.eval().sample(16, kinds, generator=generator()))


def picked(**filters: float) -> set[int]:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(999, 4)
    return set(pick(logits, torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1], **filters).tolist())


def test_pick_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log().expand(6, 4)
    uniform = torch.tensor([0.0, 0.099, 0.101, 0.499, 0.501, 0.999], dtype=torch.float64)
    assert pick(logits, uniform).tolist() == [0, 0, 1, 1, 2, 3]


def test_pick_never_takes_an_impossible_code() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(2, 5)
    assert pick(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 3]


def test_filters_leave_the_likeliest_codes() -> None:
    assert picked() == {0, 1, 2, 3}
    assert picked(top_k=1) == {1}
    assert picked(top_k=3) == {1, 2, 3}
    assert picked(top_k=9) == {0, 1, 2, 3}
    assert picked(top_p=0.3) == {1}
    assert picked(top_p=0.6) == {1, 3}
    assert picked(top_p=1.0) == {0, 1, 2, 3}
    assert picked(top_k=2, top_p=0.5) == {1}
    assert picked(temperature=0.01) == {1}


def test_filters_keep_a_uniform_distribution() -> None:
    uniform = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    assert len(pick(torch.zeros(100, 7), uniform, top_k=2, top_p=0.3).unique()) == 7
