"""A run's weights as its family publishes them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from toolkit.adopting.adopt import appearing, check_empty, family_of
from toolkit.adopting.mapping import check_names, to_theirs
from toolkit.model import Model, load
from toolkit.runs.tensors import write_tensors
from toolkit.writing import write_text


def write_published(run: str | Path | Model, family: str, out: str | Path) -> list[Path]:
    """Writes ``model.safetensors`` and ``config.json`` in a family's layout into a new folder; returns the files.

    The weights are those of its best or last checkpoint, averaged where there are averages. ToolkitError where the
    run's parts are not those of the family, or ``out`` is not empty.
    """
    check_empty(Path(out))
    of = family_of(family)
    model = run if isinstance(run, Model) else load(run, "cpu")
    settings = of.settings_of(model.config, model.data)
    entries, own = of.entries(settings), model.autoencoder.state_dict()
    check_names(entries, own)
    tensors = to_theirs(entries, own)
    with appearing(Path(out)) as folder:
        write_tensors(folder / "model.safetensors", tensors)
        write_text(folder / "config.json", json.dumps(settings, indent=2))
        if (model.run.path / "LICENSE").is_file():
            shutil.copyfile(model.run.path / "LICENSE", folder / "LICENSE")
    return [Path(out) / name for name in sorted(os.listdir(out))]
