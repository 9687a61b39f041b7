"""A plugin written for the commands, and what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolkit import __main__ as command

PARTS = '''
import torch
from typing import Literal


class Data:
    """Numbers."""

    def __init__(self, *, root: str = "data", crop: int = 8) -> None: ...


class Part:
    """A part."""

    def __init__(self, dim, *, hidden: int = 8, norm: Literal["none", "group"] = "none", bias: bool = True) -> None: ...


class Wrong:
    """Breaks a rule."""

    def __init__(self, *sizes) -> None: ...
'''
PROJECT = """
[project]
name = "cli-plugin"
version = "3"
[project.entry-points."toolkit.dataset"]
d_data = "cli_plugin.parts:Data"
[project.entry-points."toolkit.encoder"]
d_enc = "cli_plugin.parts:Part"
d_wrong = "cli_plugin.parts:Wrong"
[project.entry-points."toolkit.quantizer"]
d_quant = "cli_plugin.parts:Part"
[project.entry-points."toolkit.decoder"]
d_dec = "cli_plugin.parts:Part"
[project.entry-points."toolkit.conf"]
d = "cli_plugin.conf"
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /dataset: d_data
  - override /encoder: d_enc
  - override /quantizer: d_quant
  - override /decoder: d_dec
  - override /metric: []
  - _self_
encoder: {norm: group}
"""


def write_plugin(home: Path) -> None:
    """The plugin, in a new folder."""
    experiments = home / "cli_plugin" / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (home / "pyproject.toml").write_text(PROJECT)
    (home / "cli_plugin" / "parts.py").write_text(PARTS)
    (experiments / "d_small.yaml").write_text(EXPERIMENT.lstrip())


def fails(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    assert command.run(words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def subprocess_out(*args: str, **env: str) -> str:
    done = subprocess.run(args, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
