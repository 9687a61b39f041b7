"""``toolkit adopt``: published weights as a run, and a run's weights as its family publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from toolkit import registry
from toolkit.cli.arguments import help_text, parse
from toolkit.cli.report import notes, show_plugin_notes, table
from toolkit.errors import ToolkitError, printable
from toolkit.registry import FAMILY

if TYPE_CHECKING:
    from toolkit.adopting.adopt import Adoption


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """Makes a run of published weights of the family NAME: toolkit adopt NAME FILE out=RUN.

    FILE is safetensors, or what torch.save wrote, of which nothing but tensors and plain values is read; or a folder
    with one, its config.json and its license. It is a run like any other then: encoded with, trained on, sampled from.

    With run=RUN in place of FILE the other way: writes that run's weights and settings as the family NAME has them.
    """

    files: list[Path] = field(default_factory=list, metadata={"help": "the weights: a file, or a folder"})
    out: str = field(metadata={"help": "the run's folder, or with run= that of the published files; new or empty"})
    settings: Path | None = field(
        default=None, metadata={"help": "the file of their settings, JSON or YAML, where it is not beside them"}
    )
    license: str | None = field(default=None, metadata={"help": "the name of their license, such as MIT; it is kept"})
    run: str | None = field(default=None, metadata={"help": "a run to write as the family has it"})


def main(args: Sequence[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(help_text("adopt NAME", AdoptOptions))
        print(f"\nfamilies: {_families()}")
        return 0 if args else 2
    name, *words = args
    if "=" in name:
        raise ToolkitError(f"no family named: write toolkit adopt NAME FILE out=RUN (families: {_families()})")
    options = parse(f"adopt {name}", AdoptOptions, words)
    registry.find(FAMILY, name)
    if bool(options.run) == bool(options.files) or len(options.files) > 1:
        raise ToolkitError("name one file or folder of weights to adopt, or run=RUN to write it as the family has it")
    return _give_back(name, options) if options.run else _adopt(name, options)


def _adopt(name: str, options: AdoptOptions) -> int:
    from toolkit.cli.adopting import adopt

    show_plugin_notes()
    adopted = adopt(name, options.files[0], options.out, settings=options.settings, license=options.license)
    _print(adopted)
    notes([f"{name}: {remark}" for remark in adopted.remarks])
    run = quote(options.out)
    if adopted.published.license_text is None and options.license is None:
        notes(["these weights came without a license: license=NAME keeps it with the run"])
    root = "".join(f" dataset.{key}=…" for key in adopted.open_options)
    print(printable(options.out))
    notes([f"toolkit train run={run} stage=prior prior=transformer{root} trains a prior on its codes"])
    return 0


def _print(adopted: Adoption) -> None:
    there, skipped = len(adopted.published.shapes), len(adopted.held.skipped)
    codes = adopted.held.stage.model.code_spec
    sizes = ", ".join(map(str, dict.fromkeys(codes.codebook_sizes)))
    rows = [
        ("tensors", f"{there - skipped} of {there}" + (f", {skipped} of no use to a run" if skipped else "")),
        ("parameters", f"{adopted.parameters:,}"),
        ("data", str(adopted.held.data.shape)),
        ("codes", f"{codes.shape} of {sizes} entries, {codes.rate:g} bits per example" if sizes else "none"),
    ]
    table(adopted.family.name, ("", "adopted"), rows)


def _give_back(name: str, options: AdoptOptions) -> int:
    from toolkit.adopting.reverse import write_published

    assert options.run is not None
    for key in ("settings", "license"):
        if getattr(options, key) is not None:
            raise ToolkitError(f"{key}=: of weights to adopt, not of run=")
    show_plugin_notes()
    for path in write_published(options.run, name, options.out):
        print(printable(str(path)))
    return 0


def _families() -> str:
    return ", ".join(registry.names(FAMILY)) or "none is installed"
