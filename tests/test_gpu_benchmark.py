"""The measurements for a GPU: they run dry without one, and a part that fails or hangs costs itself alone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks.gpu import __main__ as gpu  # noqa: E402
from benchmarks.gpu import card, cases  # noqa: E402
from benchmarks.gpu import part as part_of  # noqa: E402
from benchmarks.gpu.parts import BUDGETS, PARTS, Part  # noqa: E402
from benchmarks.gpu.rows import Judged, NotThereError, Rows, without_paths  # noqa: E402
from benchmarks.gpu.setting import Setting  # noqa: E402


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(torch.device("cpu"), dry=True, scratch=tmp_path, seconds=60)


def test_every_part_is_a_module_and_fits_into_its_half() -> None:
    for part in PARTS:
        assert callable(import_module(f"benchmarks.gpu.{part.name}").run)
    for half, seconds in BUDGETS.items():
        assert sum(part.seconds for part in PARTS if part.half == half) <= seconds
    assert sum(BUDGETS.values()) <= 12 * 60


def test_a_check_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.json")

    def missing() -> None:
        raise NotThereError("trainer.wings=true")

    rows.check("breaks", lambda: 1 / 0)
    rows.check("is not there", missing)
    rows.check("is judged", lambda: Judged(False, 3))
    rows.check("is well", lambda: {"a": 1})
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [row["ok"] for row in written] == [False, None, False, True]
    found = ["ZeroDivisionError: division by zero", "not there: trainer.wings=true", 3, {"a": 1}]
    assert [row["found"] for row in written] == found


def test_options_that_are_not_there_yet_are_said_to_be_not_there() -> None:
    for word in ("trainer.wings=true", "trainer.precision=fp2", "prior_trainer.data_on_device=maybe"):
        with pytest.raises(NotThereError, match=word):
            cases.composed(["experiment=image_cifar10_notebook", word])
    config = cases.composed(["experiment=image_cifar10_notebook", "trainer.data_on_device=true"])
    assert config.trainer.data_on_device is True


def test_the_card_is_measured_in_a_process_of_its_own_or_here(tmp_path: Path, setting: Setting) -> None:
    assert part_of.main(["card", f"--out={tmp_path / 'rows.json'}", "--dry"]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 5
    assert all(row["ok"] and row["found"] >= 0 for row in rows)
    assert card.product("bf16", setting) > 0
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            part_of.main(["card", f"--out={tmp_path / 'rows.json'}"])


class Process:
    """One that ends with ``rc``, or never."""

    def __init__(self, rc: int | None) -> None:
        self.rc, self.pid = rc, -1

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait(self, timeout: float) -> int:
        if self.rc is None:
            raise subprocess.TimeoutExpired("part", timeout)
        return self.rc


def test_a_part_that_hangs_or_dies_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {"machine": 0, "card": None, "waits": -9, "codes": 0}

    def start(command: list[str], **_: Any) -> Process:
        name = command[3]
        row = {"check": name, "ok": True, "found": {"name": "card-9000", "device": "Card 9000"}, "seconds": 0}
        if name != "waits":
            (tmp_path / f"{name}.json").write_text(json.dumps([row]))
        return Process(ends[name])

    monkeypatch.setattr(gpu.subprocess, "Popen", start)
    monkeypatch.setattr(gpu.os, "killpg", lambda *_: None)
    parts = [Part(name, 5, 1, "") for name in ("card", "waits", "codes")]
    args = SimpleNamespace(dry=False, data=None, name=None)
    saved: list[int] = []
    results = gpu.measure(parts, args, tmp_path, 100.0, lambda so_far: saved.append(len(so_far["parts"])))  # type: ignore[arg-type]
    assert saved == [1, 2, 3]
    assert results["name"] == "card-9000"
    assert results["device"] == "Card 9000"
    assert [(part["rc"], len(part["rows"])) for part in results["parts"]] == [(None, 1), (-9, 0), (0, 1)]
    results = gpu.measure(parts, args, tmp_path, 1.0, saved.append)  # type: ignore[arg-type]
    assert [part["why"] for part in results["parts"]] == ["no time was left"] * 3


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], [part.name for part in PARTS]),
        (["--first"], [part.name for part in PARTS if part.half == 1]),
        (["--second"], ["speed", "kernels", "whole"]),
        (["--only", "speed,card"], ["card", "speed"]),
    ],
)
def test_which_parts_run(words: list[str], names: list[str]) -> None:
    args = gpu._arguments(words)
    assert [part.name for part in PARTS if gpu._is_chosen(part, args)] == names


def test_results_name_no_path() -> None:
    value = {"a": ["see /tmp/x/y.json: gone", "'/root/.cache' and (~/data)"], "b": 1.5, "c": "images/s, 1/2"}
    assert without_paths(value) == {"a": ["see … gone", "'…' and (…)"], "b": 1.5, "c": "images/s, 1/2"}


@pytest.mark.slow
def test_a_dry_run_of_all_parts(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--dry", f"--out={tmp_path}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "gpu-dry.json").read_text())
    assert [part["part"] for part in results["parts"]] == [part.name for part in PARTS]
    assert all(part["rows"] and part["rc"] == 0 for part in results["parts"])
    assert results["dry"]
