"""``toolkit pack``: a dataset to shards, tar files with an index."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.cli.arguments import keyed, parse
from toolkit.cli.report import WORKERS, progress, show_plugin_notes
from toolkit.errors import ToolkitError, printable

USAGE = "toolkit pack dataset=NAME dataset.OPTION=VALUE … out=DIR, or experiment=NAME in place of dataset=NAME"
HELP = ("-h", "--help")


@dataclass(frozen=True)
class PackOptions:
    """Writes all examples of a dataset, dataset=NAME dataset.OPTION=VALUE …, to tar files that dataset=shards reads.

    Training examples lie in a random order that is always the same, so that what streams them sees them mixed; nothing
    else is random: augmentation is left out. dataset=codes dataset.run=DIR packs the codes of a run, which others then
    train on without that run. The layout is webdataset's, and docs/shards.md has the index beside it.
    """

    out: str = field(metadata={"help": "the folder to write, which has no index yet"})
    shard_mb: int = field(default=256, metadata={"help": "megabytes of a tar file, roughly"})
    form: Literal["array", "file"] = field(
        default="array",
        metadata={"help": "array: data as NumPy arrays; file: as the dataset's own files, where these lose nothing"},
    )
    workers: int | None = field(default=None, metadata={"help": WORKERS})


def main(args: list[str]) -> int:
    own = [word for word in args if word.partition("=")[0] in keyed(PackOptions) or word in HELP]
    options = parse("pack", PackOptions, own)
    words = [word for word in args if word not in own]
    for word in words:
        if word.partition("=")[0].partition(".")[0] not in ("dataset", "experiment"):
            raise ToolkitError(f"{word}: {USAGE}")

    from toolkit.cli.config.compose import compose
    from toolkit.cli.outputs import require_folder
    from toolkit.cli.packing import pack
    from toolkit.config import PartConfig
    from toolkit.model import open_part

    if options.shard_mb < 1:
        raise ToolkitError(f"shard_mb={options.shard_mb}: must be at least 1")
    folder = Path(options.out)
    require_folder(folder)
    chosen = compose(words, complete=False).values["dataset"]
    if chosen is None:
        raise ToolkitError(f"no dataset is chosen: {USAGE}")
    show_plugin_notes()
    part = PartConfig.read(chosen, "dataset", "the words")
    dataset = open_part(part)
    begun = time.perf_counter()
    index = pack(dataset, part, folder, options, lambda split, size: progress(f"pack {split}", size))
    sizes = ", ".join(f"{index.size(split)} {split}" for split in index.shards)
    tars = [shard for shards in index.shards.values() for shard in shards]
    print(
        f"examples: {sizes}; {len(tars)} shards of {sum(tar.size for tar in tars) / 1e6:.1f} MB in all, in"
        f" {time.perf_counter() - begun:.1f} s"
    )
    print(printable(f"toolkit train dataset=shards dataset.root={folder} …"))
    return 0
