"""The arguments of every command but train: words to a dataclass, and its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from toolkit.cli.arguments import help_text, parse
from toolkit.errors import ToolkitError


@dataclass(frozen=True)
class Sampling:
    """Samples something."""

    run: str = field(metadata={"help": "a run's folder"})
    n: int = 16
    """How many."""
    temperature: float = 1.0
    top_k: int | None = None
    quick: bool = False
    mode: Literal["a", "b"] = "a"
    metrics: list[str] = field(default_factory=list)
    condition: dict[str, str] = field(default_factory=dict)
    prefix_file: Path | None = field(default=None, metadata={"key": "prefix.file"})
    files: list[Path] = field(default_factory=list)


def test_words_become_a_dataclass(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.png"
    odd.write_text("")
    words = ["run=/my runs/[1]=(x), y", "n=3", "temperature=1e-1", "top_k=", "quick=true", "mode=b", "metrics=[a, b]"]
    more = ["condition.speaker=화자 1, (x)", "condition.class=a=b", "prefix.file=x y.wav", "c d.png", str(odd)]
    made = parse("sample", Sampling, [*words, *more])
    assert made == Sampling(
        run="/my runs/[1]=(x), y",
        n=3,
        temperature=0.1,
        quick=True,
        mode="b",
        metrics=["a", "b"],
        condition={"speaker": "화자 1, (x)", "class": "a=b"},
        prefix_file=Path("x y.wav"),
        files=[Path("c d.png"), odd],
    )
    assert parse("sample", Sampling, ["run=x", "metrics=a", "top_k=3"]) == Sampling("x", metrics=["a"], top_k=3)
    assert parse("sample", Sampling, ["run=x", "metrics=[]"]).metrics == []


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("n=x", "n=x: expects int"),
        ("n=1.5", "n=1.5: expects int"),
        ("top_k=x", "top_k=x: expects int or null"),
        ("temperature=nan", "temperature=nan: expects float"),
        ("n=0", "n=0: must be at least 1"),
        ("n=99999999999999999999", "n=99999999999999999999: must be at most 2147483647"),
        ("top_k=9223372036854775807", "top_k=9223372036854775807: must be at most 2147483647"),
        ("quick=yes", "quick=yes: expects bool"),
        ("mode=c", "mode=c: expects one of a, b"),
        ("temprature=1", "temprature=1: no option temprature (did you mean temperature?)"),
        ("--n=3", "--n=3: no option --n"),
        ("conditon.a=b", "conditon.a=b: no option conditon.a"),
    ],
)
def test_a_wrong_word_is_told(word: str, text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        parse("sample", Sampling, ["run=x", word])
    assert str(error.value).startswith(text)


def test_what_is_required_is_asked_for() -> None:
    with pytest.raises(ToolkitError, match="no run given: add run=PATH"):
        parse("sample", Sampling, ["n=3"])


def test_words_without_a_place_for_files_need_a_value() -> None:
    @dataclass
    class Few:
        """Few."""

        n: int = 1

    with pytest.raises(ToolkitError, match="n: write n=VALUE"):
        parse("few", Few, ["n"])


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("sample", Sampling, ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("toolkit sample run=PATH FILES… [KEY=VALUE …]\n\nSamples something.")
    assert "a run's folder" in out
    assert "n=16" in out
    assert "How many." in out
    assert "condition.KEY=VALUE" in help_text("sample", Sampling)
    assert "prefix.file=" in out
