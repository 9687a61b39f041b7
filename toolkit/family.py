"""The interface of families: the layouts in which others publish tokenizers, and the parts that hold them here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.adopting.forms import SAME, Form

if TYPE_CHECKING:
    from toolkit.config import RunConfig
    from toolkit.spec import DataSpec

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors in a published file, by their names there."""


@dataclass(frozen=True)
class Entry:
    """One or more tensors of a published file, and those of ours that hold the same.

    ``theirs`` and ``ours`` are whole names; ours are those of the ``Autoencoder``'s state, such as
    ``encoder.proj_in.weight``. Either may be empty, for what only one side has: see ``toolkit.adopting.forms``.
    """

    theirs: Sequence[str]
    ours: Sequence[str]
    form: Form = field(default=SAME)
    """How the values of one are had from the other."""


class Family(ABC):
    """A published tokenizer's layout: its settings and names, and how they become a run of ours and back.

    ``settings`` are the family's own, as its ``config.json`` has them, completed by the method of that name: plain
    data, as JSON holds it. A family has no constructor arguments, imports none of the publisher's code, and reads no
    file itself. It is registered as an entry point of the group ``toolkit.family``.

    Laws, checked by toolkit.testing.FamilySuite:
      every tensor of a published file is an entry's or skipped, and none is both
      every tensor of ours that is saved is one entry's
      there and back gives the same tensors
      the settings of what they compose are the settings
      the model gives the published codes and data
      the dataset gives what the model takes
    """

    @abstractmethod
    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        """All settings of a published model: those ``written`` beside its weights, if any, with what the weights'
        shapes tell and what the publisher's own defaults are.

        Both are a stranger's: a setting may be missing or of any type. ToolkitError, naming the setting, for what no
        part of ours does.
        """

    @abstractmethod
    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        """What goes in and comes out, at the size of a training example: what the dataset of ``words`` gives."""

    @abstractmethod
    def words(self, settings: Mapping[str, Any]) -> list[str]:
        """What composes the model, as words of ``toolkit train``: ``["encoder=image_vqgan", "encoder.hidden=128"]``.

        With the dataset that reads its files, whose ``root`` is left to the user.
        """

    @abstractmethod
    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        """Every tensor that is the same here and there."""

    @abstractmethod
    def skipped(self, name: str) -> bool:
        """Whether a published tensor is nothing that a run needs, such as a discriminator's or a counter."""

    @abstractmethod
    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        """The way back: settings of a run of ours. ToolkitError, naming the option, where its parts are not those of
        the family."""

    def remarks(self, written: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """What to say of the settings that were taken for those ``written``, a line for each: of what neither they nor
        the tensors tell, so that the weights may be read as something else than they are."""
        return []

    def renamed(self, name: str) -> str:
        """A published tensor's name in this layout, where some files call it otherwise, such as those of the authors'
        own code. All other methods see names of this layout alone."""
        return name
