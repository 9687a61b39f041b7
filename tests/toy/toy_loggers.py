"""Loggers for tests: one that keeps every call, and one that raises."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from toolkit import DataSpec, Logger


class CountingLogger(Logger):
    """Every call and the chosen quantizer, a line each in the run's ``counted.jsonl``."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run, self.quantizer = run, config["quantizer"]["name"]

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._keep("log", {"stage": stage, "split": split, "step": step, **metrics})

    def picture(self, stage: str, step: int, path: Path) -> None:
        self._keep("picture", [stage, step, path.name])

    def examples(self, stage: str, step: int, examples: Mapping[str, torch.Tensor], data: DataSpec) -> None:
        self._keep("examples", [stage, step, {name: list(x.shape[1:]) for name, x in examples.items()}])

    def histograms(self, stage: str, step: int, counts: Mapping[str, torch.Tensor]) -> None:
        self._keep("histograms", [stage, step, {name: int(bins.sum()) for name, bins in counts.items()}])

    def checkpoint(self, stage: str, step: int, folder: Path) -> None:
        self._keep("checkpoint", [stage, step, folder.is_dir()])

    def close(self, status: str) -> None:
        self._keep("close", [status, self.quantizer])

    def _keep(self, call: str, what: Any) -> None:
        if any(not path.name.startswith(".") for path in self.run.glob("*")):
            with (self.run / "counted.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps([call, what]) + "\n")


class RaisingLogger(Logger):
    """Draws random numbers, and raises.

    Args:
        where: in which call.
    """

    def __init__(self, *, where: Literal["new", "log", "picture", "close"] = "log") -> None:
        self.where = where
        self._act("new")

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        metrics.pop("loss", None)  # type: ignore[attr-defined]  # it is its own
        self._act("log")

    def picture(self, stage: str, step: int, path: Path) -> None:
        self._act("picture")

    def close(self, status: str) -> None:
        self._act("close")

    def _act(self, call: str) -> None:
        torch.rand(3), random.random()
        if call == self.where:
            raise ValueError(f"no {call} today")
