"""The prior: its kind's laws, and what makes it a chain."""

from __future__ import annotations

import torch

from toolkit import CodeSpec, Condition, Prior
from toolkit.testing import PriorSuite
from toolkit_hello.markov import MarkovPrior


class TestMarkovPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return MarkovPrior(code_spec, conditions)


def test_it_learns_the_transitions_that_it_counts() -> None:
    """At the likelihood's maximum a row of the table is the shares of what followed its code."""
    torch.manual_seed(0)
    truth = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]])
    chain = [torch.randint(3, (64,))]
    for _ in range(15):
        chain.append(torch.multinomial(truth[chain[-1]], 1)[:, 0])
    codes = torch.stack(chain, 1)[:, None]
    prior = MarkovPrior(CodeSpec((16,), (3,)), ())
    optimizer = torch.optim.LBFGS(prior.parameters(), line_search_fn="strong_wolfe", max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = prior(codes, {}).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    counts = torch.zeros(3, 3).index_put_((codes[:, 0, :-1], codes[:, 0, 1:]), torch.ones(()), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    torch.testing.assert_close(prior.tables[0][:3].softmax(1), shares, atol=1e-3, rtol=0)


def test_a_code_tells_of_the_next_and_of_no_later() -> None:
    """Swapping the first two of three codes moves the third's share; changing the first alone does not."""
    torch.manual_seed(0)
    prior = MarkovPrior(CodeSpec((3,), (4,)), ())
    torch.nn.init.normal_(prior.tables[0])

    def third(first: int, second: int) -> torch.Tensor:
        codes = torch.tensor([[[first, second, third]] for third in range(4)])
        return prior.log_prob(codes, {}).log_softmax(0)

    torch.testing.assert_close(third(0, 1), third(3, 1))
    assert not torch.allclose(third(0, 1), third(0, 2))
