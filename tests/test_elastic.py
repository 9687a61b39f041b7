"""Who starts a command again where it was lost, and so has its run continued."""

from __future__ import annotations

import pytest

from toolkit.cli.ranks import torchrun


@pytest.mark.parametrize(
    ("environment", "again"),
    [
        ({}, False),
        ({"TORCHELASTIC_MAX_RESTARTS": "3"}, False),
        (
            {"TORCHELASTIC_MAX_RESTARTS": "3", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "WORLD_SIZE": "2"},
            True,
        ),
        (
            {"TORCHELASTIC_MAX_RESTARTS": "0", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "WORLD_SIZE": "2"},
            False,
        ),
        ({"SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_RESTART_COUNT": "0"}, False),
    ],
)
def test_who_starts_again(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], again: bool) -> None:
    for name in ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT", "RANK", "LOCAL_RANK", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert torchrun.starts_again() is again
