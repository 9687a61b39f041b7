from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import SMALL, VQ, plugged_in

from toolkit.runs.folder import Run

torch.set_num_threads(1)

LONGEST = (
    "tests/test_hostile_runs.py",
    "tests/test_docs.py",
    "tests/test_resume.py",
    "tests/test_train.py",
    "tests/test_causal.py",
    "tests/test_quantizers.py",
)
"""Files whose tests start first, so that of several processes none is left alone with one of them at the end."""


LONG_LAWS = ("test_it_compiles_whole", "test_it_exports", "test_its_options_refuse_numbers_or_work_with_them")
"""Laws that take seconds each: of a file's classes, and of a package's parts, all but the first check them slowly."""


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)
    first: dict[tuple[Path, str], str] = {}
    for item in items:
        law, suite = getattr(item, "originalname", ""), item.nodeid.split("::", 1)[1]
        suite = suite if "options" in law else suite.split("::")[0]
        if law in LONG_LAWS and first.setdefault((item.path, law), suite) != suite:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """The toy plugin's parts, for all tests of a file."""
    with plugged_in():
        yield


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both stages, for all files: to look at, and to copy before it is changed."""
    from toolkit.cli.config.compose import compose
    from toolkit.stages import train

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
    from toolkit.stages import train

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
