"""``toolkit plugins``: what is installed, from which package, and what is broken and why."""

from __future__ import annotations

import gc
import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from toolkit import registry
from toolkit.cli import own_commands
from toolkit.cli.config.groups import shadows
from toolkit.cli.probe import load_all
from toolkit.errors import ToolkitError, printable
from toolkit.registry import REGISTERED, Registration
from toolkit.schema import read

USAGE = f"""toolkit plugins [KIND [NAME]] [--json] [--check]

Lists the installed components, or the options of one; nothing is imported.

  KIND     one of {", ".join(REGISTERED)}
  NAME     a component of that kind: prints what it is and what its options mean
  --json   as JSON
  --check  import every component, and print what of it does not work here; exit 2 if one is broken"""


@dataclass(frozen=True)
class Row:
    """One registration as it is listed."""

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    summary: str
    problem: str
    missing_dependencies: tuple[str, ...] = ()
    """What of it does not work here, and why, as its class method of this name reports."""


def main(args: Sequence[str]) -> int:
    """Prints the table; 2 where ``--check`` finds something broken."""
    if any(arg in ("-h", "--help") for arg in args):
        print(USAGE)
        return 0
    kinds = [arg for arg in args if not arg.startswith("-")]
    unknown = [arg for arg in args if arg.startswith("-") and arg not in ("--json", "--check")]
    if unknown or len(kinds) > 2:
        raise ToolkitError(f"{' '.join(unknown or kinds)}: write toolkit plugins [KIND [NAME]] [--json] [--check]")
    if len(kinds) == 2:
        print(printable(_describe(kinds[0], kinds[1])))
        return 0
    with _without_gc():
        registrations = [registration for kind in kinds or REGISTERED for registration in registry.registrations(kind)]
        rows = [_row(registration) for registration in registrations]
    rows = _checked(registrations, rows) if "--check" in args else rows
    problems = [*registry.problems(), *shadows(), *own_commands.problems()]
    print(_json(rows, problems) if "--json" in args else printable(_table(rows, problems)))
    broken = problems or any(row.problem for row in rows)
    if "--check" in args and "--json" not in args and not broken:
        print(f"all {len(rows)} load")
    return 2 if "--check" in args and broken else 0


@contextmanager
def _without_gc() -> Iterator[None]:
    """Garbage collection over all that is read, now and at exit, would take a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


def _describe(kind: str, name: str) -> str:
    """A component's docstring, and its options with defaults and meanings."""
    component = read(registry.find(kind, name))
    about = inspect.cleandoc(component.doc).partition("\nArgs:")[0].strip()
    lines = [str(registry.find(kind, name)), "", textwrap.indent(about, "  "), ""]
    for option in component.options:
        default = "" if option.required else f"={'null' if option.default is None else option.default}"
        wanted = f"a {option.nested}, by name" if option.nested else option.wanted
        lines.append(f"  {option.name}{default}  ({wanted})")
        if option.doc:
            lines.append(textwrap.indent(textwrap.fill(option.doc, 90), "      "))
    return "\n".join(lines)


def _checked(registrations: Sequence[Registration], rows: Sequence[Row]) -> list[Row]:
    """The rows, with the outcome of importing those components without a known problem."""
    pairs = list(zip(registrations, rows, strict=True))
    sound = [registration for registration, row in pairs if not row.problem]
    loaded = dict(zip(sound, load_all(sound), strict=True))
    return [
        replace(row, problem=outcome.problem, missing_dependencies=outcome.missing_dependencies)
        if (outcome := loaded.get(registration))
        else row
        for registration, row in pairs
    ]


def _row(registration: Registration) -> Row:
    summary, problem = "", ""
    try:
        summary = read(registration).summary
        registry.find(registration.kind, registration.name)
        registry.check_core(registration)
    except ToolkitError as error:
        problem = str(error)
    return Row(
        registration.kind,
        registration.name,
        registration.distribution,
        registration.version,
        registration.target,
        summary,
        problem,
    )


def _json(rows: Sequence[Row], problems: Sequence[str]) -> str:
    listed = {"components": [asdict(row) for row in rows], "problems": list(problems)}
    return json.dumps(listed, indent=1, ensure_ascii=False)


def _table(rows: Sequence[Row], problems: Sequence[str]) -> str:
    cells = [(row.kind, row.name, f"{row.distribution} {row.version}", _note(row)) for row in rows]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(3)]
    lines = []
    for before, row in zip([None, *cells], cells, strict=False):
        kind = "" if before and before[0] == row[0] else row[0]
        left = "  ".join(f"{cell:<{width}}" for cell, width in zip((kind, *row[1:3]), widths, strict=True))
        lines.append(f"{left}  {_cut(row[3], len(left) + 2)}".rstrip())
    lines += [f"{row.kind}={row.name} is broken: {row.problem}" for row in rows if row.problem]
    lines += [f"{row.kind}={row.name}: {text}" for row in rows for text in row.missing_dependencies]
    return "\n".join([*lines, *problems])


def _note(row: Row) -> str:
    return "broken, see below" if row.problem else row.summary


def _cut(text: str, start: int) -> str:
    if not sys.stdout.isatty():
        return text
    room = max(20, shutil.get_terminal_size((120, 24)).columns - start)
    return text if len(text) <= room else f"{text[: room - 1]}…"
