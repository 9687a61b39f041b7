"""From published weights to a run's folder, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from toolkit import registry
from toolkit.adopting.mapping import check_names, of_family, renamed, to_ours
from toolkit.adopting.published import Published
from toolkit.build import build_stage
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.family import Family, Shapes
from toolkit.model import load
from toolkit.optimization import Optimization
from toolkit.provenance import components, list_components
from toolkit.registry import FAMILY, Registration
from toolkit.runs.folder import ADOPTED, Run, write_config
from toolkit.runs.formats import FORMAT
from toolkit.runs.limits import TooLargeError, no_larger
from toolkit.runs.saving import save
from toolkit.runs.signature import with_hash
from toolkit.runs.spec_file import check
from toolkit.runs.tensors import Shape
from toolkit.schema import signature
from toolkit.spec import DataSpec
from toolkit.training import Stage
from toolkit.writing import write_text

Tensors: TypeAlias = Mapping[str, Tensor]
Read: TypeAlias = Callable[[Collection[str]], Tensors]
"""Names to tensors."""
Compose: TypeAlias = Callable[[Sequence[str]], RunConfig]
"""Words to a configuration, of which required options of the dataset may be left open."""


class Held(NamedTuple):
    """A published model in parts of ours."""

    settings: Mapping[str, Any]
    """The family's, all of them."""
    config: RunConfig
    data: DataSpec
    stage: Stage
    skipped: Sequence[str]
    """Names of tensors that no run needs."""


@dataclass(frozen=True)
class Adoption:
    """A published model as stage one of a run, before anything is written."""

    family: Registration
    published: Published
    held: Held

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return sum(parameter.numel() for parameter in self.held.stage.model.parameters())

    @property
    def remarks(self) -> list[str]:
        """What the family says of the settings that it took."""
        return family_of(self.family.name).remarks(self.published.written, self.held.settings)

    @property
    def open_options(self) -> list[str]:
        """Options of the dataset that are left to who opens it, such as ``root``."""
        dataset = self.held.config.dataset
        options = signature("dataset", dataset.name).options
        return [option.name for option in options if option.required and option.name not in dataset.options]


def family_of(name: str) -> Family:
    """A registered family by name."""
    family: Family = registry.load(FAMILY, name)()
    return family


def open_adoption(name: str, published: Published, compose: Compose) -> Adoption:
    """Reads a published model as one of a registered family, and builds the parts that hold it.

    ToolkitError where a setting is none that our parts have, or a tensor is missing, unknown or of another shape.
    """
    shapes = {name: shape.shape for name, shape in published.shapes.items()}
    held = hold(family_of(name), published.written, shapes, published.tensors, compose, str(published.path))
    return Adoption(registry.find(FAMILY, name), published, held)


def hold(family: Family, written: Mapping[str, Any], shapes: Shapes, read: Read, compose: Compose, what: str) -> Held:
    """The model with settings as ``written`` and tensors of these ``shapes``, which are read once its parts are built.

    ``what`` is named in errors.
    """
    own_names = renamed(family, shapes)
    sizes = {layout: shapes[own] for layout, own in own_names.items()}
    with of_family(family, what):
        settings = family.settings(written, sizes)
        words, data, entries = family.words(settings), family.data(settings), family.entries(settings)
        skipped = [layout for layout in sizes if family.skipped(layout)]
    config = compose(_safe(words, what))
    stage = _built(config, data, sizes.values(), what)
    own = {name: Shape.of(tensor) for name, tensor in stage.model.state_dict().items()}
    check_names(entries, own)
    wanted = {layout: name for layout, name in own_names.items() if layout not in skipped}
    given = read([*wanted.values()])
    tensors = {layout: given[name] for layout, name in wanted.items()}
    stage.model.load_state_dict(to_ours(entries, tensors, own, what))
    return Held(settings, config, data, stage, skipped)


def write_adoption(adoption: Adoption, out: Path, license: str | None) -> Run:
    """The run's folder, which appears whole or not at all, and opens as any run does.

    ``license``: the license's name, where it is known. ToolkitError where something is in ``out`` already.
    """
    check_empty(out)
    held = adoption.held
    with appearing(out) as folder:
        run = Run(folder)
        write_config(run.path, held.config)
        run.write_spec(held.data, held.stage.model.code_spec)
        run.write_components({**_components(held), **list_components(held.config)})
        optimization = Optimization(held.stage, held.config.trainer)
        with torch.random.fork_rng([]):
            torch.manual_seed(held.config.seed)
            save(run.autoencoder, optimization, {}, keep=1)
        if adoption.published.license_text:
            shutil.copyfile(adoption.published.license_text, run.path / "LICENSE")
        write_text(run.path / ADOPTED, json.dumps(with_hash(_provenance(adoption, license)), indent=1))
        load(run.path, "cpu")
    return Run(out)


def check_empty(out: Path) -> None:
    """ToolkitError where a file is at ``out``, or a folder with something in it."""
    if out.exists() and not out.is_dir():
        raise ToolkitError(f"out={out}: a file is in its place; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise ToolkitError(f"out={out}: there is something in this folder; name a new one")


def _safe(words: Sequence[str], what: str) -> list[str]:
    """A family's words. ToolkitError where a stranger's setting has got into one as more than a value."""
    for word in words:
        if not isinstance(word, str) or "${" in word or "\n" in word:
            raise ToolkitError(f"{what}: its settings give {word!r}, which is no word of a configuration")
    return list(words)


def _built(config: RunConfig, data: DataSpec, sizes: Iterable[tuple[int, ...]], what: str) -> Stage:
    """Stage one, no larger than what is to be loaded into it; no random numbers of this process are used."""
    try:
        with torch.random.fork_rng([]), no_larger(sizes):
            torch.manual_seed(config.seed)
            stage = build_stage(config, data, None)
        check(data, stage.model.code_spec)
    except (TooLargeError, ToolkitError) as e:
        large = next((error for error in (e, e.__cause__) if isinstance(error, TooLargeError)), None)
        if large is None:
            raise
        raise ToolkitError(f"{what}: its settings ask for a model that is larger than its weights: {large}") from e
    except ValueError as e:
        raise ToolkitError(f"{what}: its settings give data {data.shape} that no run can have: {e}") from e
    return stage


def _components(held: Held) -> dict[str, dict[str, Any]]:
    model = held.stage.model
    parts = {
        "dataset": None,
        "encoder": model.encoder,
        "quantizer": model.quantizer,
        "decoder": model.decoder,
        "likelihood": getattr(model.decoder, "likelihood", None),
        "objective": held.stage.objective,
    }
    return components(held.config, parts)


def _provenance(adoption: Adoption, license: str | None) -> dict[str, Any]:
    family, published = adoption.family, adoption.published
    return {
        "format": FORMAT,
        "family": family.name,
        "distribution": family.distribution,
        "version": family.version,
        "source": published.source,
        "files": published.hashes(),
        "settings": dict(adoption.held.settings),
        "tensors": {"there": len(published.shapes), "skipped": len(adoption.held.skipped)},
        "license": license,
        "license_text": "LICENSE" if published.license_text else None,
    }


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, which takes its name at the end; after an error it is gone."""
    partial = out.absolute().with_name(f".{out.absolute().name}.{secrets.token_hex(8)}")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
