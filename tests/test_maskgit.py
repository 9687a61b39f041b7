"""MaskGIT: what it hides in training, and what its passes draw."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.prior import SamplingOptions
from toolkit.priors.maskgit import MaskGITPrior
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.counting import every, goodness_of_fit, histogram

CODES = CodeSpec((2, 2), (3, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(code_spec: CodeSpec = CODES, **options: float) -> MaskGITPrior:
    torch.manual_seed(0)
    prior = MaskGITPrior(code_spec, (), hidden=8, layers=2, heads=2, **options).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


def test_it_says_why_it_has_no_probability() -> None:
    with pytest.raises(NotImplementedError, match="many codes at once"):
        made().log_prob(torch.zeros(1, *CODES.shape).long(), {})


def test_the_shares_that_are_hidden_follow_the_cosine() -> None:
    """Their distribution: a share above s is hidden as often as u is below 2 / pi acos(s)."""
    code_spec = CodeSpec((10, 10), (3,))
    hidden = MaskGITPrior(code_spec, (), hidden=8, layers=1)._masks(torch.zeros(4000, *code_spec.shape).long())
    shares = hidden.double().flatten(1).mean(1)
    assert shares.amin() >= 0.01
    for share in (0.2, 0.5, 0.9):
        expected = 2 / pi * torch.tensor(share).acos()
        assert abs((shares > share).double().mean() - expected) < 0.03
    assert (hidden.double().mean(0) - 2 / pi).abs().amax() < 0.05


def test_the_loss_is_of_hidden_codes_alone() -> None:
    """Uniform logits cost log K each, whichever are hidden; and what is seen is not asked for."""
    prior, codes = made(), torch.zeros(5, *CODES.shape).long()
    with torch.no_grad():
        for head in prior.heads.parameters():
            head.zero_()
    nats = torch.tensor([3.0, 2.0]).log()
    hidden = torch.tensor([True, False])[:, None, None].expand(CODES.shape)
    prior._masks = lambda codes: hidden.expand(5, -1, -1, -1)  # type: ignore[method-assign]
    torch.testing.assert_close(prior.loss(codes, {}), (8 * nats[0]).expand(5), check_dtype=False)


@torch.no_grad()
def test_one_pass_draws_independent_codes() -> None:
    """From what the network says of a wholly hidden map."""
    prior, n = made(passes=1), 20_000
    nothing = torch.zeros(1, *CODES.shape).long()
    parts = prior._logits(nothing, nothing == 0, None)
    nats = [p.log_softmax(-1).expand(len(every(CODES)), -1, -1, -1) for p in parts]
    log_p = sum(p.gather(-1, every(CODES)[:, d].unsqueeze(-1)).flatten(1).sum(1) for d, p in enumerate(nats))
    codes = prior.sample(n, {}, generator=generator())
    assert goodness_of_fit(histogram(codes, every(CODES)), log_p.exp() * n) > 1e-4


def test_passes_leave_hidden_what_the_cosine_says() -> None:
    code_spec, passes = CodeSpec((8, 8), (5,)), 6
    prior = made(code_spec, passes=passes)
    hidden: list[int] = []
    logits = prior._logits
    prior._logits = lambda codes, masked, *a: hidden.append(int(masked.sum())) or logits(codes, masked, *a)  # type: ignore
    codes = prior.sample(1, {}, generator=generator())
    assert hidden == [64, *(int(64 * cos(pi / 2 * step / passes)) for step in range(1, passes))]
    assert codes.amin() >= 0


def test_any_region_may_be_given() -> None:
    prior = made()
    given = torch.tensor([[[-1, 2, -1, 0], [1, -1, -1, -1]]]).expand(50, -1, -1)
    codes = prior.sample(50, {}, prefix=given, generator=generator()).flatten(2)
    assert torch.equal(codes.where(given >= 0, -1), given)
    assert len(codes[:, 0, 0].unique()) > 1
    with pytest.raises(ToolkitError, match="outside the codebooks"):
        prior.sample(1, {}, prefix=torch.tensor([[[-1, 3], [1, 1]]]))


def test_filters_hold_in_every_pass() -> None:
    """With top_k=1 nothing is left to chance but the order, and without chance in that, nothing at all."""
    prior = made(choice_temperature=0.0)
    codes = prior.sample(20, {}, SamplingOptions(top_k=1), generator=generator())
    assert len(codes.unique(dim=0)) == 1


def test_samples_in_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = made()
    whole = prior.sample(9, {}, generator=generator())
    monkeypatch.setattr("toolkit.priors.maskgit.MEMORY", 1000)
    assert torch.equal(prior.sample(9, {}, generator=generator()), whole)


@pytest.mark.slow
def test_it_learns_to_copy() -> None:
    """All codes of a map are alike: once one is drawn the others follow. Which stay is left to chance: so all codes are
    about as frequent as in the data."""
    torch.manual_seed(0)
    code_spec = CodeSpec((2, 3), (4,))
    prior = MaskGITPrior(code_spec, (), hidden=32, layers=2, heads=2, passes=6, choice_temperature=100.0)
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    for _ in range(300):
        codes = torch.randint(4, (64, 1, 1, 1)).expand(-1, 1, 2, 3)
        optimizer.zero_grad()
        prior(codes, {}).mean().backward()
        optimizer.step()
    drawn = prior.eval().sample(200, {}, generator=generator()).flatten(1)
    assert (drawn == drawn[:, :1]).all(1).double().mean() > 0.95
    assert torch.bincount(drawn[:, 0], minlength=4).amin() > 25


@pytest.mark.parametrize(("guidance", "times"), [(1.0, 1), (2.0, 2)])
def test_a_text_is_read_once_for_all_passes(guidance: float, times: int) -> None:
    """And once more as none, for guidance."""
    text, read = Condition("caption", 4, text=True), list[Tensor]()
    prior = MaskGITPrior(CODES, (text,), hidden=8, layers=2, heads=2, passes=5).eval()
    prior.embedding.texts.register_forward_pre_hook(lambda _, given: read.append(given[0]))  # type: ignore[union-attr]
    prior.sample(2, {"caption": text.encoded("star").expand(2, -1)}, SamplingOptions(guidance=guidance))
    assert len(read) == times
