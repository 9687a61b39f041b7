"""The suite of families catches what goes wrong in tables of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted import assert_catches
from test_family import TestToyFamily as Case

from toolkit import DataSpec, RunConfig
from toolkit.adopting.forms import Form
from toolkit.family import Entry, Family, Shapes

pytestmark = pytest.mark.usefixtures("toys")

PUBLISHED = "every published tensor is an entrys or skipped"
OURS = "every tensor of ours is one entrys"
BACK = "there and back gives the same tensors"
SETTINGS = "the settings of what they compose are the settings"
CODES = "the model gives the published codes and data"
DATA = "the dataset gives what the model takes"


class Broken(Family):
    """The toy's own, to be broken."""

    def __init__(self) -> None:
        self.sound = Case().family()

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        return self.sound.settings(written, shapes)

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return self.sound.data(settings)

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return self.sound.words(settings)

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return self.sound.entries(settings)

    def skipped(self, name: str) -> bool:
        return self.sound.skipped(name)

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        return self.sound.settings_of(config, data)

    def changed(self, settings: Mapping[str, Any], name: str, entries: Sequence[Entry]) -> list[Entry]:
        """The entries with those given in place of the one that has this name there."""
        return [*(entry for entry in self.sound.entries(settings) if name not in entry.theirs), *entries]

    def entry(self, settings: Mapping[str, Any], name: str) -> Entry:
        (found,) = (entry for entry in self.sound.entries(settings) if name in entry.theirs)
        return found


class Forgetting(Broken):
    """A bias is in no entry."""

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return self.changed(settings, "dec.last.bias", [])


class SkippingTooMuch(Broken):
    def skipped(self, name: str) -> bool:
        return name.endswith("last.bias")


class Keeping(Broken):
    """What is of no use to a run is neither skipped nor of an entry."""

    def skipped(self, name: str) -> bool:
        return False


class Swapping(Broken):
    """Two tensors of one shape."""

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        one, other = (self.entry(settings, f"enc.block.{part}.bias") for part in ("wide", "narrow"))
        rest = [entry for entry in self.sound.entries(settings) if entry not in (one, other)]
        return [*rest, replace(one, theirs=other.theirs), replace(other, theirs=one.theirs)]


class Turning(Broken):
    """A form that does not undo itself."""

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        entry = self.entry(settings, "dec.first.weight")
        form = Form(lambda tensors: [tensors[0].flip(3)], lambda tensors: list(tensors))
        return self.changed(settings, "dec.first.weight", [replace(entry, form=form)])


class OfAnotherShape(Broken):
    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        entry = self.entry(settings, "enc.last.weight")
        form = Form(lambda tensors: [tensors[0].view(4, 6, 1, 1)], lambda tensors: [tensors[0].flatten(1)])
        return self.changed(settings, "enc.last.weight", [replace(entry, form=form)])


class Mirrored(Broken):
    """There and back is the same, and here it is another model."""

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        entry = self.entry(settings, "dec.first.weight")
        form = Form(lambda tensors: [tensors[0].flip(3)], lambda tensors: [tensors[0].flip(3)])
        return self.changed(settings, "dec.first.weight", [replace(entry, form=form)])


class LosingASetting(Broken):
    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        return {**self.sound.settings_of(config, data), "width": 128}


class NotReadingItsOwn(Broken):
    """The settings that it writes are others when they are read."""

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        return {**self.sound.settings(written, shapes), "complete": "complete" in written}


class OfOtherData(Broken):
    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return DataSpec(2, (8, 8), 8, varying=(True, True))


class FamilyCase(Case):
    def __init__(self, of: type[Broken] = Broken) -> None:
        self.of = of

    def family(self) -> Family:
        return self.of()


SOUND = FamilyCase()
"""Held once for all."""


@pytest.mark.parametrize(
    ("of", "law"),
    [
        (Keeping, PUBLISHED),
        (SkippingTooMuch, PUBLISHED),
        (Forgetting, OURS),
        (Turning, BACK),
        (OfAnotherShape, BACK),
        (Swapping, CODES),
        (Mirrored, CODES),
        (LosingASetting, SETTINGS),
        (NotReadingItsOwn, SETTINGS),
    ],
)
def test_planted_families(of: type[Broken], law: str) -> None:
    assert_catches(SOUND, FamilyCase(of), law)


def test_a_planted_dataset(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    SOUND.test_the_dataset_gives_what_the_model_takes(tmp_path / "sound")
    with pytest.raises(AssertionError, match="varying"):
        FamilyCase(OfOtherData).test_the_dataset_gives_what_the_model_takes(tmp_path)
