"""What the pages and the README import from the toolkit is there: quick, where test_docs.py runs the pages."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from markdown_blocks import blocks

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def imported(text: str) -> list[tuple[str, str]]:
    """The modules of the toolkit and the names that a page's Python blocks take from them."""
    nodes = [node for block in blocks(text, "python") for node in ast.walk(ast.parse(block))]
    whole = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names = [
        (node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return [(module, name) for module, name in [*whole, *names] if module.partition(".")[0] == "toolkit"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_pages_import_exists(page: Path) -> None:
    for module, name in imported(page.read_text(encoding="utf-8")):
        found = importlib.import_module(module)
        assert not name or hasattr(found, name), f"{page.name}: from {module} import {name}"


def test_the_pages_import_something() -> None:
    assert sum(len(imported(page.read_text(encoding="utf-8"))) for page in PAGES) > 40
