"""Index backpropagation: a choice among all entries, with the gradient of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import lookup, one_hot
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ibq import IBQQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestIBQQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return IBQQuantizer(dim, codebook_size=11)


class TestIBQQuantizerWithAll(TestIBQQuantizer):
    def make(self, dim: int) -> Quantizer:
        return IBQQuantizer(dim, codebook_size=11, compare="product", temperature=0.5, normalize=True, entropy=0.1)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def ibq(dim: int = 4, size: int = 13, **options: Any) -> IBQQuantizer:
    made = IBQQuantizer(dim, codebook_size=size, init="random", **options).double()
    with torch.no_grad():
        made.codebook.normal_()
    return made


def written_out(quantizer: IBQQuantizer, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, codes and loss as the paper has them: all products, all one-hots."""
    rows, entries = table.flatten(z), quantizer.codebook
    logits = rows @ entries.T
    if quantizer.compare == "distance":
        logits = -(rows.unsqueeze(1) - entries).square().sum(2)
    p = (logits / quantizer.temperature).softmax(1)
    hard = torch.nn.functional.one_hot(p.argmax(1), len(entries)).to(p)
    chosen, e = (hard + p - p.detach()) @ entries, hard @ entries
    terms = (rows - chosen).square(), (rows - e.detach()).square(), (rows.detach() - e).square()
    weights = 1, quantizer.commitment, quantizer.codebook_weight
    loss = sum(weight * term.sum(1).view(len(z), -1).mean(1) for weight, term in zip(weights, terms, strict=True))
    return chosen.view_as(z.movedim(1, -1)).movedim(-1, 1), p.argmax(1), loss  # type: ignore[return-value]


@pytest.mark.parametrize("tile", [1, 50, 1 << 20])
@pytest.mark.parametrize("compare", ["product", "distance"])
def test_it_is_the_paper_written_out(monkeypatch: pytest.MonkeyPatch, tile: int, compare: Any) -> None:
    """Values, codes, loss, and gradients to every entry and latent."""
    monkeypatch.setattr(lookup, "TILE", tile)
    monkeypatch.setattr(one_hot, "FEWEST", 2)
    quantizer = ibq(compare=compare, temperature=0.7, commitment=0.8)
    z, upstream = latents(3, 4, 2, 5).requires_grad_(), latents(3, 4, 2, 5)
    made, (chosen, codes, loss) = quantizer(z), written_out(quantizer, z)
    assert torch.equal(made.codes.flatten(), codes)
    torch.testing.assert_close((made.z, made.loss), (chosen, loss), rtol=1e-10, atol=1e-10)
    inputs = z, quantizer.codebook
    gradients = [
        torch.autograd.grad((latent * upstream).sum() + cost.sum(), inputs)
        for latent, cost in ((made.z, made.loss), (chosen, loss))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    assert (gradients[0][1].abs().amax(1) > 0).all(), "an entry that no latent chose learns nothing"


def test_the_gradient_is_that_of_the_softmax() -> None:
    """Numerically, of what it is the gradient of: p e with e held where it is summed, and the chosen entry."""
    rows, entries = latents(5, 3).requires_grad_(), latents(7, 3).requires_grad_()
    codes = torch.tensor([0, 2, 2, 6, 1])
    held, upstream = entries.detach().clone(), latents(5, 3)

    def soft(rows: Tensor, entries: Tensor) -> Tensor:
        p = (0.9 * rows @ entries.T - 0.4 * entries.square().sum(1)).softmax(1)
        return (p @ held + entries[codes]) * upstream

    made = torch.autograd.grad((one_hot.choose(rows, entries, codes, 0.9, 0.4) * upstream).sum(), (rows, entries))
    torch.testing.assert_close(made, torch.autograd.grad(soft(rows, entries).sum(), (rows, entries)))
    assert torch.autograd.gradcheck(soft, (rows, entries))


def test_no_step_holds_all_choices(largest: Any) -> None:
    quantizer = IBQQuantizer(2, codebook_size=256)
    z = torch.randn(8, 2, 4096, requires_grad=True)
    with largest:
        made = quantizer(z)
        (made.z.sum() + made.loss.sum()).backward()
    assert largest.numel <= lookup.TILE < 8 * 4096 * 256


def test_long_entries_are_favored_by_products_alone() -> None:
    products, distances = ibq(dim=2, size=2, compare="product"), ibq(dim=2, size=2)
    for quantizer in (products, distances):
        with torch.no_grad():
            quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
    z = torch.tensor([[[1.0], [0.1]]]).double()
    assert products(z).codes.item() == 1
    assert distances(z).codes.item() == 0


def test_latents_with_a_mean_use_the_codebook() -> None:
    """Entries that start at latents are each nearest to one; of products, a few are the largest everywhere."""
    z, shares = 3 + torch.randn(4, 8, 256), []
    for compare in ("distance", "product"):
        quantizer = IBQQuantizer(8, codebook_size=64, compare=compare)  # type: ignore[arg-type]
        shares.append(len(quantizer(z).codes.unique()) / 64)
    assert IBQQuantizer(8).compare == "distance"
    assert shares[0] == 1
    assert shares[1] < 0.3


def test_what_cannot_be_compared_is_refused() -> None:
    for options in ({"compare": "direction"}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            IBQQuantizer(4, **options)  # type: ignore[arg-type]
