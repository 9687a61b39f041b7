"""The run folder: what a run leaves behind, and how it is opened again.

config.yaml        plain and never rewritten; a continuation that changes values adds config-2.yaml, …
components.json    kind: name, distribution, version, parameters
spec.json          the data's and the codes' shapes and labels: sampling needs no dataset on disk
autoencoder/       checkpoints of stage one
priors/<name>/     checkpoints of stage two and the configuration it was trained with
codes/             code cache
base/              of a run over another's codes: what of that one is needed to make and read them
samples/           pictures and samples
metrics.jsonl      a line per log step
evaluation.json
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit.checkpoint import newest, write_text
from toolkit.errors import ToolkitError
from toolkit.spec import Condition, DataSpec, LatentSpec


@dataclass(frozen=True)
class Run:
    """A run's folder and the places in it."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run; ToolkitError where the folder holds none."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise ToolkitError(f"run={path}: there is no such folder")
        if not (run.path / "config.yaml").is_file():
            raise ToolkitError(f"run={path}: this folder holds no run (no config.yaml)")
        return run

    @property
    def autoencoder(self) -> Path:
        return self.path / "autoencoder"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def codes(self) -> Path:
        return self.path / "codes"

    @property
    def base(self) -> Path:
        return self.path / "base"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def prior(self, name: str) -> Path:
        return self.path / "priors" / name

    def priors(self) -> list[str]:
        """Names of the priors that have a checkpoint."""
        folders = [path for path in self.path.glob("priors/*") if ".old-" not in path.name]
        return sorted(path.name for path in folders if any(path.glob("step-*")) and (path / "config.yaml").is_file())

    def config(self) -> dict[str, Any]:
        """The newest configuration."""
        return read_config(self.path)

    def prior_config(self, name: str) -> dict[str, Any]:
        """The newest configuration that a prior was trained with."""
        return read_config(self.prior(name))

    # -- shapes and labels

    def write_spec(self, data: DataSpec, latent: LatentSpec) -> None:
        """Once: what a run was trained on does not change."""
        path = self.path / "spec.json"
        if not path.is_file():
            write_text(path, json.dumps({"data": asdict(data), "latents": [asdict(latent)]}, indent=1))

    def spec(self) -> tuple[DataSpec, LatentSpec]:
        """Raises ToolkitError where the file is missing or does not say what it should."""
        path = self.path / "spec.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            conditions = tuple(Condition(**_tuples(c)) for c in held["data"].pop("conditions"))
            data = DataSpec(**_tuples(held["data"]), conditions=conditions)
            return data, LatentSpec(**_tuples(held["latents"][0]))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
            raise ToolkitError(f"{path} cannot be read: {e}") from e

    def write_components(self, components: dict[str, Any]) -> None:
        """Who provided each part; parts written earlier stay."""
        path = self.path / "components.json"
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_text(path, json.dumps({**held, **components}, indent=1))

    def distributions(self) -> list[str]:
        """The packages, with versions, that provided this run's parts."""
        path = self.path / "components.json"
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return sorted({f"{part['distribution']} {part['version']}" for part in held.values()})

    def copy_base(self, other: Run) -> None:
        """Takes what makes and reads another run's codes into ``base``, which appears whole or not at all."""
        aside = self.path / ".base.partial"
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint = newest(other.autoencoder, [])
        parts = [
            *_configs(other.path),
            other.path / "components.json",
            other.path / "spec.json",
            other.codes,
            other.base,
        ]
        for part in [*parts, *([] if checkpoint is None else [checkpoint.path])]:
            to = aside / part.relative_to(other.path)
            to.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, to)
            elif part.is_file():
                shutil.copy2(part, to)
        aside.rename(self.base)

    # -- the log

    def log(self, stage: str, split: str, step: int, figures: dict[str, float]) -> None:
        line = {"stage": stage, "split": split, "step": step, **figures}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The log's lines, but for a last one that a kill tore."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []
        whole = []
        for line in lines:
            with suppress(ValueError):
                whole.append(json.loads(line))
        return whole

    def cut_log(self, stage: str, step: int) -> None:
        """Drops the stage's lines after a step."""
        if not self.metrics.is_file():
            return
        kept = [line for line in self.read_log() if line["stage"] != stage or line["step"] <= step]
        aside = self.metrics.with_suffix(".partial")
        write_text(aside, "".join(json.dumps(line) + "\n" for line in kept))
        aside.replace(self.metrics)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes a folder's first configuration, or the next one where the values differ from the newest."""
    files = _configs(folder)
    if files and read_config(folder) == config:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / (f"config-{len(files) + 1}.yaml" if files else "config.yaml"), dump(config))


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's newest configuration."""
    return read_yaml(_configs(folder)[-1])


def _configs(folder: Path) -> list[Path]:
    later = sorted(folder.glob("config-*.yaml"), key=lambda p: int(p.stem.partition("-")[2]))
    return [p for p in [folder / "config.yaml", *later] if p.is_file()]


def dump(config: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """Plain YAML only: a tag that would make an object is refused."""
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ToolkitError(f"{path} cannot be read: {' '.join(str(e).split())}") from e
    if not isinstance(held, dict):
        raise ToolkitError(f"{path} holds no configuration")
    return held


def _tuples(held: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in held.items()}
