"""What a part finds, row by row, written as it comes."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_PATH = re.compile(r"(^|[\s=:'\"(\[])(?:~|/\w)[^\s'\",)\]]*")


class NotThereError(Exception):
    """An option or a package that this version does not have."""


class Judged(NamedTuple):
    """What was found, and whether it is as it should be."""

    well: bool
    found: Any


class Rows:
    """The rows of a part. A check that fails does not stop the rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._write()

    def check(self, name: str, act: Callable[[], Any]) -> None:
        """A row of what ``act`` returns: ok, unless it raises or judges otherwise; None for what is not there."""
        began, ok = time.perf_counter(), True
        try:
            found: Any = act()
            if isinstance(found, Judged):
                ok, found = found
        except NotThereError as error:
            ok, found = None, f"not there: {error}"
        except Exception as error:
            traceback.print_exc(limit=4)
            ok, found = False, f"{type(error).__name__}: {str(error)[:400]}"
        row = {"check": name, "ok": ok, "found": found, "seconds": round(time.perf_counter() - began, 2)}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.rows))


def without_paths(value: Any) -> Any:
    """A JSON value whose texts name no path of this machine."""
    if isinstance(value, str):
        return _PATH.sub(r"\1…", value)
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    return [without_paths(item) for item in value] if isinstance(value, list) else value
