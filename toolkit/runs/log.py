"""The log of a run: a line of metrics for each step that is logged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.writing import append_text, replacing

LONGEST_LINE = 1 << 16
"""Characters."""


@dataclass(frozen=True)
class Log:
    """``metrics.jsonl``: each line holds ``stage``, ``split``, ``step`` and metrics by name."""

    path: Path

    def append(self, stage: str, split: str, step: int, metrics: dict[str, float]) -> None:
        line = {"stage": stage, "split": split, "step": step, **metrics}
        append_text(self.path, json.dumps(line) + "\n")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Line by line; torn or invalid lines are left out."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            while text := file.readline(LONGEST_LINE):
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if _is_line(line):
                    yield line

    def cut(self, stage: str, step: int) -> None:
        """Drops the stage's lines after a step."""
        if not self.path.is_file():
            return
        with replacing(self.path) as partial, partial.open("x", encoding="utf-8") as file:
            for line in self:
                if line["stage"] != stage or line["step"] <= step:
                    file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("step"), int):
        return False
    numbers = (value for key, value in line.items() if key not in ("stage", "split"))
    return all(isinstance(line.get(key), str) for key in ("stage", "split")) and all(map(_is_number, numbers))


def _is_number(value: Any) -> bool:
    """Not an integer that no float holds, which a damaged line may have."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)
