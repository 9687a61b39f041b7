"""Words as a person types them: plain text arrives as it is written."""

from __future__ import annotations

from typing import Any

import pytest
from composing import small

from toolkit.cli.config.quote import prepare

pytestmark = pytest.mark.usefixtures("compositions")

TEXTS = [
    "/my data/new folder",
    "a[b]",
    "a,b",
    "a=b=c",
    "화자1",
    "/데이터 (새)",
    "{x}",
    "it's",
    'say "hi"',
    "back\\slash\\",
    "\\'",
    "007",
    "1e3",
    "true",
    "  spaced  ",
    "a:b #c",
    "*?!",
    "~/x",
    "$x",
    "choice(a,b)",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.few(3)
def test_text_arrives_as_it_is_written(text: str) -> None:
    keys = ("dataset.root", "dataset.label", "metric.c_met.path", "init")
    config: Any = small(*(f"{key}={text}" for key in keys)).values
    arrived = [config["dataset"]["root"], config["dataset"]["label"], config["metric"]["c_met"]["path"], config["init"]]
    assert arrived == [text] * len(keys)


def test_null_and_nothing_are_not_text_where_an_option_may_be_null() -> None:
    assert small("dataset.label=null").values["dataset"]["label"] is None
    assert small("dataset.label=").values["dataset"]["label"] == ""
    assert small("dataset.root=null").values["dataset"]["root"] == "null"


def test_a_persons_own_quotes_and_interpolations_are_kept() -> None:
    assert small("dataset.root='a,b'").values["dataset"]["root"] == "a,b"
    assert small("dataset.root=x${dim}").values["dataset"]["root"] == "x8"


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("dataset.root=/a b,/c", "dataset.root='/a b','/c'"),
        ("dataset.root='/a,b',/c", "dataset.root='/a,b','/c'"),
        ("dataset.root=choice(a,b)", "dataset.root=choice(a,b)"),
        ("encoder.hidden=1,2", "encoder.hidden=1,2"),
        ("quantizer.inner.name=a,b", "quantizer/inner=a,b"),
        ("quantizer.inner=a,b", "quantizer/inner=a,b"),
        ("quantizer.inner={name: a}", "quantizer.inner={name: a}"),
    ],
)
def test_in_a_sweep_a_comma_separates_unless_quoted(word: str, made: str) -> None:
    assert prepare([word], multirun=True) == [made]


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("hydra.job.name=x", "hydra.job.name=x"),
        ("hydra.run.dir=a b", "hydra.run.dir='a b'"),
        ("likelihood=null", "~likelihood"),
        ("encoder.name=c_enc", "encoder=c_enc"),
        ("encoder.hidden=3", "encoder.hidden=3"),
    ],
)
def test_only_what_needs_it_is_rewritten(word: str, made: str) -> None:
    assert prepare([word]) == [made]
