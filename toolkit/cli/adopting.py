"""``toolkit.adopt``: published weights as a run, and the configuration that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.adopting.adopt import Adoption, check_empty, open_adoption, write_adoption
from toolkit.adopting.published import open_published
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.schema import signature

HUB = "hub:"


def adopt(
    family: str, weights: str | Path, out: str | Path, *, settings: str | Path | None = None, license: str | None = None
) -> Adoption:
    """Published weights of a registered family as a run in a new folder; returns what was adopted.

    ``weights``: a file of safetensors or of ``torch.save``, or a folder with one and its ``config.json``. ``settings``:
    that file, where it lies elsewhere. ``license``: the name of the weights' license, which the run then keeps.

    Raises ToolkitError where a file cannot be read or holds more than tensors and plain values, a setting is none that
    the family's parts have, a tensor is missing, unknown or of another shape, or ``out`` is not empty.
    """
    check_empty(Path(out))
    source = str(weights) if str(weights).startswith(HUB) else None
    published = open_published(local(str(weights)), None if settings is None else Path(settings), source)
    adoption = open_adoption(family, published, compose_open)
    write_adoption(adoption, Path(out), license)
    return adoption


def compose_open(words: Sequence[str]) -> RunConfig:
    """The configuration of words and no steps, in which options of the dataset that must be given may be left open.

    They are not in the run's ``config.yaml``: whoever opens the dataset is asked for them.
    """
    values = compose([*words, "trainer.steps=0"], complete=False).values
    for kind in ("encoder", "quantizer", "decoder", "likelihood", "objective"):
        part = values[kind] or {}
        for option in signature(kind, part["name"]).options if part else ():
            if option.required and part[option.name] is None:
                raise ToolkitError(f"{kind}.{option.name}: no value; the family's words must give one")
    if values["dataset"]:
        required = {
            option.name for option in signature("dataset", values["dataset"]["name"]).options if option.required
        }
        values["dataset"] = {k: v for k, v in values["dataset"].items() if v is not None or k not in required}
    return RunConfig.read(values, "the words of this family")


def local(weights: str) -> Path:
    """Where the weights lie on this machine: the one place that knows of others."""
    if weights.startswith(HUB):
        raise ToolkitError(f"{weights}: download it, and name the folder")
    return Path(weights)
