"""The quick tour does what it says: sprites go where actions say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rollouts import KNOWN, follow, places

import toolkit
from toolkit import Model
from toolkit.__main__ import run
from toolkit_video.sprites import ACTIONS, SpritesDataset


class Perfect(Model):
    """Draws the truth; ``lost`` of the rollouts stand still instead."""

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.given = x
        return torch.zeros(len(x), 1, 3, 1, 1, dtype=torch.int64)

    def sample(self, n, conditions, **rest):  # type: ignore[no-untyped-def, override]
        made = []
        for i, (x, actions) in enumerate(zip(self.given, conditions["action"], strict=True)):
            frames, shift = [x[:, t] for t in range(KNOWN)], torch.zeros(2)
            start = places(x[:, KNOWN - 1 : KNOWN])[0]
            for action in actions[KNOWN:]:
                step = torch.tensor(list(ACTIONS.values()), dtype=torch.float)[action] * (i >= self.lost)
                shift = (start + shift + step).clamp(0, 9) - start
                frames.append(self.moved(x[:, KNOWN - 1], (2 * shift).round().long().tolist()))
            made.append(torch.stack(frames, 1))
        return toolkit.model.Sample(torch.stack(made), torch.zeros(0))

    def moved(self, frame: torch.Tensor, by: list[int]) -> torch.Tensor:
        """What has color, moved over a plain background."""
        sprite = frame.amax(0) - frame.amin(0) > 40
        plain = torch.full_like(frame, 128)
        plain[:, sprite.roll(by, (0, 1))] = frame[:, sprite]
        return plain


@pytest.mark.parametrize("lost", [0, 5])
def test_the_measure_knows_who_follows(lost: int) -> None:
    """Of one clip's five rollouts that all stand still, the one whose action is to stay is right."""
    followed = follow(Perfect(lost), SpritesDataset(), clips=3)
    assert followed.right[1:].all()
    assert followed.right[0, 0]
    assert followed.right[0].all() == (lost == 0)


@pytest.mark.slow
def test_the_sprite_goes_where_the_actions_say(tmp_path: Path) -> None:
    """Ten minutes' training; in nine of ten rollouts of ten frames, at temperature 0.5, the sprite ends where it
    should, and the background stays."""
    assert run(["train", "experiment=video_sprites", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    followed = follow(toolkit.load(tmp_path / "run"), SpritesDataset(), clips=20, temperature=0.5)
    assert followed.right.double().mean() >= 0.9
    assert followed.background.median() < 8
