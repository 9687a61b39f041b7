"""The shortest vectors of E8 and Leech: that they are these, and that the nearest is found among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.nn import golay, minimal_vectors
from toolkit.nn.lattice_search import LatticeSearch
from toolkit.quantizer import Quantizer
from toolkit.quantizers.lattice import LATTICES, LatticeQuantizer
from toolkit.testing.quantizer import QuantizerSuite

SIZES = {"e8": (240, 8), "leech": (196560, 24)}


class TestLatticeQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return LatticeQuantizer(points="e8")


class TestLatticeQuantizerLeech(TestLatticeQuantizer):
    def make(self, dim: int) -> Quantizer:
        return LatticeQuantizer(points="leech")


def test_the_golay_code_has_its_weights() -> None:
    words = golay.codewords()
    weights = torch.bincount(words.sum(1), minlength=25)
    assert {i: n for i, n in enumerate(weights.tolist()) if n} == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    numbers = (words << torch.arange(24)).sum(1)
    assert len(numbers.unique()) == 4096
    i, j = torch.randint(4096, (2, 50))
    assert torch.isin(numbers[i] ^ numbers[j], numbers).all(), "a sum of words is none"
    assert torch.equal(words[3] ^ words[300], words[3 ^ 300])


@pytest.mark.parametrize("points", list(SIZES))
def test_they_are_the_shortest_vectors_of_the_lattice(points: str) -> None:
    """As many as there are, of one length, no two nearer than 60 degrees, and at the lattice's angles only."""
    lattice = LATTICES[points]()
    vectors = minimal_vectors.vectors(lattice)
    assert tuple(vectors.shape) == SIZES[points]
    squares = vectors.int().square().sum(1)
    assert squares.unique().tolist() == [round(lattice.length**2)]
    some = vectors[torch.randperm(len(vectors))[:8]].float()
    cosines = (some @ vectors.float().T / squares[0]).unique().tolist()
    assert cosines == ([-1, -0.5, 0, 0.5, 1] if points == "e8" else [-1, -0.5, -0.25, 0, 0.25, 0.5, 1])
    # Each vector has as many others at each angle as any other has.
    at = torch.stack([(some @ vectors.float().T == squares[0] * cosine).sum(1) for cosine in cosines])
    assert (at == at[:, :1]).all()


def some_latents(dim: int) -> Tensor:
    """Of all sizes, with many equal numbers and zeros, and all zero."""
    few = torch.randint(-1, 2, (40, dim)).float()
    return torch.cat(
        [torch.randn(20, dim), 1e3 * torch.randn(5, dim), torch.randint(-4, 5, (30, dim)), few, few[:1] * 0]
    )


@pytest.mark.parametrize("points", list(SIZES))
def test_the_search_is_that_of_all_vectors(points: str) -> None:
    """The lowest number of those with the largest product, in exact arithmetic; ties included."""
    lattice = LATTICES[points]()
    vectors, rows = minimal_vectors.vectors(lattice).double(), some_latents(lattice.dim)
    found, products = LatticeSearch(lattice)(rows), rows.double() @ vectors.T
    largest = products.amax(1, keepdim=True)
    assert ((products == largest).sum(1) > 1).sum() > 20, "too few ties to tell"
    lowest = torch.where(products == largest, torch.arange(len(vectors)), len(vectors)).amin(1)
    assert torch.equal(found, lowest)


@pytest.mark.parametrize("points", list(SIZES))
def test_every_vector_is_its_own_nearest(points: str) -> None:
    quantizer = LatticeQuantizer(points=points)  # type: ignore[arg-type]
    numbers = torch.arange(0, quantizer.codebook_sizes[0], 1 if points == "e8" else 61)
    e = quantizer.embed(numbers.view(-1, 1, 1))
    torch.testing.assert_close(e.norm(dim=1), torch.ones(len(e), 1))
    made = quantizer(7 * e)
    assert torch.equal(made.codes.flatten(), numbers)
    assert float(made.metrics["quantization_error"]) < 1e-9


def test_it_is_the_nearest_on_the_sphere_and_straight_through() -> None:
    quantizer = LatticeQuantizer(points="e8").double()
    z = torch.randn(3, 8, 5, dtype=torch.float64, requires_grad=True)
    made, all_of_them = quantizer(z), quantizer.embed(torch.arange(240).view(-1, 1, 1)).squeeze(2)
    u = torch.nn.functional.normalize(z, dim=1)
    distances = (u.movedim(1, -1).unsqueeze(2) - all_of_them).square().sum(3)
    assert torch.equal(made.codes[:, 0], distances.argmin(2))
    torch.testing.assert_close(made.metrics["quantization_error"], distances.amin(2).mean().detach())
    upstream = torch.randn_like(z)
    got, expected = (torch.autograd.grad((t * upstream).sum(), z, retain_graph=True)[0] for t in (made.z, u))
    torch.testing.assert_close(got, expected)
    assert made.loss.tolist() == [0, 0, 0]


def test_no_table_of_all_products_is_held(largest: Any) -> None:
    quantizer = LatticeQuantizer()
    with largest:
        quantizer(torch.randn(1, 24, 300))
    assert largest.numel <= 759 * 128 < 300 * 759


def test_another_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match="points=d4: one of leech, e8"):
        LatticeQuantizer(points="d4")  # type: ignore[arg-type]
