"""Alignments of phones, in both forms that are in circulation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from toolkit import ToolkitError
from toolkit_audio.alignment import Span, label_rate, read_alignment, seconds_per_unit
from toolkit_audio.phone_labels import PhoneLabels, read_phone_map
from toolkit_audio.reading import Header

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


Intervals = Sequence[tuple[float, float, str]]


def textgrid(tiers: dict[str, Intervals] | list[tuple[str, Intervals]], short: bool = False) -> str:
    """A TextGrid of interval tiers, as Praat writes it in its long or its short format."""
    named = list(tiers.items()) if isinstance(tiers, dict) else tiers
    end = max(row[1] for _, rows in named for row in rows)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(named)}", "item []:"]
    for i, (name, rows) in enumerate(named, 1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(rows)}"]
        for j, (start, stop, text) in enumerate(rows, 1):
            lines += [f"        intervals [{j}]:", f"            xmin = {start}", f"            xmax = {stop}"]
            lines += [f'            text = "{text}"']
    if short:
        lines = [line.partition("= ")[2] if i > 2 else line for i, line in enumerate(lines) if not line.endswith(":")]
        lines = ["<exists>" if "<exists>" in line else line for line in lines]
    return "\n".join(lines) + "\n"


WORDS = [(0, 0.3, "hey"), (0.3, 0.5, "")]
SAID = [(0, 0.1, "HH"), (0.1, 0.3, "EY1"), (0.3, 0.5, "")]
SPANS = [Span(0, 0.1, "HH"), Span(0.1, 0.3, "EY1"), Span(0.3, 0.5, "sil")]


def test_a_lab_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.lab", "0.1 0.2 b\n0 0.1 ㅏ\n\n")
    assert read_alignment(path).spans == [Span(0, 0.1, "ㅏ"), Span(0.1, 0.2, "b")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_textgrid(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", TEXTGRID, encoding)
    assert read_alignment(path).spans == SPANS


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    "name", ["phones", "Phone", "phonemes", "phon", "MAU", " phn ", "anna - phones", "an/phonemes"]
)
@pytest.mark.parametrize("last", [False, True])
def test_the_tier_of_phones_is_found_by_its_name(name: str, short: bool, last: bool, tmp_path: Path) -> None:
    """Wherever it is: words are never taken for phones."""
    tiers = {"words": WORDS, "ORT-MAU": WORDS, name: SAID} if last else {name: SAID, "KAN-MAU": WORDS, "words": WORDS}
    path = write(tmp_path / "a.textgrid", textgrid(tiers, short))
    assert read_alignment(path).spans == SPANS


def test_short_and_long_texts_say_the_same(tmp_path: Path) -> None:
    """Quotes, numbers in texts, comments, points, and line ends of another system are none of its structure."""
    tiers = {"w": [(0, 0.5, '5 ""quoted"" = 3')], "phones": [(0, 0.25, "! a"), (0.25, 0.5, "b")]}
    long, short = textgrid(tiers), textgrid(tiers, short=True)
    points = long.replace("size = 2", "size = 3", 1) + '"TextTier" "taps" 0 0.5 2 0.1 "x" 0.2 "y"'
    commented = long.replace("item []:", 'item []: ! 3 tiers "of" 7')
    for i, text in enumerate((long, short, points, commented, long.replace("\n", "\r\n"))):
        spans = read_alignment(write(tmp_path / f"{i}.TextGrid", text)).spans
        assert spans == [Span(0, 0.25, "! a"), Span(0.25, 0.5, "b")]


def test_several_speakers_are_heard_one_at_a_time(tmp_path: Path) -> None:
    """Where both speak there is no phone that is right."""
    anna = [(0, 0.2, "a"), (0.2, 0.5, "b"), (0.5, 1.0, "")]
    bob = [(0, 0.4, ""), (0.4, 0.7, "c"), (0.7, 1.0, "sp")]
    tiers = {"anna - words": WORDS, "anna - phones": anna, "bob - words": WORDS, "bob - phones": bob}
    spans = read_alignment(write(tmp_path / "a.TextGrid", textgrid(tiers))).spans
    assert spans == [Span(0, 0.2, "a"), Span(0.2, 0.4, "b"), Span(0.5, 0.7, "c"), Span(0.7, 1.0, "sil")]


@pytest.mark.parametrize(
    "tiers",
    [
        [("words", WORDS)],
        [("Mary", SAID), ("John", WORDS)],
        [("ORT-MAU", WORDS), ("KAN-MAU", WORDS)],
        [("phones", SAID), ("phonemes", SAID)],
        [("phones", SAID), ("phones", SAID)],
        [("phones", SAID), ("anna - phones", SAID)],
        [("anna - phones", SAID), ("anna - phonemes", SAID)],
        [("phone class", SAID)],
    ],
)
@pytest.mark.parametrize("short", [False, True])
def test_tiers_of_which_none_or_several_are_phones_are_named(
    tiers: list[tuple[str, Intervals]], short: bool, tmp_path: Path
) -> None:
    with pytest.raises(ToolkitError) as caught:
        read_alignment(write(tmp_path / "a.TextGrid", textgrid(tiers, short)))
    for part in (*(f"'{name}'" for name, _ in tiers), "a.TextGrid: not an alignment of phones", "SPEAKER - phones"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "whole", "unit"),
    [
        ("0 0.5 a\n0.5 2 b\n", False, 1.0),
        ("0 1 a\n1 2 b\n", True, 1.0),
        ("0 15000000 sil\n15000000 20000000 b -312.5 word\n", True, 1e-7),
        ("0 16000 h#\n16000 32000 b\n", True, 1 / 16000),
        ("0 1.5 a\n1.5 1.975 b\n", False, 1.0),
        ("0 0.5 a\n0.5 1.9 b\n", False, None),
        ("0 0.5 a\n0.5 2.1 b\n", False, None),
        ("0 1000 a\n1000 2000 b\n", True, None),
        ("0.0 20000000.0 a\n", False, None),
    ],
    ids=["seconds", "whole seconds", "HTK", "TIMIT", "a window less", "short", "long", "milliseconds", "floats"],
)
def test_the_unit_is_that_in_which_an_alignment_ends_where_its_sound_does(
    text: str, whole: bool, unit: float | None, tmp_path: Path
) -> None:
    alignment = read_alignment(write(tmp_path / "a.lab", text))
    assert alignment.whole == whole
    assert seconds_per_unit(alignment.end, alignment.whole, 2.0, 16000) == unit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.lab", ""),
        ("a.lab", "0 1\n"),
        ("a.lab", "zero one a\n"),
        ("a.lab", "1 0 a\n"),
        ("a.lab", "nan nan a\n"),
        ("a.lab", "0 inf a\n"),
        ("a.lab", "-1 1 a\n"),
        ("a.lab", "0 0.5 a\n0.4 1 b\n"),
        ("a.lab", "she had your dark suit\n"),
        ("a.lab", "#!MLF!#\n"),
        ("a.lab", "0 0.1 a b c\n"),
        ("a.TextGrid", ""),
        ("a.TextGrid", textgrid({"phones": SAID})[:-20]),
        ("a.TextGrid", textgrid({"phones": SAID}).replace("size = 3", "size = 1e400")),
        ("a.TextGrid", textgrid({"phones": SAID}).replace("size = 3", "size = 4")),
        ("a.TextGrid", "ooBinaryFile\x08TextGrid"),
        ("a.TextGrid", '"Praat chronological TextGrid text file"\n0 1\n'),
        ("a.TextGrid", "nothing of the kind"),
    ],
)
def test_what_is_no_alignment(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=rf"{name}: not an alignment of phones") as caught:
        read_alignment(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


SOUNDS = {"anna/1.wav": Header(16000, 4800), "anna/2.flac": Header(8000, 4000), "anna/3.wav": Header(16000, 100)}


def labels_of(tmp_path: Path, classes: dict[str, str] | None = None) -> PhoneLabels:
    write(tmp_path / "anna" / "1.lab", "0 0.1 a\n0.1 0.2 b\n0.25 0.3 c\n")
    write(tmp_path / "anna" / "2.TextGrid", TEXTGRID)
    return PhoneLabels(tmp_path, SOUNDS, classes or {})


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


def test_one_alignment_in_every_unit_gives_the_same_labels(tmp_path: Path) -> None:
    times = [(0, 0.1, "a"), (0.1, 0.2, "b"), (0.2, 0.5, "sil")]
    sounds = {f"{name}.wav": Header(16000, 8000) for name in ("s", "htk", "timit", "long", "short")}
    for name, unit, suffix in (("s", 1, "lab"), ("htk", 10**7, "lab"), ("timit", 16000, "PHN")):
        kind = float if unit == 1 else round
        write(tmp_path / f"{name}.{suffix}", "".join(f"{kind(a * unit)} {kind(b * unit)} {c}\n" for a, b, c in times))
    write(tmp_path / "long.TextGrid", textgrid({"phones": times}))
    write(tmp_path / "short.textgrid", textgrid({"phones": times}, short=True))
    labels = PhoneLabels(tmp_path, sounds, {})
    assert labels.failures == {}
    assert {tuple(labels.labels(path, 0.05, 5, 10).tolist()) for path in sounds} == {(1, 2, 2, 2, 3)}


def test_a_textgrid_is_preferred_to_the_transcript_beside_it(tmp_path: Path) -> None:
    for suffix in ("TextGrid", "textgrid", "TEXTGRID"):
        folder = tmp_path / suffix
        write(folder / "a.lab", "hey there you all")
        write(folder / f"a.{suffix}", TEXTGRID)
        assert PhoneLabels(folder, {"a.wav": Header(1000, 500)}, {}).names == ("EY1", "HH", "sil")


def test_a_transcript_alone_is_that_files_fault(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    write(tmp_path / "anna" / "3.lab", "hey there")
    assert "3.lab: not an alignment of phones" in PhoneLabels(tmp_path, SOUNDS, {}).failures["anna/3.wav"]
    assert PhoneLabels(tmp_path, SOUNDS, {}).names == labels.names


def test_alignments_have_the_folder_of_the_split_or_not(tmp_path: Path) -> None:
    write(tmp_path / "anna" / "1.lab", "0 1 a\n")
    write(tmp_path / "test" / "bob" / "1.lab", "0 1 b\n")
    sounds = dict.fromkeys(("train/anna/1.wav", "test/bob/1.wav", "val/1.wav"), Header(1000, 1000))
    files = PhoneLabels(tmp_path, sounds, {}).files
    assert files == {"train/anna/1.wav": "anna/1.lab", "test/bob/1.wav": "test/bob/1.lab"}


def test_folders_without_alignments(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"has the path of a file, such as anna/1.wav"):
        PhoneLabels(tmp_path, SOUNDS, {})


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000])
def test_what_is_no_phone_map(text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"phone_map=.*map.json"):
        read_phone_map(write(tmp_path / "map.json", text))


def test_a_phone_map_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.json")
    with pytest.raises(ToolkitError, match=r"map\.json: a file with a JSON object"):
        read_phone_map(tmp_path / "map.json")
    path = tmp_path / "marked.json"
    path.write_text(json.dumps({"a": "b"}), encoding="utf-8-sig")
    assert read_phone_map(path) == {"a": "b"}


@pytest.mark.parametrize(("rate", "labels"), [(16000, 100), (22050, 50), (11025, 25), (24000, 100), (44100, 100)])
def test_label_rates_divide_the_sample_rate(rate: int, labels: int) -> None:
    assert label_rate(rate) == labels
    assert rate % labels == 0
