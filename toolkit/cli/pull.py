"""``toolkit pull``: a run of the Hub as a run of yours."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.cli.arguments import parse
from toolkit.errors import ToolkitError, printable


@dataclass(frozen=True)
class PullOptions:
    """Copies a run of the Hub into a folder of yours, where it can be trained further.

    To open it, no pull is needed: run=hub:owner/name@REVISION does that, in every command.
    """

    hub: list[str] = field(
        default_factory=list, metadata={"help": "hub:owner/name, or hub:owner/name@REVISION: a commit, branch or tag"}
    )
    out: str = field(default="", metadata={"help": "the folder to write to, which is new; by default outputs/NAME"})


def main(args: list[str]) -> int:
    options = parse("pull", PullOptions, args)

    from toolkit import hub
    from toolkit.runs.folder import Run

    if len(options.hub) != 1:
        raise ToolkitError(f"{len(options.hub) or 'no'} repositories: toolkit pull hub:owner/name@REVISION out=RUN")
    reference = hub.parse(options.hub[0])
    out = Path(options.out or Path("outputs", reference.name))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ToolkitError(f"out={out}: there is something already: take a new folder")
    run = Run.open(options.hub[0])
    run.config()
    try:
        shutil.copytree(run.path, out, dirs_exist_ok=True)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    print(f"pulled: {run.origin}")
    print(printable(str(out)))
    return 0
