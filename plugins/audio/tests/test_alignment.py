"""Alignments of phones, in both forms that are in circulation."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import ToolkitError
from toolkit_audio.alignment import PhoneLabels, Span, label_rate, read_alignment, read_phone_map

TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "hey ""you"""
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = "HH"
        intervals [2]:
            xmin = 0.1
            xmax = 0.3
            text = "EY1"
        intervals [3]:
            xmin = 0.3
            xmax = 0.5
            text = ""
'''


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def test_a_lab_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lab", "0.1 0.2 b\n0 0.1 ㅏ\n\n")
    assert read_alignment(path) == [Span(0, 0.1, "ㅏ"), Span(0.1, 0.2, "b")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_textgrid(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", TEXTGRID, encoding)
    assert read_alignment(path) == [Span(0, 0.1, "HH"), Span(0.1, 0.3, "EY1"), Span(0.3, 0.5, "sil")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.lab", ""),
        ("a.lab", "0 1\n"),
        ("a.lab", "zero one a\n"),
        ("a.lab", "1 0 a\n"),
        ("a.TextGrid", "nothing of the kind"),
    ],
)
def test_what_is_no_alignment(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=rf"{name}: not an alignment of phones") as caught:
        read_alignment(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def labels_of(tmp_path: Path, classes: dict[str, str] | None = None) -> PhoneLabels:
    write(tmp_path / "anna" / "1.lab", "0 0.1 a\n0.1 0.2 b\n0.25 0.3 c\n")
    write(tmp_path / "anna" / "2.TextGrid", TEXTGRID)
    return PhoneLabels(tmp_path, ["anna/1.wav", "anna/2.flac", "anna/3.wav"], classes or {})


def test_a_frame_has_the_phone_of_its_middle(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    assert labels.names == ("EY1", "HH", "a", "b", "c", "sil")
    assert labels.labels("anna/1.wav", 0.0, 8, 25).tolist() == [2, 2, 3, 3, 3, 6, 4, 6]
    assert labels.labels("anna/1.wav", 0.04, 2, 25).tolist() == [2, 3]
    assert labels.labels("anna/2.flac", 0.0, 3, 10).tolist() == [1, 0, 0]
    assert labels.labels("anna/3.wav", 0.0, 2, 25).tolist() == [6, 6]


def test_phones_that_count_as_one(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, {"a": "vowel", "EY1": "vowel", "b": "stop"})
    assert labels.names == ("HH", "c", "sil", "stop", "vowel")
    assert labels.labels("anna/1.wav", 0.0, 3, 10).tolist() == [4, 3, 1]


def test_folders_without_alignments(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="no such folder"):
        PhoneLabels(tmp_path / "none", ["a.wav"], {})
    with pytest.raises(ToolkitError, match=r"has the path of a file, such as a.wav"):
        PhoneLabels(tmp_path, ["a.wav"], {})


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}'])
def test_what_is_no_phone_map(text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"phone_map=.*map.json"):
        read_phone_map(write(tmp_path / "map.json", text))


@pytest.mark.parametrize(("rate", "labels"), [(16000, 100), (22050, 50), (11025, 25), (24000, 100), (44100, 100)])
def test_label_rates_divide_the_sample_rate(rate: int, labels: int) -> None:
    assert label_rate(rate) == labels
    assert rate % labels == 0
