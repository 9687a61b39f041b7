"""Sheets with captions: a title, what a row is, and what an example is conditioned on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from toolkit.spec import DataSpec

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont
    from torch import Tensor

Plot = Callable[[Sequence["Tensor"], DataSpec, Path], None]
"""A dataset's ``plot``."""

SIZE, LINE, GAP = 12, 17, 6
"""Pixels: of the text, from line to line, and around it."""
WIDEST = 220
"""Pixels of the text at the left, at most."""
INK = (40, 40, 40)


class Captions(NamedTuple):
    """What is written around the examples of a sheet."""

    title: str
    rows: Sequence[str]
    """Of each row; may be empty."""
    examples: Sequence[Sequence[str]]
    """Of each row's examples; may be empty."""


class _Block(NamedTuple):
    """A part of a sheet that the dataset plots by itself."""

    rows: list[Tensor]
    left: list[str]
    """Beside it, evenly from top to bottom."""
    above: list[str]
    """Above it, evenly from left to right."""


def plot_captioned(plot: Plot, rows: Sequence[Tensor], spec: DataSpec, path: Path, captions: Captions) -> None:
    """Rows of examples ``(n, channels, *axes)`` as ``plot`` shows them, in one PNG with captions.

    Up to two axes, each row is plotted by itself, with its examples' captions above them. With more, an example is a
    line of frames: what stands in one column, such as an original and its reconstruction, is plotted together, with
    the captions beside the lines.
    """
    blocks = _rows(rows, captions) if spec.rank <= 2 else _columns(rows, captions)
    with TemporaryDirectory() as folder:
        pictures = []
        for i, block in enumerate(blocks):
            picture = Path(folder) / f"{i}.png"
            plot(block.rows, spec, picture)
            pictures.append(picture)
        sheet = _composed(pictures, blocks, captions.title)
    if sheet is None:
        plot(rows, spec, path)
    else:
        sheet.save(path, format="PNG")


def _rows(rows: Sequence[Tensor], captions: Captions) -> list[_Block]:
    return [
        _Block([row], [_at(captions.rows, i)], list(captions.examples[i]) if i < len(captions.examples) else [])
        for i, row in enumerate(rows)
    ]


def _columns(rows: Sequence[Tensor], captions: Captions) -> list[_Block]:
    blocks = []
    for column in range(max(len(row) for row in rows)):
        there = [i for i, row in enumerate(rows) if column < len(row)]
        examples = [_at(captions.examples[i], column) if i < len(captions.examples) else "" for i in there]
        left = [", ".join(filter(None, (_at(captions.rows, i), text))) for i, text in zip(there, examples, strict=True)]
        blocks.append(_Block([rows[i][column : column + 1] for i in there], left, []))
    return blocks


def _at(texts: Sequence[str], index: int) -> str:
    return texts[index] if index < len(texts) else ""


def _composed(pictures: Sequence[Path], blocks: Sequence[_Block], title: str) -> Picture | None:
    """All blocks below the title; None where a dataset's plots are not pictures that can be read."""
    from PIL.Image import new
    from PIL.Image import open as opened
    from PIL.ImageDraw import Draw

    try:
        parts = [opened(picture).convert("RGB") for picture in pictures]
    except OSError:
        return None
    font = _font()
    gutter = min(WIDEST, max((_width(font, text) for block in blocks for text in block.left), default=0))
    left = gutter + 2 * GAP if gutter else 0
    heads = [LINE if any(block.above) else 0 for block in blocks]
    top = LINE + GAP if title else 0
    width = max(left + max(part.width for part in parts), _width(font, title) + 2 * GAP)
    height = top + sum(head + part.height for head, part in zip(heads, parts, strict=True))
    sheet = new("RGB", (width, height), "white")
    draw = Draw(sheet)
    draw.text((GAP, GAP // 2), title, INK, font)
    for block, head, part in zip(blocks, heads, parts, strict=True):
        for i, text in enumerate(block.above):
            cell = part.width / len(block.above)
            shown = _cut(font, text, cell - 4)
            draw.text((left + (i + 0.5) * cell - _width(font, shown) / 2, top + 2), shown, INK, font)
        sheet.paste(part, (left, top + head))
        for i, text in enumerate(block.left):
            middle = top + head + (i + 0.5) * part.height / len(block.left)
            draw.text((GAP, middle - LINE / 2), _cut(font, text, WIDEST), INK, font)
        top += head + part.height
    return sheet


def _font() -> FreeTypeFont:
    from matplotlib import get_data_path
    from PIL.ImageFont import truetype

    return truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", SIZE)


def _width(font: FreeTypeFont, text: str) -> int:
    return round(font.getlength(text))


def _cut(font: FreeTypeFont, text: str, width: float) -> str:
    """The text, cut short where it is wider."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…" if text else ""
