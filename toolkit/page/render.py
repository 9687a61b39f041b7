"""The page itself: a template, a style and a script, in one file that asks nothing of any network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from toolkit.page.comparison import Comparison
from toolkit.page.contents import Contents
from toolkit.page.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, shown

HERE = Path(__file__).parent
AREA = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}


def page_of(run: Contents, live: bool = False) -> str:
    """One run's page. ``live``: it looks for a newer one where it came from."""
    return _render(title=run.title, runs=[run], comparison=None, live=live)


def page_of_comparison(comparison: Comparison, runs: Sequence[Contents]) -> str:
    """A page of several runs: what they were measured as, their curves over one another, and each by itself."""
    return _render(title=f"{len(runs)} runs", runs=runs, comparison=comparison, live=False)


def _render(**values: Any) -> str:
    """All text is escaped: a run's names and notes may be a stranger's."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return _template().render(style=style, script=script, area=AREA, version=version("discrete-toolkit"), **values)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = shown
    return environment.get_template("page.html.jinja")
