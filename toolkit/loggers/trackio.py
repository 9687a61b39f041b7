"""Metrics and pictures in Trackio."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any, final

from toolkit.logger import Logger, Status


@final
class TrackioLogger(Logger):
    """A run of Trackio: metrics as ``STAGE/SPLIT/NAME``, pictures as ``STAGE/samples``, and the run's configuration.

    It has the run's name and a few letters of where it is, and a run that is continued goes on in it. Runs of a sweep
    are a group. All stays on this machine, where ``trackio show`` reads it, unless a Space is named. Needs the extra of
    that name.

    Args:
        project: where it is kept.
        space: a Space of the Hugging Face Hub that it is sent to, such as ``owner/name``; empty: none.
    """

    def __init__(
        self, run: Path, config: Mapping[str, Any], *, project: str = "discrete-toolkit", space: str = ""
    ) -> None:
        self._library = _library()
        self._run, self._config = run, dict(config)
        self._project, self._space = project, space
        self._opened: Any = None

    @classmethod
    def missing_dependencies(cls) -> list[str]:
        try:
            _library()
        except ValueError as error:
            return [str(error)]
        return []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._send(step, {f"{stage}/{split}/{name}": value for name, value in metrics.items()})

    def picture(self, stage: str, step: int, path: Path) -> None:
        self._send(step, {f"{stage}/samples": methodcaller("Image", str(path))(self._library)})

    def close(self, status: Status) -> None:
        if self._opened is not None:
            self._opened.finish()
            self._opened = None

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        if self._opened is None:
            self._opened = self._open()
        self._opened.log(dict(values), step=step)

    def _open(self) -> Any:
        folder = self._run.resolve()
        swept = folder.parent.parent.name == "sweep" or folder.name.partition("_")[0].isdecimal()
        called = self._config.get("name") or folder.name
        return self._library.init(
            project=self._project,
            name=f"{called}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}",
            group=folder.parent.name if swept else None,
            space_id=self._space or None,
            config=self._config,
            resume="allow",
            embed=False,
        )


def _library() -> Any:
    try:
        return import_module("trackio")
    except ImportError as e:
        raise ValueError("needs the extra: pip install 'discrete-toolkit[trackio]'") from e
