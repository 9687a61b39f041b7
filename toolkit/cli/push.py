"""``toolkit push``: a run to the Hugging Face Hub, with a card that is written from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes
from toolkit.errors import ToolkitError, printable
from toolkit.options import CHECKPOINT

if TYPE_CHECKING:
    from toolkit.hub import Reference
    from toolkit.runs.folder import Run

LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
"""What the Hub calls licences: mit, apache-2.0, cc-by-4.0, other."""
_HEADER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_STATED = re.compile(r"^license:\s*[\"']?([^\s\"']+)", re.MULTILINE)
LARGEST_CARD = 1 << 20
"""Bytes of a card that is read."""


@dataclass(frozen=True)
class PushOptions:
    """Uploads a run, all of it opened before, to hub:owner/name, and writes its card.

    Only what opens the run is pushed: the newest configuration, a checkpoint of each part, figures, labels. Not the
    log, the list of the data's files, or samples; local paths are cut to their last word, and it is said which. A run
    without a licence is refused. Needs the extra hub, and hf auth login once.
    """

    run: str = field(metadata={"help": "the run folder"})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    hub: list[str] = field(default_factory=list, metadata={"help": "hub:owner/name, which is created where it is new"})
    license: str | None = field(
        default=None,
        metadata={"help": "mit, apache-2.0, cc-by-4.0, other, …; null: that of the run's card, if it has one"},
    )
    private: bool = field(default=False, metadata={"help": "whether it is for you alone"})
    pipeline: str = field(default="feature-extraction", metadata={"help": "the Hub's word for what it does"})
    codes: bool = field(default=False, metadata={"help": "whether the cached codes of its data go with it"})
    dry: bool = field(default=False, metadata={"help": "true: only write what would be pushed, to outputs/push"})
    out: str | None = field(default=None, metadata={"help": "true to dry, to this folder"})


def main(args: list[str]) -> int:
    options = parse("push", PushOptions, args)

    from toolkit import hub
    from toolkit.cli.outputs import require_folder
    from toolkit.cli.pushed import collect
    from toolkit.model import load

    reference = _repository(options)
    out = Path(options.out) if options.out else Path("outputs", "push", reference.owner, reference.name)
    local = options.dry or options.out is not None
    if local:
        require_folder(out)
        _check_empty(out)
    model = load(options.run, "cpu", checkpoint=options.checkpoint)
    license = _license(options.license, model.run)
    notes(model.notices)
    with TemporaryDirectory() as temporary:
        folder = out if local else Path(temporary) / reference.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left_out = collect(model, folder, reference, license, options.pipeline, options.codes)
        except OSError as e:
            raise ToolkitError(f"{folder}: {e.strerror or e}") from e
        notes(left_out)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{reference.repository}: {size / 2**20:,.1f} MiB, {license}")
        if local:
            print(printable(str(out / "README.md")))
            return 0
        title = f"Push a run of {model.checkpoint.step} steps"
        commit = hub.upload(reference, folder, options.private, title)
    print(f"pushed: {reference.at(commit)}")
    print(f'load it pinned with toolkit.load("{reference.at(commit)}"), or run={reference.at(commit)}')
    return 0


def _repository(options: PushOptions) -> Reference:
    from toolkit.hub import parse as parse_reference

    if len(options.hub) != 1:
        raise ToolkitError(f"{len(options.hub) or 'no'} repositories: toolkit push run=DIR hub:owner/name license=mit")
    reference = parse_reference(options.hub[0])
    if reference.revision:
        raise ToolkitError(f"{reference}: pushing makes a revision: write hub:{reference.repository}")
    return reference


def _check_empty(out: Path) -> None:
    """ToolkitError where a folder has files already: what was pushed would have them, too."""
    if out.is_dir() and any(out.iterdir()):
        raise ToolkitError(f"out={out}: there are files in it already: remove it, or take another folder")


def _license(given: str | None, run: Run) -> str:
    """What is given, else what the run's record of its origin or its card says; ToolkitError where neither does."""
    from toolkit.cli.pushed import adopted_license

    license = given or adopted_license(run) or _stated(run.path / "README.md")
    if not license:
        raise ToolkitError(
            "license: nobody may use what has none: add license=mit, apache-2.0, cc-by-4.0, …, or license=other and the"
            f" text as {run.path / 'LICENSE'}; weights that came from elsewhere keep theirs"
        )
    if not LICENSE.fullmatch(license):
        raise ToolkitError(
            f"license={license}: write a licence's short name, such as mit, apache-2.0, cc-by-4.0, other"
        )
    return license.lower()


def _stated(card: Path) -> str | None:
    """The licence in the header of a card."""
    from toolkit.runs.plain import read_text

    try:
        header = _HEADER.match(read_text(card, LARGEST_CARD))
    except (OSError, ValueError):
        return None
    stated = _STATED.search(header[1]) if header else None
    return stated[1] if stated else None
