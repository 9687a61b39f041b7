"""Loading components one after the other in a process of its own: one that ends the process ends only this one."""

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
    """What came of importing a component."""

    problem: str = ""
    missing_dependencies: tuple[str, ...] = ()
    """What of it does not work here, and why: what its class says in a class method of this name."""


def load_all(wanted: Sequence[Registration]) -> list[Loaded]:
    """Imports each component, and asks it what of it does not work here. What they print is thrown away."""
    made: list[Loaded] = []
    while len(made) < len(wanted):
        rest = wanted[len(made) :]
        made += _loaded(rest)
        if len(made) < len(wanted):
            made.append(Loaded(f"{wanted[len(made)]} ends the process when it is imported"))
    return made


def _loaded(wanted: Sequence[Registration]) -> list[Loaded]:
    """Those of the first components that could be imported before the process ended."""
    reader, writer = os.pipe()
    words = [f"{each.kind}={each.name}" for each in wanted]
    code = "from toolkit.cli.probe import tell; tell()"
    null = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-c", code, str(writer), *words], pass_fds=[writer], stdin=null, stdout=null, stderr=null
    ):
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as lines:
            told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [Loaded(each["problem"], tuple(each["missing_dependencies"])) for each in told]


def tell() -> None:
    """In the other process: a line of JSON for each component."""
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
