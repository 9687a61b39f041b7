"""A plugin written for compositions, and what is composed of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from toolkit import registry
from toolkit.cli.config.compose import Composed, compose
from toolkit.errors import ToolkitError

PARTS = """
import torch  # reading the signatures must not need it
from typing import Literal

class Data:
    def __init__(self, *, root: str = "data", label: str | None = None, crop: int = 8) -> None: ...

class Enc:
    def __init__(self, data, dim, *, hidden: int = 8, strides: tuple[int, ...] = (2, 2),
                 norm: Literal["none", "group"] = "none", level: Literal[1, 2] = 2) -> None: ...

class Dec:
    def __init__(self, dim, *, width: int = 8, files: list[str] = []) -> None: ...

class Plain:
    def __init__(self, dim, *, size: int = 16, rate: float = 0.5) -> None: ...

class Other:
    def __init__(self, dim, *, size: int = 32, decay: float = 0.9) -> None: ...

class Few:
    def __init__(self, *, levels: tuple[int, ...] = (8, 5)) -> None: ...

class Stack:
    def __init__(self, dim, *, inner: Callable[[int], Quantizer] = Plain, depth: int = 2) -> None: ...

class Open:
    def __init__(self, dim, *, inner: Callable[[int], Quantizer], must: int) -> None: ...

class Pri:
    def __init__(self, latent, *, layers: int = 3) -> None: ...

class Met:
    def __init__(self, data, *, share: float = 0.5, path: str = "x") -> None: ...
"""
POINTS = {
    "dataset": {"c_data": "Data"},
    "encoder": {"c_enc": "Enc", "c_wide": "Dec", "c_gone": "Gone"},
    "decoder": {"c_dec": "Dec"},
    "quantizer": {"c_plain": "Plain", "c_other": "Other", "c_few": "Few", "c_stack": "Stack", "c_open": "Open"},
    "prior": {"c_pri": "Pri"},
    "metric": {"c_met": "Met", "c_met2": "Met"},
}
YAML = {
    "experiment/small": """
        # @package _global_
        defaults:
          - override /dataset: c_data
          - override /encoder: c_enc
          - override /quantizer: c_plain
          - override /decoder: c_dec
          - override /metric: [c_met]
          - _self_
        dim: 8
        quantizer: {size: 24, rate: 0.25}
        encoder: {strides: [2]}
        """,
    "experiment/preset": """
        # @package _global_
        defaults: [small, override /quantizer: c_stack_other, _self_]
        """,
    "experiment/bad_type": """
        # @package _global_
        defaults: [small, _self_]
        encoder: {hidden: many}
        """,
    "experiment/bad_key": """
        # @package _global_
        defaults: [small, _self_]
        encoder: {hiden: 3}
        """,
    "experiment/bad_top": """
        # @package _global_
        defaults: [small, _self_]
        stepz: 3
        """,
    "experiment/bad_name": """
        # @package _global_
        defaults: [small, _self_]
        quantizer: {name: c_other}
        """,
    "experiment/bad_group": """
        # @package _global_
        defaults: [override /encodr: c_enc, _self_]
        """,
    "experiment/bad_yaml": "a: [1",
    "quantizer/c_stack_other": """
        defaults: [c_stack, override inner: c_other, _self_]
        inner: {size: 48}
        """,
    "trainer/c_long": """
        defaults: [default, _self_]
        steps: 77
        """,
}
CHOSEN = ["dataset=c_data", "encoder=c_enc", "decoder=c_dec", "quantizer=c_plain", "metric=[]"]


@contextmanager
def composing_plugin(home: Path) -> Iterator[None]:
    """It is written to a folder, and its parts have names while the block lasts."""
    package = home / "compose_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nobody should import me')")
    (package / "parts.py").write_text(PARTS)
    lines = ["[project]", 'name = "compose-plugin"', 'version = "2"']
    for kind, names in POINTS.items():
        lines.append(f'[project.entry-points."toolkit.{kind}"]')
        lines += [f'{name} = "compose_plugin.parts:{cls}"' for name, cls in names.items()]
    lines += ['[project.entry-points."toolkit.conf"]', 'c = "compose_plugin.conf"']
    (home / "pyproject.toml").write_text("\n".join(lines))
    for name, text in YAML.items():
        file = package / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.PLUGIN_PATH, str(home))
        yield


def small(*words: str) -> Composed:
    return compose(["experiment=small", *words])


def refusal(*words: str) -> str:
    with pytest.raises(ToolkitError) as error:
        compose(words)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)
