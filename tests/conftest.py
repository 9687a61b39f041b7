from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_plugin import write_plugin
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import SMALL, VQ, plugged_in

from toolkit import registry
from toolkit.runs.folder import Run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """The toy plugin's parts, for all tests of a file."""
    with plugged_in():
        yield


@pytest.fixture(scope="module")
def compositions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The parts of the plugin that is written for compositions."""
    from composing import composing_plugin

    with composing_plugin(tmp_path_factory.mktemp("compose_plugin")):
        yield


@pytest.fixture
def cli_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plugin that is written for commands, which run in an empty one."""
    home = tmp_path / "a plugin"
    write_plugin(home)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv(registry.PLUGIN_PATH, str(home))
    return home


@pytest.fixture
def would_train(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Path]]:
    """What ``train`` would have trained, and where."""
    calls: list[tuple[dict[str, Any], Path]] = []
    fake = types.ModuleType("toolkit.cli.job")
    fake.train_run = lambda config, folder: calls.append((config.values(), folder))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toolkit.cli.job", fake)
    return calls


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both stages, for all files: to look at, and to copy before it is changed."""
    from toolkit.cli.config.compose import compose
    from toolkit.stages.run import train

    folder = tmp_path_factory.mktemp("toy") / "run"
    with plugged_in():
        train(compose([*SMALL, *VQ]).config, folder)
    return folder


@pytest.fixture
def toy_copy(toy_run: Path, tmp_path: Path) -> Run:
    """A copy of it, which is what ``train_toy()`` gives, without training."""
    shutil.copytree(toy_run, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def train_toy(tmp_path: Path) -> Callable[..., Run]:
    """Trains the toy with further words into a folder of the test's."""
    from toolkit.cli.config.compose import compose
    from toolkit.stages.run import train

    def act(*words: str, name: str = "run") -> Run:
        quantizer = [] if any(word.startswith("quantizer=") for word in words) else VQ
        train(compose([*SMALL, *quantizer, *words]).config, tmp_path / name)
        return Run(tmp_path / name)

    return act


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numel = max(self.numel, made.numel())
        return made


@pytest.fixture
def largest() -> Largest:
    """``with largest:`` notes, in ``largest.numel``, the largest tensor that was made."""
    return Largest()
