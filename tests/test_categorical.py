"""The categorical quantizer: the relaxation, its limits, and the schedule of its temperature."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestCategoricalQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return CategoricalQuantizer(dim, codebook_size=6)


class TestSoftCategorical(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return CategoricalQuantizer(dim, codebook_size=6, relaxation="soft")


def categorical(**options: Any) -> CategoricalQuantizer:
    return CategoricalQuantizer(3, codebook_size=5, **options).double()


def constant(temperature: float, **options: Any) -> CategoricalQuantizer:
    return categorical(temperature=temperature, final_temperature=temperature, **options)


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_the_kl_is_that_to_the_uniform_distribution() -> None:
    quantizer, z = categorical(), logits(4, 5, 2, 3)
    rows = Categorical(logits=z.movedim(1, -1))
    expected = kl_divergence(rows, Categorical(torch.full((5,), 0.2).double())).flatten(1).sum(1)
    for each in (quantizer.train(), quantizer.eval()):
        torch.testing.assert_close(each(z).kl, expected)
    assert quantizer(z).loss.tolist() == [0] * 4


def test_certain_codes_cost_the_rate_and_uniform_ones_nothing() -> None:
    z = torch.zeros(2, 5, 3, dtype=torch.float64)
    z[0, 2] = 1000.0
    torch.testing.assert_close(categorical()(z).kl, torch.tensor([3 * log(5), 0.0], dtype=torch.float64))


def test_the_gradient_of_the_kl_reaches_the_logits() -> None:
    assert torch.autograd.gradcheck(lambda z: categorical().eval()(z).kl, logits(2, 5, 3).requires_grad_())


def test_codes_in_training_are_exact_draws() -> None:
    """The largest noisy logit is a draw from the softmax, at any temperature (Maddison et al. 2016)."""
    z = logits(1, 5, 1)
    for quantizer in (constant(0.1), constant(3.0, relaxation="soft")):
        codes = quantizer(z.expand(20_000, -1, -1)).codes.flatten()
        shares = z.flatten().softmax(0)
        counts = torch.bincount(codes, minlength=5)
        assert ((counts - 20_000 * shares).abs() < 5 * (20_000 * shares * (1 - shares)).sqrt()).all()


def test_at_a_low_temperature_the_mixture_is_the_drawn_entry() -> None:
    quantizer = constant(1e-5, relaxation="soft")
    made = quantizer(logits(4, 5, 6))
    torch.testing.assert_close(made.z, quantizer.embed(made.codes))


def test_at_a_high_temperature_the_mixture_is_the_mean_entry() -> None:
    quantizer = constant(1e9, relaxation="soft")
    made = quantizer(logits(4, 5, 6))
    torch.testing.assert_close(made.z, quantizer.codebook.mean(0).view(1, 3, 1).expand_as(made.z))


def test_the_mixture_averages_to_the_posterior_as_the_temperature_falls() -> None:
    """The mean of draws, and so of the relaxation in its limit, is the posterior mean of the entries."""
    quantizer, z = constant(0.02, relaxation="soft"), logits(1, 5, 1)
    made = quantizer(z.expand(40_000, -1, -1)).z
    mean = z.flatten().softmax(0) @ quantizer.codebook
    error = made.var(0).sqrt().flatten() / 200
    assert ((made.mean(0).flatten() - mean).abs() < 5 * error).all()


def test_straight_through_has_the_entrys_value_and_the_mixtures_gradient() -> None:
    hard, soft = constant(0.7), constant(0.7, relaxation="soft")
    soft.load_state_dict(hard.state_dict())
    z, upstream, gradients = logits(2, 5, 4), logits(2, 3, 4), []
    for quantizer in (hard, soft):
        torch.manual_seed(1)
        leaf = z.clone().requires_grad_()
        made = quantizer(leaf)
        (made.z * upstream).sum().backward()
        gradients.append(leaf.grad)
        if quantizer is hard:
            torch.testing.assert_close(made.z, hard.embed(made.codes))
    torch.testing.assert_close(gradients[0], gradients[1])
    codes = made.codes.flatten()
    expected = torch.zeros(5, 3).double().index_add(0, codes, upstream.movedim(1, -1).reshape(-1, 3))
    torch.testing.assert_close(hard.codebook.grad, expected)


def test_eval_gives_the_likeliest_code_and_its_entry() -> None:
    quantizer, z = categorical().eval(), logits(2, 5, 4)
    made = quantizer(z)
    assert torch.equal(made.codes[:, 0], z.argmax(1))
    assert torch.equal(made.z, quantizer.codebook[z.argmax(1)].movedim(-1, 1))


def test_a_draw_has_gradients_to_the_entries_and_the_kl() -> None:
    quantizer, z = categorical(), logits(2, 5, 4).requires_grad_()
    made = quantizer.sample(z)
    (made.z.sum() + made.kl.sum()).backward()
    assert quantizer.codebook.grad is not None
    assert z.grad is not None


# -- the schedule


def test_the_temperature_falls_geometrically_and_stays() -> None:
    quantizer, seen = categorical(temperature=2.0, final_temperature=0.5, anneal_steps=4), []
    for step in range(6):
        quantizer.at_step(step)
        seen.append(quantizer.temperature.item())
    assert seen == pytest.approx([2, 2**0.5, 1, 2**-0.5, 0.5, 0.5])


def test_no_pass_counts_as_a_step() -> None:
    """Of an accumulated step there are several."""
    quantizer, z = categorical(anneal_steps=3), logits(1, 5, 1)
    quantizer.eval()(z)
    quantizer.train()(z)
    quantizer.sample(z)
    assert quantizer.step == 0


def test_the_step_is_part_of_the_state() -> None:
    quantizer, again = categorical(anneal_steps=3), categorical(anneal_steps=3)
    quantizer.at_step(1)
    again.load_state_dict(quantizer.state_dict())
    assert again.temperature == quantizer.temperature < 1


def test_each_pass_is_at_its_steps_temperature() -> None:
    quantizer = categorical(temperature=1e-5, final_temperature=1e5, anneal_steps=1, relaxation="soft")
    made = quantizer(logits(4, 5, 6))
    torch.testing.assert_close(made.z, quantizer.embed(made.codes))
    quantizer.at_step(1)
    made = quantizer(logits(4, 5, 6))
    torch.testing.assert_close(made.z, quantizer.codebook.mean(0).view(1, 3, 1).expand_as(made.z), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "options", [{"codebook_size": 0}, {"temperature": 0.0}, {"final_temperature": -1.0}, {"anneal_steps": 0}], ids=str
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        CategoricalQuantizer(3, **options)
