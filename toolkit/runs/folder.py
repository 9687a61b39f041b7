"""The run folder: its files, and how it is opened again.

config.yaml        never rewritten; a continuation that changes values adds config-2.yaml, …
components.json    kind: name, distribution, version, parameters
data.json          the names, sizes and times of the files that the data came from
spec.json          the data's and the codes' shapes and labels: sampling needs no dataset on disk
autoencoder/       checkpoints of stage one, and which is the best, where one is kept: best.json
priors/<name>/     the same of stage two, and the configuration it was trained with
codes/             code cache
base/              in a run over another run's codes: what is needed of that run to encode and decode them
samples/           pictures and samples
metrics.jsonl      a line per log step
log.txt            what the screen showed, with times
evaluation.json
adopted.json       of a run from published weights: family, files with their hashes, settings, license
LICENSE            the text of that license, where it came with them
.lock              while it is trained: by whom
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import hub, registry
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.registry import NotInstalledError
from toolkit.runs import spec_file
from toolkit.runs.chosen import choose
from toolkit.runs.contained import ADOPTED as ADOPTED
from toolkit.runs.contained import check_folder
from toolkit.runs.formats import FORMAT, current_config
from toolkit.runs.log import Log
from toolkit.runs.plain import read_json, read_yaml, write_yaml
from toolkit.runs.signature import edited, signed
from toolkit.spec import CodeSpec, DataSpec
from toolkit.writing import write_text


@dataclass(frozen=True)
class Run:
    """A run's folder and what is in it."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, key: str = "run") -> Run:
        """An existing run, all of it inside its folder; ToolkitError where the folder has no run in it.

        ``path`` may be a run of the Hub, ``hub:owner/name@REVISION``, of which a copy is opened. ``key``: the option
        that named it, for the error.
        """
        if hub.is_reference(path):
            path = hub.local_copy(str(path), hub.RUN)
        run = cls(Path(path))
        if not run.path.is_dir():
            raise ToolkitError(f"{key}={path}: no such folder")
        if not (run.path / "config.yaml").exists():
            cure = _copies(run.path) if run.autoencoder.is_dir() else ""
            raise ToolkitError(f"{key}={path}: this folder holds no run (no config.yaml){cure}")
        check_folder(run.path)
        return run

    @property
    def autoencoder(self) -> Path:
        return self.path / "autoencoder"

    @property
    def origin(self) -> hub.Reference | None:
        """What it is a copy of, where it came from the Hub."""
        return hub.origin(self.path)

    @property
    def title(self) -> str:
        """What pictures call it: by the name that it was given, if it was."""
        if self.origin is not None:
            return self.origin.repository
        with suppress(ToolkitError):
            if self.path.is_dir() and (name := self.config_values().get("name")):
                return str(name)
        return self.path.name

    @property
    def results(self) -> Path:
        """Where what is made of it goes: the run itself, or, where that is a copy of the Hub's, which stays as it is, a
        folder in ``outputs/hub``."""
        of = self.origin
        return self.path if of is None else Path("outputs", "hub", of.owner, f"{of.name}@{str(of.revision)[:8]}")

    @property
    def samples(self) -> Path:
        return self.results / "samples"

    @property
    def codes(self) -> Path:
        return self.path / "codes"

    @property
    def base(self) -> Path:
        return self.path / "base"

    @property
    def log(self) -> Log:
        return Log(self.path / "metrics.jsonl")

    def prior(self, name: str) -> Path:
        return self.path / "priors" / name

    def priors(self) -> list[str]:
        """Names of the priors that have a checkpoint."""
        folders = [path for path in self.path.glob("priors/*") if ".old-" not in path.name]
        return sorted(path.name for path in folders if any(path.glob("step-*")) and (path / "config.yaml").is_file())

    def config(self) -> RunConfig:
        """The newest configuration. ToolkitError where its parts or values are not valid."""
        return _read(self.path)

    def config_values(self) -> dict[str, Any]:
        """The same as plain values, which may hold options that no longer exist."""
        return read_config(self.path)

    def prior_config(self, name: str) -> RunConfig:
        """The newest configuration that a prior was trained with; ToolkitError where it has no prior."""
        config = _read(self.prior(name))
        config.chosen_prior()
        return config

    def edited(self, prior: str | None = None) -> list[str]:
        """A notice where the newest configuration, or a prior's, is not as it was written."""
        files = _configs(self.path if prior is None else self.prior(prior))
        return edited(files[-1]) if files else []

    # -- shapes and labels

    @property
    def untouched(self) -> bool:
        """Whether it holds adopted weights and nothing was trained in it yet: of its data it knows the form alone."""
        steps = [path.name for path in self.autoencoder.glob("step-*")]
        return (self.path / ADOPTED).is_file() and steps == ["step-00000000"] and not self.priors()

    def write_spec(self, data: DataSpec, code_spec: CodeSpec) -> None:
        """Writes them once: what a run was trained on does not change."""
        if self.untouched and not spec_file.damage(self.path / "spec.json") and self.spec() != (data, code_spec):
            (self.path / "spec.json").unlink()  # training writes a spec that is lost again
        spec_file.write(self.path / "spec.json", data, code_spec)

    def spec(self) -> tuple[DataSpec, CodeSpec]:
        """Data and codes. ToolkitError where the file is missing or invalid."""
        return spec_file.read(self.path / "spec.json")

    # -- who provided the parts

    def write_components(self, components: dict[str, Any]) -> None:
        """Adds who provided each part; parts written earlier stay."""
        write_text(self.path / "components.json", json.dumps({**self.components(), **components}, indent=1))

    def components(self) -> dict[str, dict[str, Any]]:
        """The same, read; invalid entries are left out."""
        try:
            parts = read_json(self.path / "components.json")
        except (OSError, ValueError):
            return {}
        return {key: part for key, part in parts.items() if _is_component(part)} if isinstance(parts, dict) else {}

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Adds to errors of the parts which packages provided them when the run was trained, where these are missing or
        have another version now."""
        try:
            yield
        except NotInstalledError as e:
            raise self._missing(e) from e
        except ToolkitError as e:
            known = [line for line in (self._moved(), *self.edited()) if line and line not in str(e)]
            if known:
                raise ToolkitError("\n".join([str(e), *known])) from e
            raise

    def _missing(self, error: NotInstalledError) -> ToolkitError:
        """A part that is not installed, with the package that provided it when the run was trained."""
        part = f"{error.kind}={error.name}"
        for key, saved in self.components().items():
            if saved["name"] == error.name and (key == error.kind or "." in key):
                package, version = saved["distribution"], saved["version"]
                here = registry.version(package)
                why = "which is not installed" if here is None else f"and {here} is installed, which has no {part}"
                return ToolkitError(
                    f"this run's {part} comes from {package} {version}, {why}: pip install {package}=={version}"
                )
        return ToolkitError(f"{error}\nthis run does not say which package provides it")

    def _moved(self) -> str:
        """A line about packages whose installed version is not the one the run was trained with, or nothing."""
        packages = sorted({(part["distribution"], part["version"]) for part in self.components().values()})
        here = {package: registry.version(package) for package, _ in packages}
        moved = [(package, version) for package, version in packages if here[package] not in (None, version)]
        if not moved:
            return ""
        versions = " and ".join(f"{package} {version}, installed is {here[package]}" for package, version in moved)
        return f"this run was trained with {versions}: pip install {' '.join(f'{p}=={v}' for p, v in moved)}"

    def copy_base(self, other: Run, notices: list[str]) -> None:
        """Copies what encodes and decodes another run's codes into ``base``, which appears whole or not at all.

        ``notices`` gets those of damaged checkpoints.
        """
        partial = self.path / ".base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        checkpoint = choose(other.autoencoder, None, notices)
        parts = [
            *_configs(other.path),
            other.path / "components.json",
            other.path / "spec.json",
            other.codes,
            other.base,
        ]
        for part in [*parts, *([] if checkpoint is None else [checkpoint.path])]:
            to = partial / part.relative_to(other.path)
            to.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, to)
            elif part.is_file():
                shutil.copy2(part, to)
        partial.rename(self.base)


def write_config(folder: Path, config: RunConfig) -> None:
    """Writes a folder's first configuration, or the next one where the values differ from the newest."""
    files = _configs(folder)
    if files and _read(folder) == config:
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = f"config-{_number(files[-1]) + 1}.yaml" if files else "config.yaml"
    write_text(folder / name, signed(write_yaml({"format": FORMAT, **config.values()})))


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's newest configuration under today's names; ToolkitError where it is not plain YAML."""
    path = _configs(folder)[-1]
    try:
        values = read_yaml(path)
    except (OSError, ValueError) as e:
        raise ToolkitError(f"{path} cannot be read: {e}{_copies(folder)}") from e
    if not isinstance(values, dict):
        raise ToolkitError(f"{path} holds no configuration{_copies(folder)}")
    return current_config(values, path)


def _copies(folder: Path) -> str:
    """What to do about a configuration that is lost: where it may be found again."""
    above = folder.parent.parent if folder.parent.name == "priors" else folder
    others = sorted(
        path for path in (above / "config.yaml", *above.glob("priors/*/config.yaml")) if path.parent != folder
    )
    return f"\nput a copy of it back{f', such as {others[0]}' if others else ''}"


def _read(folder: Path) -> RunConfig:
    """A folder's newest configuration; errors name its file."""
    return RunConfig.read(read_config(folder), _configs(folder)[-1])


def _configs(folder: Path) -> list[Path]:
    """Oldest first."""
    later = [path for path in folder.glob("config-*.yaml") if path.stem[7:].isdecimal() and path.is_file()]
    return [folder / "config.yaml", *sorted(later, key=_number)] if (folder / "config.yaml").is_file() else []


def _number(config: Path) -> int:
    return int(config.stem.partition("-")[2] or 1)


WORD = re.compile(r"[A-Za-z0-9._+!-]{1,100}")
"""Names and versions of packages that are safe to show to a user who may type them."""


def _is_component(part: Any) -> bool:
    """Whether it says who provided a part, in words that are safe in an install command."""
    if not isinstance(part, dict) or not isinstance(part.get("name"), str):
        return False
    words = [part.get("distribution"), part.get("version")]
    return all(isinstance(word, str) and WORD.fullmatch(word) and word[0] != "-" for word in words)
