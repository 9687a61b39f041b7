"""What a notebook shows of a model, its samples and its figures."""

from __future__ import annotations

import base64
import re
from html import unescape
from pathlib import Path

import pytest
import torch

import toolkit
from toolkit.cells import Sample, ShownSample
from toolkit.datasets.waves import WavesDataset
from toolkit.notebook import Figures, number, players, table

PNG = b"\x89PNG"


def pictures(cell: str) -> list[bytes]:
    """The pictures inside a cell."""
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', cell)]


def text(cell: str) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", cell))


@pytest.mark.usefixtures("toys")
def test_a_model_shows_parts_shapes_rate_and_its_last_sheet(toy_run: Path) -> None:
    model = toolkit.load(toy_run)
    cell = model._repr_html_()
    for word in ("toy_conv", "vq", f"{model.code_spec.rate:,g} bits", "pixelcnn", str(toy_run)):
        assert word in text(cell), word
    last = max(toy_run.glob("samples/autoencoder-*.png"))
    assert pictures(cell) == [last.read_bytes()]


@pytest.mark.usefixtures("toys")
def test_samples_are_a_pair_and_show_a_sheet(toy_run: Path) -> None:
    samples = toolkit.load(toy_run).sample(3)
    x, codes = samples
    assert isinstance(samples, ShownSample)
    assert samples == Sample(x, codes)
    cell = samples._repr_html_()
    assert "3 samples" in text(cell)
    assert [found[:4] for found in pictures(cell)] == [PNG]


def test_samples_of_other_axes_are_shown() -> None:
    data = WavesDataset()
    x = torch.zeros(2, *data.spec.shape, dtype=torch.int64).repeat_interleave(2, 2)
    shown = ShownSample.of(Sample(x, torch.zeros(2, 1, 4)), WavesDataset, data.spec)
    assert shown.spec.axes[0] == 2 * data.spec.axes[0]
    assert pictures(shown._repr_html_())


def test_figures_are_a_dictionary_and_two_tables() -> None:
    figures = Figures({"split": "test", "nmse": 0.031234, "priors": {"pixelcnn": {"bits_per_dim": 1.25}}})
    assert figures["nmse"] == 0.031234
    cell = figures._repr_html_()
    assert cell.count("<table>") == 2
    for word in ("nmse", "0.03123", "pixelcnn", "1.25"):
        assert word in text(cell), word


def test_text_of_others_is_text() -> None:
    assert "<b>" not in table(("<b>",), [("<b>x</b>",)])
    assert (number(1234567), number(1234567.0), number(0.000123456), number("a")) == (
        "1,234,567",
        "1,234,567",
        "0.0001235",
        "a",
    )


def test_sounds_are_played() -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"RIFF")

    cell = players([write] * 20, ".wav")
    assert cell.count("<audio") == 8
    assert base64.b64encode(b"RIFF").decode() in cell
    assert players([], ".png") == ""
