"""What the tests of loggers train, and the report that they train with."""

from __future__ import annotations

from collections.abc import Mapping

from toys import PIXELCNN, TILES, VQ, trainers

EVERY = ["batch_size=4", "workers=0", "log_every=2", "checkpoint_every=3", "validate_every=3", "pictures_every=3"]
WORDS = [*TILES, *VQ, *PIXELCNN, *trainers("steps=6", *EVERY), "prior_trainer.allow_collapsed=true"]


class Notes:
    """A report that keeps the notes, and raises after a step of a stage."""

    def __init__(self, error: BaseException | None = None, stage: str = "", step: int = 0) -> None:
        self.notes: list[str] = []
        self.error, self.at, self.begun = error, (stage, step), ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self.begun = stage

    def step(self, done: int) -> None:
        if self.error and (self.begun, done) == self.at:
            raise self.error

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
