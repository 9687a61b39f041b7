"""``toolkit.compose``: the words of the command line, in Python."""

from __future__ import annotations

import warnings
from pathlib import Path

from toolkit.cli.config.begun import begun
from toolkit.cli.config.compose import compose as compose_words
from toolkit.cli.config.reopen import reopen
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError


def compose(*words: str, run: str | Path | None = None, config_dir: str | Path | None = None) -> RunConfig:
    """The checked configuration of a run, from the words that ``toolkit train`` takes.

    ``compose("image_shapes", "quantizer=fsq", "trainer.steps=500")``: a word without ``=`` names an experiment. With
    ``run``, a run's folder, it is that run's own configuration changed by the words, to continue it. ``config_dir``
    holds further YAML files. Notices are issued as warnings.

    Raises ToolkitError where a name, an option or a value is wrong. Leaves no state of Hydra in the process.
    """
    overrides = [word if "=" in word or word.startswith("~") else f"experiment={word}" for word in words]
    if sum(word.startswith("experiment=") for word in overrides) > 1:
        raise ToolkitError(f"{' '.join(words)}: name one experiment")
    if run is None:
        folder = None if config_dir is None else str(Path(config_dir).resolve())
        composed = compose_words(overrides, folder=folder)
        values = begun(composed.values, composed.experiment, overrides, folder)
    else:
        from toolkit.runs.folder import Run

        opened = Run.open(run)
        with opened.blaming():
            composed = reopen(opened.config_values(), overrides)
        values = composed.values
    for notice in composed.notices:
        warnings.warn(notice.removeprefix("note: "), stacklevel=2)
    return RunConfig.read(values)
