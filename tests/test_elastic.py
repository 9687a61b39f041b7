"""A node that is lost: its agent and the others start again, and the run goes on from its last checkpoint."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_ranks_command import TORCHRUN, WORDS, ended, started, train
from toys import TOY

from toolkit.cli.ranks import torchrun

PLUGIN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, os.environ["TOOLKIT_PLUGIN_PATH"].partition(os.pathsep)[0])
from toy_plugin import ToyDataset, KIND
from toolkit import DataSpec, distributed

class LostDataset(ToyDataset):
    def __init__(self, *, mark: str = "", after: int = 18) -> None:
        self.spec = DataSpec(2, (8, 8), 8, variance=0.3, conditions=(KIND,))
        self.mark, self.left = mark, after

    def example(self, split, index, generator):
        self.left -= split == "train"
        if self.mark and self.left < 0 and distributed.rank() == 1 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().example(split, index, generator)
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    home = tmp_path / "lost"
    home.mkdir()
    (home / "lost_plugin.py").write_text(PLUGIN)
    points = '[project]\nname = "lost"\nversion = "1"\n[project.entry-points."toolkit.dataset"]\n'
    (home / "pyproject.toml").write_text(f'{points}lost = "lost_plugin:LostDataset"\n')
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", f"{TOY}{os.pathsep}{home}")
    some = [word for word in WORDS if not word.startswith("dataset=")]
    return [*some, "dataset=lost", "trainer.checkpoint_every=2", "stage=autoencoder", "trainer.timeout=1"]


@pytest.mark.slow
def test_two_agents_lose_one_and_end_as_if_they_had_not(words: list[str], tmp_path: Path) -> None:
    """Bit for bit what two ranks give that nothing happens to."""
    run, whole, mark = tmp_path / "run", tmp_path / "whole", tmp_path / "mark"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    agent += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "mine", "--max-restarts", "2"]
    both = [started(*words, f"dataset.mark={mark}", f"hydra.run.dir={run}", before=agent) for _ in range(2)]
    ends = [ended(process) for process in both]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert mark.exists()
    assert train(*words, f"hydra.run.dir={whole}", "trainer.ranks=2")[0] == 0
    for name in ("model", "state"):
        one, other = (load_file(path / f"autoencoder/step-00000006/{name}.safetensors") for path in (run, whole))
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.slow
def test_without_restarts_a_run_is_not_continued_by_chance(words: list[str], tmp_path: Path) -> None:
    run = f"hydra.run.dir={tmp_path / 'run'}"
    assert train(*words, run, before=TORCHRUN)[0] == 0
    status, _, err = train(*words, run, before=TORCHRUN)
    assert status != 0
    assert "holds a run" in err


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
