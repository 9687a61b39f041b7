"""The procedural sprites."""

from __future__ import annotations

import pytest
import torch
from rollouts import places as places_of

from toolkit import Dataset
from toolkit.testing.dataset import DatasetSuite
from toolkit_video.sprites import ACTIONS, PLACES, VARIANCE, SpritesDataset


class TestSpritesDataset(DatasetSuite):
    lossless = False

    def make(self) -> Dataset:
        return SpritesDataset(size=16, frames=5)


@pytest.mark.parametrize("size", [24, 48])
def test_the_sprite_goes_where_actions_say(size: int) -> None:
    dataset = SpritesDataset(size=size)
    steps = torch.tensor(list(ACTIONS.values()))
    for index in range(20):
        example = dataset.example("train", index, None)
        places = places_of(example["x"])
        assert (places > -0.1).all()
        assert (places < PLACES - 0.9).all()
        expected = (places[:-1] + steps[example["action"][1:]]).clamp(0, PLACES - 1)
        torch.testing.assert_close(places[1:], expected, atol=0.1, rtol=0)


def test_the_background_stays() -> None:
    x = SpritesDataset().example("train", 3, None)["x"]
    covered = (x.amax(0) - x.amin(0)) > 60
    near = torch.nn.functional.max_pool2d(covered.float().unsqueeze(1), 5, 1, 2)[:, 0].bool()
    frames = x.float().masked_fill(near, torch.nan)
    middle = frames.nanmedian(1, keepdim=True).values
    assert (frames - middle).abs().nan_to_num(0).max() == 0


def test_longer_clips_go_on_where_shorter_ones_end() -> None:
    short, long = (SpritesDataset(frames=frames).example("val", 5, None) for frames in (6, 16))
    assert torch.equal(long["x"][:, :6], short["x"])
    assert torch.equal(long["action"][:6], short["action"])


def test_all_actions_occur() -> None:
    dataset = SpritesDataset()
    actions = torch.stack([dataset.example("train", i, None)["action"] for i in range(200)])
    shares = actions.flatten().bincount(minlength=len(ACTIONS)) / actions.numel()
    assert (shares > 0.12).all()


@pytest.mark.long
def test_the_variance_is_measured() -> None:
    for size in (24, 48):
        dataset = SpritesDataset(size=size)
        x = torch.stack([dataset.example("train", i, None)["x"] for i in range(300)])
        assert float(dataset.spec.scale(x).var()) == pytest.approx(VARIANCE, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size=8: sprites need at least 12 pixels"),
        ({"frames": 0}, "frames=0: a clip needs at least one frame"),
        ({"val_size": 0}, "val_size=0: a split needs at least one example"),
    ],
)
def test_mistakes(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpritesDataset(**options)
