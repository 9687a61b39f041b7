"""How many processes load data: by the cores there are, and by how much there is to load."""

from __future__ import annotations

import pytest
import torch

from toolkit import workers
from toolkit.workers import default_workers

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(workers, "cores", lambda: 16)
    return monkeypatch


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 2), (3, 3), (4, 4), (64, 4)])
def test_no_more_than_there_are_cores(machine: pytest.MonkeyPatch, cores: int, processes: int) -> None:
    machine.setattr(workers, "cores", lambda: cores)
    assert default_workers(GPU) == processes
    assert default_workers(CPU) == 0


@pytest.mark.parametrize(("ranks", "processes"), [(1, 4), (4, 4), (8, 2), (16, 1), (32, 0)])
def test_the_ranks_of_a_machine_share_its_cores(machine: pytest.MonkeyPatch, ranks: int, processes: int) -> None:
    machine.setattr(workers, "local_ranks", lambda: ranks)
    assert default_workers(GPU) == processes


@pytest.mark.parametrize(("batches", "processes"), [(0, 0), (1, 0), (7, 0), (8, 1), (20, 2), (1000, 4), (None, 4)])
@pytest.mark.usefixtures("machine")
def test_none_for_a_handful(batches: int | None, processes: int) -> None:
    assert default_workers(GPU, batches) == processes


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_torch_finds_them_reasonable(device: str) -> None:
    """On this machine, whatever it has: more of them than torch suggests would be a warning, which is an error."""
    loader = torch.utils.data.DataLoader(range(8), num_workers=default_workers(torch.device(device)))  # type: ignore[arg-type]
    loader.check_worker_number_rationality()


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert workers.cores() == 2
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert workers.cores() == 1
