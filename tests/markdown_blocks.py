"""What the README and the pages of docs/ say in blocks of code, to be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "prior_trainer.steps=2",
    "prior_trainer.allow_collapsed=true",  # so few steps use few codes
    "prior_trainer.batch_size=4",
    "prior.hidden=8",
    "prior.layers=2",
    "dataset.train_size=64",
    "dataset.val_size=4",
    "dataset.test_size=4",
    "trainer.validate_examples=4",
]
"""What makes the quick tour over images a matter of seconds."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every ``toolkit`` line of the shell blocks, as words."""
    lines = [line.partition("  #")[0] for block in blocks(text, "sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("toolkit ")]


def write_files(text: str, folder: Path) -> None:
    """The YAML, Python and TOML blocks that say their file's name."""
    for language in ("yaml", "python", "toml"):
        for block in blocks(text, language):
            name = re.search(r"^# ([\w./-]+\.\w+)$", block, re.MULTILINE)
            if name:
                path = folder / name[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block, encoding="utf-8")
