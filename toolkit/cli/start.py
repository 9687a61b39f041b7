"""``toolkit start``: a folder of files, looked at, and an experiment for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.arguments import parse
from toolkit.errors import ToolkitError, printable
from toolkit.proposal import Proposal, counted, some
from toolkit.registry import RegistryError, did_you_mean, load, names

if TYPE_CHECKING:
    from toolkit.datasets.files.survey import Survey

EXPERIMENT = "experiment"
"""The folder that Hydra reads experiments from, below one that --config-dir names."""
KINDS = 6
"""Most suffixes that are named."""


@dataclass(frozen=True)
class StartOptions:
    """Looks at a folder of files, and writes an experiment for it: a YAML file with a reason beside each choice.

    It says what is in the folder, and what is wrong there: files that cannot be read, are too small or too short, or
    are copies of others. Of several kinds of files it takes the most frequent; dataset=NAME takes another. Nothing is
    trained, and nothing in the folder is changed.
    """

    files: list[Path] = field(default_factory=list, metadata={"help": "one folder"})
    out: Path | None = field(
        default=None,
        metadata={"help": "the file to write, in a folder called experiment; null: my/experiment/FOLDER.yaml"},
    )
    dataset: str | None = field(
        default=None, metadata={"help": "the dataset that is to read the files; null: that of most of them"}
    )


def main(args: list[str]) -> int:
    options = parse("start", StartOptions, args)
    if len(options.files) != 1:
        raise ToolkitError("name one folder: toolkit start FOLDER")
    from toolkit.datasets.files.survey import survey

    root = options.files[0].expanduser().absolute()
    if not root.is_dir():
        raise ToolkitError(
            f"{root}: {'a file' if root.exists() else 'no such folder'}; name the folder with your files"
        )
    out = _out(options.out, root)
    seen = survey(root)
    name, proposal = _proposal(root, seen, options.dataset)
    proposal = proposal._replace(faults=(*proposal.faults, *_faults(name, seen)))
    _write(out, _text(root.name, proposal))
    _say(root, seen, name, proposal)
    flags = f"--config-dir {out.parent.parent} experiment={out.stem}"
    print(printable(f"next: toolkit check {flags}\n      toolkit train {flags}\n{out}"))
    return 0


def _out(out: Path | None, root: Path) -> Path:
    """Where the experiment goes. ToolkitError where no command would find it, or something is there."""
    word = re.sub(r"[^a-z0-9]+", "_", root.name.lower()).strip("_") or "mine"
    path = Path("my", EXPERIMENT, f"{word}.yaml") if out is None else out
    if path.suffix != ".yaml" or path.absolute().parent.name != EXPERIMENT:
        raise ToolkitError(
            f"out={path}: an experiment is FOLDER/{EXPERIMENT}/NAME.yaml, such as my/{EXPERIMENT}/{word}.yaml"
        )
    if path.exists():
        raise ToolkitError(f"{path}: exists already; out=FOLDER/{EXPERIMENT}/NAME.yaml writes another")
    return path


def _proposal(root: Path, seen: Survey, wanted: str | None) -> tuple[str, Proposal]:
    """The dataset that is to read the folder, and what it proposes."""
    if wanted is not None and wanted not in names("dataset"):
        raise ToolkitError(f"dataset={wanted} is not installed{did_you_mean(wanted, names('dataset'))}")
    proposals, refusals = _asked(root, [wanted] if wanted else list(names("dataset")))
    if not proposals:
        raise refusals[0] if refusals else ToolkitError(f"{root}: {_nothing(seen, wanted)}")
    return max(proposals.items(), key=lambda item: item[1].files)


def _asked(root: Path, datasets: list[str]) -> tuple[Mapping[str, Proposal], list[ToolkitError]]:
    """Every dataset's proposal, by name, and why those that see their files propose nothing."""
    from toolkit.dataset import Dataset

    proposals: dict[str, Proposal] = {}
    refusals: list[ToolkitError] = []
    for name in datasets:
        try:
            cls = load("dataset", name)
        except RegistryError:
            continue  # a broken plugin; toolkit plugins --check says why
        assert issubclass(cls, Dataset)
        try:
            proposal = cls.propose(root)
        except ToolkitError as error:
            refusals.append(error)
            continue
        if proposal is not None and proposal.files:
            proposals[name] = proposal
    return proposals, refusals


def _nothing(seen: Survey, wanted: str | None) -> str:
    who = f"dataset={wanted} reads" if wanted else "an installed dataset reads"
    if not seen.paths:
        return f"the folder is empty: put the files in it that {who}"
    return f"no file that {who} ({_kinds(seen.suffixes())})"


def _faults(dataset: str, seen: Survey) -> list[str]:
    """What is wrong whoever reads the files."""
    from toolkit.dataset import Dataset

    cls = load("dataset", dataset)
    assert issubclass(cls, Dataset)
    faults = []
    if cls.suffixes:
        others = {suffix: count for suffix, count in seen.suffixes().items() if suffix not in cls.suffixes}
        if others:
            files = counted(sum(others.values()), "file")
            faults.append(f"{files} of other kinds will be passed over: {_kinds(others)}")
    if seen.copies:
        pairs = some([f"{copy} of {first}" for copy, first in seen.copies])
        copies = "1 file is a copy" if len(seen.copies) == 1 else f"{len(seen.copies):,} files are copies"
        faults.append(f"{copies} of others ({pairs}): what is trained on may be validated on, too; remove them")
    return faults


def _kinds(suffixes: Mapping[str, int]) -> str:
    """``3,700 .jpg, 81 .png``."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {suffix}" for suffix, count in ordered[:KINDS]]
    rest = sum(count for _, count in ordered[KINDS:])
    return ", ".join([*shown, f"{rest:,} others"] if rest else shown)


def _text(title: str, proposal: Proposal) -> str:
    from toolkit.cli.proposed import experiment

    return experiment(title, proposal)


def _write(out: Path, text: str) -> None:
    from toolkit.writing import write_text

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e


def _say(root: Path, seen: Survey, name: str, proposal: Proposal) -> None:
    print(printable(f"{root}: {counted(len(seen.paths), 'file')}, {_size(seen.size)}: {_kinds(seen.suffixes())}"))
    print(printable(f"dataset={name}: {proposal.contents}"))
    for fault in proposal.faults:
        print(printable(f"  {fault}"))


def _size(count: int) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}"
        count = round(count / 1000)
    raise AssertionError
