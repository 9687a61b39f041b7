"""Where sprites go in clips that a prior goes on with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from toolkit import Model
from toolkit_video.sprites import ACTIONS, PLACES, SpritesDataset, walk

KNOWN, FRAMES = 6, 16
"""Frames of a clip that are given, and that there are in the end."""
COLORED = 60
"""Levels between the largest and the least channel, from which on a pixel is the sprite's."""


class Followed(NamedTuple):
    """What became of the rollouts: one for each clip and action."""

    right: Tensor
    """Whether the sprite ends where the action leads, to within a step, ``(clips, actions)`` bool."""
    farthest: Tensor
    """How far it is off at most in any frame, in steps: ``(clips, actions)``."""
    background: Tensor
    """Mean difference, in levels, of the last frame from the first where no sprite is: ``(clips, actions)``."""


def centres(x: Tensor) -> Tensor:
    """Where the sprite of a clip ``(3, frames, size, size)`` stands: ``(frames, 2)``, down and right, in pixels.

    It is what has color, over a background that has next to none; nan where there is none.
    """
    color = (x.float().amax(0) - x.float().amin(0) - COLORED).clamp(min=0)
    middles = torch.arange(color.shape[1]) + 0.5
    return (
        torch.stack([(color.sum(2) * middles).sum(1), (color.sum(1) * middles).sum(1)], 1) / color.sum((1, 2))[:, None]
    )


def places(x: Tensor) -> Tensor:
    """The same in the dataset's places, 0 to 9."""
    return centres(x) * (PLACES + 2) / x.shape[2] - 1.5


def follow(model: Model, dataset: SpritesDataset, clips: int, seed: int = 0, temperature: float = 1.0) -> Followed:
    """Goes on from the first frames of test clips, with each of the actions in turn all the way."""
    examples = [dataset.example("test", i, None) for i in range(clips) for _ in ACTIONS]
    truth = torch.stack([example["x"] for example in examples])
    actions = torch.stack([example["action"] for example in examples])
    actions[:, KNOWN:] = torch.arange(len(ACTIONS)).repeat(clips)[:, None]
    prefix = model.encode(truth[:, :, :KNOWN]).flatten(2)
    known = {"action": actions}
    made = model.sample(len(truth), known, seed=seed, temperature=temperature, prefix=prefix, length=FRAMES).x
    off, still = [], []
    for x, clip, moves in zip(truth, made, actions, strict=True):
        start = places(x[:, KNOWN - 1 : KNOWN])[0].round().long().numpy()
        expected = torch.from_numpy(np.stack(walk(start, moves[KNOWN:].numpy())))
        off.append((places(clip[:, KNOWN:]) - expected).abs().amax(1).nan_to_num(torch.inf))
        still.append(_change(clip))
    distance = torch.stack(off).unflatten(0, (clips, -1))
    return Followed(distance[..., -1] <= 1, distance.amax(2), torch.stack(still).view(clips, -1))


def _change(clip: Tensor) -> Tensor:
    """Of the last frame from the first, where neither shows the sprite or its border."""
    ends = clip[:, [0, -1]].float()
    colored = (ends.amax(0) - ends.amin(0) > COLORED // 2).float()
    near = torch.nn.functional.max_pool2d(colored.unsqueeze(1), 5, 1, 2)[:, 0].amax(0).bool()
    return (ends[:, 1] - ends[:, 0]).abs().mean(0)[~near].mean()
