from __future__ import annotations

from math import inf, nan

import pytest
import torch

from toolkit.errors import NotFiniteError
from toolkit.objectives.elbo import ELBO
from toolkit.running_metrics import RunningMetrics, autoencoder_metrics, codebook_use, histogram
from toolkit.spec import CodeSpec, DataSpec
from toolkit.testing.parts import point_autoencoder, random_data

DATA = DataSpec(1, (6,), levels=5, variance=0.5)


def metrics(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means_since_the_last_drain() -> None:
    running = RunningMetrics()
    assert running.drain() == {}
    running.add(1, metrics(loss=1.0, nll=4.0))
    running.add(2, metrics(loss=2.0, nll=0.0))
    assert running.drain() == {"loss": 1.5, "nll": 2.0}
    running.add(3, metrics(loss=7.0, nll=1.0))
    assert running.drain() == {"loss": 7.0, "nll": 1.0}
    running.add(3, metrics(loss=5.0))
    assert running.drain() == {"loss": 5.0}


def test_a_resumed_mean_is_the_uninterrupted_one() -> None:
    running, resumed = RunningMetrics(), RunningMetrics()
    running.add(1, metrics(loss=1.0, nll=4.0))
    resumed.load(running.state(), torch.device("cpu"))
    for each in (running, resumed):
        each.add(2, metrics(nll=0.0, loss=2.0))
    assert resumed.drain() == running.drain() == {"loss": 1.5, "nll": 2.0}


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_the_first_step_that_broke_is_named(bad: float) -> None:
    running = RunningMetrics()
    running.check()
    running.add(6, metrics(loss=1.0, nll=1.0, kl=1.0))
    running.check()
    running.add(7, metrics(loss=bad, nll=bad, kl=1.0))
    running.add(8, metrics(loss=bad, nll=bad, kl=bad))
    with pytest.raises(NotFiniteError, match=r"^nll became NaN or infinite at step 7"):
        running.check()


def test_a_loss_that_breaks_by_itself_is_named() -> None:
    running = RunningMetrics()
    running.add(3, metrics(loss=nan, nll=1.0))
    with pytest.raises(NotFiniteError, match=r"^loss became NaN or infinite at step 3"):
        running.check()


def test_the_histogram_has_each_depth_in_turn() -> None:
    codes = torch.tensor([[[0, 2], [1, 1]], [[2, 2], [0, 1]]])
    assert histogram(codes, CodeSpec((2,), (3, 2))).tolist() == [1, 0, 3, 1, 3]


def test_perplexity_is_that_of_the_histogram() -> None:
    perplexity, usage = codebook_use(torch.tensor([2.0, 2.0, 0.0, 0.0]), CodeSpec((4,), (4,)))
    torch.testing.assert_close((perplexity, usage), (torch.tensor(2.0), torch.tensor(0.5)))


def test_perplexity_of_equally_large_codebooks_is_the_mean_of_each() -> None:
    counts = torch.tensor([2.0, 2.0, 0.0, 5.0, 1.0, 0.0])
    alone = [codebook_use(row, CodeSpec((4,), (3,))) for row in counts.split(3)]
    expected = tuple(torch.stack(values).mean() for values in zip(*alone, strict=True))
    torch.testing.assert_close(codebook_use(counts, CodeSpec((4,), (3, 3))), expected)
    padded = codebook_use(torch.cat([counts, torch.tensor([1.0])]), CodeSpec((4,), (3, 3, 1)))
    torch.testing.assert_close(padded, ((2 * expected[0] + 1) / 3, (2 * expected[1] + 1) / 3))


def test_a_batchs_figures() -> None:
    autoencoder, x = point_autoencoder(DATA), random_data(DATA, 3)
    output = ELBO()(autoencoder, x, {})
    made = autoencoder_metrics(output, x, DATA, autoencoder.code_spec)
    assert {"loss", "nll", "kl", "quantizer", "batch_perplexity", "batch_usage"} <= set(made)
    assert all(value.dim() == 0 and not value.requires_grad for name, value in made.items() if "batch" in name)
    assert 1 <= made["batch_perplexity"] <= 8
    # a softmax's mean costs a pass over its levels: it is left to evaluation
    assert "mse" not in made


def test_the_error_is_measured_where_the_mean_is_at_hand() -> None:
    data = DataSpec(1, (6,), variance=0.5)
    autoencoder, x = point_autoencoder(data), random_data(data, 3)
    output = ELBO()(autoencoder, x, {})
    made = autoencoder_metrics(output, x, data, autoencoder.code_spec)
    assert output.likelihood.mean is not None
    torch.testing.assert_close(made["mse"], (x - output.likelihood.mean).square().mean())
    torch.testing.assert_close(made["nmse"], made["mse"] / 0.5)
