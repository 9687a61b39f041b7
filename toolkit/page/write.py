"""A run's page, written into its folder."""

from __future__ import annotations

from pathlib import Path

from toolkit.page.contents import contents_of
from toolkit.page.render import page_of
from toolkit.runs.folder import Run
from toolkit.writing import write_text

NAME = "report.html"


def write_page(run: Run) -> Path:
    """Writes it, in place of an older one; OSError where that is impossible."""
    path = run.results / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page_of(contents_of(run)))
    return path
