"""Loads components one after another in a separate process: one that ends the process ends only that one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit import registry
from toolkit.errors import ToolkitError
from toolkit.registry import Registration


@dataclass(frozen=True)
class Loaded:
    """The outcome of importing a component."""

    problem: str = ""
    missing_dependencies: tuple[str, ...] = ()
    """What of it does not work here, and why, as its class method of this name reports."""


def load_all(wanted: Sequence[Registration]) -> list[Loaded]:
    """Imports each component, and asks it what of it does not work here. What they print is discarded."""
    loaded: list[Loaded] = []
    while len(loaded) < len(wanted):
        loaded += _load_first(wanted[len(loaded) :])
        if len(loaded) < len(wanted):
            loaded.append(Loaded(f"{wanted[len(loaded)]} ends the process when it is imported"))
    return loaded


def _load_first(wanted: Sequence[Registration]) -> list[Loaded]:
    """Those of the first components that could be imported before the process ended."""
    reader, writer = os.pipe()
    words = [f"{part.kind}={part.name}" for part in wanted]
    code = "from toolkit.cli.probe import main; main()"
    null = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-c", code, str(writer), *words], pass_fds=[writer], stdin=null, stdout=null, stderr=null
    ):
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as lines:
            outcomes = [json.loads(line) for line in lines if line.endswith("\n")]
    return [Loaded(part["problem"], tuple(part["missing_dependencies"])) for part in outcomes]


def main() -> None:
    """In the other process: writes a line of JSON for each component."""
    writer, *words = sys.argv[1:]
    with os.fdopen(int(writer), "w", encoding="utf-8") as lines:
        for word in words:
            kind, _, name = word.partition("=")
            problem, missing_dependencies = "", list[str]()
            try:
                cls = registry.load(kind, name)
                missing_dependencies = list(cls.missing_dependencies()) if hasattr(cls, "missing_dependencies") else []
            except ToolkitError as error:
                problem = str(error)
            lines.write(json.dumps({"problem": problem, "missing_dependencies": missing_dependencies}) + "\n")
            lines.flush()
