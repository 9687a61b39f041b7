"""The laws of families, as tests that a family's tests inherit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from toolkit.adopting.adopt import Held, hold
from toolkit.adopting.mapping import renamed, to_theirs
from toolkit.cli.adopting import compose_open
from toolkit.config import RunConfig
from toolkit.dataset import Dataset
from toolkit.family import Family
from toolkit.testing.laws import Laws, as_assertion


class Publication(NamedTuple):
    """A model as it is published."""

    settings: Mapping[str, Any]
    """As its ``config.json`` has them."""
    tensors: Mapping[str, Tensor]


class FamilySuite(Laws, ABC):
    """Subclass it as ``class TestFamily(FamilySuite)`` and give a published model, as an independent implementation of
    the family saves it, with random weights; better several, each in a class of its own.

    Tolerances are those of the same arithmetic in another order, in float32.
    """

    tolerance = 1e-5
    """Of data, relative and absolute."""

    @abstractmethod
    def family(self) -> Family:
        """The family to check."""

    @abstractmethod
    def publication(self) -> Publication:
        """Settings and weights of one of its models, small, the same at every call."""

    def data(self) -> Tensor | None:
        """A batch in the data's own form; None: what the model computes is not compared."""
        return None

    def encoded(self, x: Tensor) -> Tensor:
        """The codes ``(batch, depth, *grid)`` that the published model itself gives."""
        raise NotImplementedError

    def decoded(self, codes: Tensor) -> Tensor:
        """The data ``(batch, channels, *axes)``, in [-1, 1], that it gives for codes."""
        raise NotImplementedError

    def dataset(self, folder: Path) -> Dataset | None:
        """The dataset that the words choose, over a few files written into ``folder``; None: it is not compared."""
        return None

    def test_every_published_tensor_is_an_entrys_or_skipped(self) -> None:
        """And none is both: what is forgotten would stay random here."""
        family, published = self.family(), self._published
        names = [*renamed(family, published.tensors)]
        entries = {name for entry in family.entries(self._held.settings) for name in entry.theirs}
        skipped = {name for name in names if family.skipped(name)}
        both, neither = sorted(entries & skipped), sorted({*names} - entries - skipped)
        assert not both, f"skipped, and of an entry: {', '.join(both)}"
        assert not neither, f"neither skipped nor of an entry: {', '.join(neither)}"
        absent = sorted(entries - {*names})
        assert not absent, f"entries for what is not published: {', '.join(absent)}"

    def test_every_tensor_of_ours_is_one_entrys(self) -> None:
        family, model = self.family(), self._held.stage.model
        entries = [name for entry in family.entries(self._held.settings) for name in entry.ours]
        assert sorted(entries) == sorted(model.state_dict())

    def test_there_and_back_gives_the_same_tensors(self) -> None:
        """Names and shapes are those that were published, and read again they are the same model."""
        family, held = self.family(), self._held
        own = held.stage.model.state_dict()
        back = to_theirs(family.entries(held.settings), own)
        published = {
            layout: self._published.tensors[name]
            for layout, name in renamed(family, self._published.tensors).items()
            if not family.skipped(layout)
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in published.items()}
        assert {name: tuple(tensor.shape) for name, tensor in back.items()} == shapes
        again = self._hold(held.settings, back).stage.model.state_dict()
        for name, tensor in own.items():
            torch.testing.assert_close(again[name], tensor, msg=partial("{} there and back: {}".format, name))

    def test_the_settings_of_what_they_compose_are_the_settings(self) -> None:
        """So that a run of ours is published under the settings that it has; and they are complete."""
        family, held = self.family(), self._held
        sizes = {name: tuple(tensor.shape) for name, tensor in self._published.tensors.items()}
        layout = {ours: sizes[name] for ours, name in renamed(family, sizes).items()}
        assert family.settings_of(held.config, held.data) == held.settings
        assert family.settings(held.settings, layout) == held.settings

    def test_the_model_gives_the_published_codes_and_data(self) -> None:
        """Of a batch: all codes, and the data to the suite's tolerance."""
        x = self.data()
        if x is None:
            pytest.skip("no data")
        model = self._held.stage.model.eval()
        with torch.no_grad():
            codes = model.quantize(x).codes
            expected = self.encoded(x)
            assert codes.shape == expected.shape
            assert torch.equal(codes, expected), f"{(codes != expected).sum()} of {codes.numel()} codes are others"
            mean = model.decode(model.embed(codes), {}).mean
            assert mean is not None, "its decoder's distribution has no mean"
            torch.testing.assert_close(mean, self.decoded(codes), rtol=self.tolerance, atol=self.tolerance)

    def test_the_dataset_gives_what_the_model_takes(self, tmp_path: Path) -> None:
        dataset = self.dataset(tmp_path)
        if dataset is None:
            pytest.skip("no dataset")
        data = self._held.data
        for name in ("shape", "levels", "ordered", "varying", "rates"):
            assert getattr(dataset.spec, name) == getattr(data, name), name

    @cached_property
    def _published(self) -> Publication:
        return self.publication()

    @cached_property
    def _held(self) -> Held:
        with as_assertion():
            return self._hold(self._published.settings, self._published.tensors)

    def _hold(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Held:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return hold(self.family(), settings, shapes, lambda _: tensors, _compose, "the published model")


def _compose(words: Sequence[str]) -> RunConfig:
    return _composed(tuple(words))


@cache
def _composed(words: tuple[str, ...]) -> RunConfig:
    """The same for all laws, which hold a model several times."""
    return compose_open(words)
