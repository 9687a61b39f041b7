"""The benchmark of watching: what it starts, it ends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import watched


def test_its_client_ends_where_a_turn_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that asks on would keep the process."""
    watch = watched.Watched.__new__(watched.Watched)  # without a server
    watch.state, watch.pages, answers = "", 0, iter(map(str, range(1000)))
    monkeypatch.setattr(watched, "EVERY", 0.002)
    monkeypatch.setattr(watch, "_asked", lambda path: next(answers))
    before = threading.active_count()
    with pytest.raises(ValueError, match="a turn"), watch.open():
        raise ValueError("a turn")
    assert threading.active_count() == before
