"""Metrics and pictures in Weights & Biases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal, final

from toolkit.logger import Logger, Status


@final
class WandbLogger(Logger):
    """A run of Weights & Biases: metrics as ``STAGE/SPLIT/NAME`` over each stage's own steps, pictures as
    ``STAGE/samples``, and the run's configuration.

    It has the run's name and tags, and a run that is continued goes on in it. Runs of a sweep are a group.
    Needs the extra of that name, and ``wandb login``, or ``mode=offline``, which keeps all in the folder ``wandb`` of
    where it is started, for ``wandb sync``: it has links in it, which no run may have.

    Args:
        project: where it is kept.
        entity: whose that is; empty: your own.
        mode: online, or offline.
        tags: to find it by.
    """

    def __init__(
        self,
        run: Path,
        config: Mapping[str, Any],
        *,
        project: str = "discrete-toolkit",
        entity: str = "",
        mode: Literal["online", "offline"] = "online",
        tags: tuple[str, ...] = (),
    ) -> None:
        self._library = _library()
        self._run, self._config = run, dict(config)
        self._where = {"project": project, "entity": entity or None, "mode": mode, "tags": list(tags) or None}
        self._stages: set[str] = set()
        self._opened: Any = None

    @classmethod
    def missing_dependencies(cls) -> list[str]:
        try:
            _library()
        except ValueError as error:
            return [str(error)]
        return []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._send(stage, step, {f"{stage}/{split}/{name}": value for name, value in metrics.items()})

    def picture(self, stage: str, step: int, path: Path) -> None:
        self._send(stage, step, {f"{stage}/samples": methodcaller("Image", str(path))(self._library)})

    def close(self, status: Status) -> None:
        if self._opened is not None:
            self._opened.finish(exit_code=0 if status == "done" else 1)
            self._opened = None

    def _send(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        if self._opened is None:
            self._opened = self._open()
        if stage not in self._stages:
            self._stages.add(stage)
            self._opened.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._opened.log({**values, f"{stage}/step": step})

    def _open(self) -> Any:
        folder = self._run.resolve()
        swept = folder.parent.parent.name == "sweep" or folder.name.partition("_")[0].isdecimal()
        return self._library.init(
            **{**self._where, "tags": [*(self._where["tags"] or []), *self._config.get("tags", [])] or None},
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
            resume="allow",
            name=self._config.get("name") or folder.name,
            group=folder.parent.name if swept else None,
            config=self._config,
        )


def _library() -> Any:
    try:
        return import_module("wandb")
    except ImportError as e:
        raise ValueError("needs the extra: pip install 'discrete-toolkit[wandb]'") from e
