from __future__ import annotations

from math import log2

import pytest
import torch

from toolkit.errors import ToolkitError
from toolkit.spec import CodeSpec, Condition, DataSpec

FILM = DataSpec(3, (4, 8, 6), levels=256, varying=(True, False, False), rates=(25.0, None, None))


@pytest.mark.parametrize("levels", [2, 7, 256])
def test_scaling_spans_minus_one_to_one_and_back(levels: int) -> None:
    data, x = DataSpec(1, (levels,), levels=levels), torch.arange(levels).view(1, 1, -1)
    values = data.scale(x)
    assert (values.min(), values.max()) == (-1, 1)
    torch.testing.assert_close(values.diff(), torch.full((1, 1, levels - 1), 2 / (levels - 1)))
    assert torch.equal(data.unscale(values), x)


def test_bytes_scale_as_other_integers_do() -> None:
    x = torch.arange(256).view(1, 1, -1)
    data = DataSpec(1, (256,), levels=256)
    assert torch.equal(data.scale(x.to(torch.uint8)), data.scale(x))


def test_unscaling_takes_the_nearest_level() -> None:
    data = DataSpec(1, (5,), levels=3)
    assert data.unscale(torch.tensor([-9.0, -0.6, -0.4, 0.6, 9.0])).tolist() == [0, 0, 1, 2, 2]


def test_data_without_levels_is_its_own_scale() -> None:
    data, x = DataSpec(1, (3,)), torch.tensor([-2.0, 0.3, 1.0])
    assert data.scale(x) is x
    assert data.unscale(x).tolist() == pytest.approx([-1.0, 0.3, 1.0])


@pytest.mark.parametrize("method", ["scale", "unscale"])
def test_unordered_data_has_no_scale(method: str) -> None:
    data = DataSpec(1, (3,), levels=5, ordered=False)
    with pytest.raises(TypeError, match="embed it"):
        getattr(data, method)(torch.zeros(3))


def test_the_last_axes() -> None:
    assert FILM.last(None) is FILM
    assert FILM.last(3) is FILM
    frame = FILM.last(2)
    assert (frame.shape, frame.varying, frame.rates) == ((3, 8, 6), (False, False), (None, None))
    assert frame.levels == 256
    with pytest.raises(ValueError, match=r"3 axes \(4, 8, 6\), but 4 are needed"):
        FILM.last(4)


def test_the_last_axes_of_data_that_says_nothing_of_rates() -> None:
    assert DataSpec(1, (4, 5)).last(1) == DataSpec(1, (5,))


def test_numbers_of_an_example() -> None:
    assert (FILM.shape, FILM.dims, FILM.rank) == ((3, 4, 8, 6), 3 * 4 * 8 * 6, 3)


def test_the_rate_of_the_papers_cifar_model() -> None:
    assert CodeSpec((8, 8), (512,) * 10).rate == 5760
    assert CodeSpec((8, 8), (512, 3)).rate == pytest.approx(64 * (9 + log2(3)))
    assert CodeSpec((8, 8), (512, 3)).shape == (2, 8, 8)


def test_labels_by_name_or_number() -> None:
    speaker = Condition("speaker", 3, ("p225", "1", "화자"))
    assert [speaker.index(text) for text in ("p225", "화자", "0", "3")] == [0, 2, 0, 3]
    assert speaker.index("1") == 1, "a label that is spelt like a number"
    for text in ("4", "-1", "P225", ""):
        with pytest.raises(ValueError, match=rf"condition.speaker={text}: no such label.* \(known: p225, 1, 화자\)"):
            speaker.index(text)
    with pytest.raises(ValueError, match="did you mean p225"):
        speaker.index("p226")
    with pytest.raises(ValueError, match=r"known: 0\.\.2"):
        Condition("class", 3).index("cat")


def test_a_step_may_be_many_positions() -> None:
    """A phone for every hundredth of a second of sound."""
    assert Condition("phone", 40, per_step=True, stride=160).steps(16_000) == 100
    assert Condition("move", 4, per_step=True).steps(16) == 16


# -- the parts of a flat grid


def test_codes_on_a_grid_or_on_the_parts_of_a_flat_one() -> None:
    assert CodeSpec.on((4, 4), (16,)) == CodeSpec((4, 4), (16,))
    scales = CodeSpec.on(((1, 1), (2, 2), (4, 4)), (16, 8))
    assert (scales.grid, scales.parts) == ((21,), ((1, 1), (2, 2), (4, 4)))
    assert (scales.shape, scales.rate) == ((2, 21), 21 * 7.0)
    assert CodeSpec.on(((32,),), (2,)) == CodeSpec((32,), (2,), ((32,),))


@pytest.mark.parametrize("parts", [((1, 1), (2, 2)), ((5, 5), (-2, 2)), ((20,), ()), ((0, 3), (21,))])
def test_parts_add_up(parts: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"parts? of the codes' grid"):
        CodeSpec((21,), (16,), parts)


def test_what_needs_codes_along_the_data_refuses_parts() -> None:
    CodeSpec((4, 4), (16,)).refuse_parts("frames=9", "leave it out")
    with pytest.raises(ToolkitError, match=r"frames=9: .* parts of 1x1, 2x2, .*: leave it out"):
        CodeSpec.on(((1, 1), (2, 2)), (16,)).refuse_parts("frames=9", "leave it out")
