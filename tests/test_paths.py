"""A run's configuration has whole paths, wherever in it they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toys import SMALL, VQ

from toolkit.cli.config.compose import compose
from toolkit.config import PartConfig
from toolkit.paths import with_absolute_paths

PYPROJECT = """
[project]
name = "toolkit-told"
version = "1"
[project.entry-points."toolkit.prior"]
told = "told:ToldPrior"
"""
PRIOR = """
from collections.abc import Callable
from toolkit import CodeSpec, Condition, Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.priors.uniform import UniformPrior

class ToldPrior(UniformPrior):
    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        reader: Callable[[Condition], Conditioner] = BytesConditioner,
    ) -> None:
        super().__init__(code_spec, conditions)
"""


def test_a_part_inside_is_found_under_any_name(toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature says of which kind it is: a plugin may call it otherwise than the kind."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "told.py").write_text(PRIOR)
    config = compose([*SMALL, *VQ]).config
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    told = PartConfig("told", {"reader": {"name": "byt5", "root": "theirs"}})
    prior = with_absolute_paths(replace(config, prior=told)).prior
    assert prior is not None
    assert prior.options == {"reader": {"name": "byt5", "root": str(tmp_path / "theirs")}}
