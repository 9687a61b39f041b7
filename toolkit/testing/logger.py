"""The laws of loggers, as tests that a plugin's tests inherit."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch

from toolkit.logger import Logger, Status
from toolkit.testing.laws import Laws

METRICS: dict[str, float] = {"loss": 1.5, "prior/bits": 3, "größe 대": -0.0, "with space": 1e300, "a": nan, "b": inf}
"""By names that are no names of files, and numbers that are not finite."""
CALLS = ("log", "checkpoint", "picture", "validation", "earlier")


class LoggerSuite(Laws, ABC):
    """Subclass it as ``class TestMyLogger(LoggerSuite)`` and build one in ``make``.

    A logger of a service is built with a stand-in for its client.
    """

    config: ClassVar[Mapping[str, Any]] = {"stage": "all", "seed": 0, "quantizer": {"name": "vq", "codebook_size": 16}}
    """A run's configuration, of which a logger that asks for it must get by with any part."""

    @abstractmethod
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        """A new logger of the run in the folder, from those of ``run`` and ``config`` that it asks for."""

    def run(self, folder: Path) -> Path:
        """A run's folder with a picture, an empty checkpoint, and nothing else."""
        from PIL.Image import new  # comes with matplotlib

        run = folder / "run"
        for inside in ("samples", "autoencoder/step-00000002"):
            (run / inside).mkdir(parents=True, exist_ok=True)
        new("RGB", (6, 4), "teal").save(run / "samples" / "autoencoder-00000002.png")
        return run

    def call(self, logger: Logger, run: Path, call: str) -> None:
        """One of ``CALLS``, as training makes them."""
        if call == "picture":
            logger.picture("autoencoder", 2, run / "samples" / "autoencoder-00000002.png")
        elif call == "checkpoint":
            logger.checkpoint("autoencoder", 2, run / "autoencoder" / "step-00000002")
        elif call == "validation":
            logger.log("prior-pixelcnn", "val", 4, {"loss": 2.0})
        else:
            logger.log("autoencoder", "train", 2 if call == "log" else 1, dict(METRICS))

    def test_its_constructor_writes_nothing(self, tmp_path: Path) -> None:
        """The folder may not exist yet, and another part may still be refused."""
        logger = self.make(tmp_path / "run", self.config)
        assert not (tmp_path / "run").exists()
        logger.close("failed")

    @pytest.mark.parametrize(
        "calls",
        [(), CALLS, CALLS[::-1], ("validation", "picture", "picture", "log", "log")],
        ids=["none", "forwards", "backwards", "repeated"],
    )
    def test_calls_come_in_any_order(self, calls: tuple[str, ...], tmp_path: Path) -> None:
        """Also of steps before the last, which a run that is continued takes again."""
        run = self.run(tmp_path)
        logger = self.make(run, self.config)
        for call in calls:
            self.call(logger, run, call)
        logger.close("done")

    @pytest.mark.parametrize("metrics", [{}, *({name: value} for name, value in METRICS.items())], ids=repr)
    def test_metrics_have_any_name_and_value(self, metrics: dict[str, float], tmp_path: Path) -> None:
        run = self.run(tmp_path)
        logger = self.make(run, self.config)
        logger.log("autoencoder", "train", 1, metrics)
        logger.close("done")
        inside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
        assert inside == {"run"}, f"it writes outside of the run's folder: {inside}"

    @pytest.mark.parametrize("status", get_args(Status))
    def test_closing_twice_is_harmless(self, status: Status, tmp_path: Path) -> None:
        run = self.run(tmp_path)
        logger = self.make(run, self.config)
        self.call(logger, run, "log")
        logger.close(status)
        logger.close(status)

    def test_a_run_that_is_continued_has_another_one(self, tmp_path: Path) -> None:
        """Over the same folder, with what the first left there."""
        run = self.run(tmp_path)
        for status in get_args(Status):
            logger = self.make(run, self.config)
            for call in CALLS:
                self.call(logger, run, call)
            logger.close(status)

    def test_what_it_is_given_stays_as_it_is(self, tmp_path: Path) -> None:
        run = self.run(tmp_path)
        config, metrics = {**self.config}, dict(METRICS)
        (picture,) = (run / "samples").iterdir()
        before = picture.read_bytes()
        logger = self.make(run, config)
        logger.log("autoencoder", "train", 1, metrics)
        logger.picture("autoencoder", 2, picture)
        logger.close("done")
        assert config == self.config, "it changes the configuration"
        assert list(metrics.items()) == list(METRICS.items()), "it changes the metrics"
        assert picture.is_file(), "it moves the picture"
        assert picture.read_bytes() == before, "it changes the picture"

    def test_it_draws_no_random_numbers(self, tmp_path: Path) -> None:
        """Training's would be others with it than without."""
        run = self.run(tmp_path)
        states = random.getstate(), torch.get_rng_state()
        logger = self.make(run, self.config)
        for call in CALLS:
            self.call(logger, run, call)
        logger.close("done")
        assert random.getstate() == states[0], "it draws from Python's generator"
        assert torch.equal(torch.get_rng_state(), states[1]), "it draws from torch's generator"

    def test_it_leaves_no_links(self, tmp_path: Path) -> None:
        """A run with links to folders, or out of it, does not open."""
        run = self.run(tmp_path)
        logger = self.make(run, self.config)
        for call in CALLS:
            self.call(logger, run, call)
        logger.close("done")
        assert [path for path in run.rglob("*") if path.is_symlink()] == []
