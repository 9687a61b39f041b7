"""Recordings of walks through a first-person maze, for ``video_actions``.

    python -m toolkit_video.maze FOLDER [--sequences 20] [--frames 100] [--seed 0]

The nearest free stand-in for the DeepMind Lab mazes of van den Oord et al. 2017, sections 4.2 and 4.4: ViZDoom's map
"my way home" (Kempka et al. 2016, arXiv:1605.02097), rooms and corridors with different walls, in frames of 84 x 84
pixels. A walk begins at a random place and direction. From frame to frame the action is kept with probability 0.75,
else sampled again. It lasts four tics of the game, of which there are 35 a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from PIL import Image

from toolkit import ToolkitError
from toolkit_video.actions import NAMES

ACTIONS = {"forward": ("MOVE_FORWARD",), "left": ("TURN_LEFT",), "right": ("TURN_RIGHT",)}
"""Names, and the buttons that they press."""
CHANCES = (0.6, 0.2, 0.2)
"""Of each action, when one is sampled."""
KEPT = 0.75
"""Probability that an action is kept, not sampled again."""
TICS, TICS_PER_SECOND = 4, 35
"""Of an action, and of the game."""
SIZE = 84
"""Pixels of a frame's height and width."""


def record(folder: Path, sequences: int, frames: int, seed: int) -> None:
    """``sequences`` videos of ``frames`` frames, each with the action that led to every frame.

    The k-th is a function of (seed, k). ToolkitError if the folder is not empty, or vizdoom is missing.
    """
    folder = folder.absolute()
    if sequences < 1 or frames < 1:
        raise ToolkitError(f"{sequences} sequences of {frames} frames: at least one of each")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ToolkitError(f"{folder}: exists already; name a folder that is new or empty")
    with _game() as (game, buttons):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAMES).write_text("".join(f"{name}\n" for name in ACTIONS), encoding="utf-8")
        for number in range(sequences):
            names, seen = _walk(game, buttons, frames, [seed, number])
            stem, temporary = f"{number:05d}", folder / f".{number:05d}.mp4"
            (folder / f"{stem}.csv").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            _save(temporary, seen)
            temporary.replace(folder / f"{stem}.mp4")


def sticky(generator: np.random.Generator, length: int) -> list[str]:
    """Names of actions, each kept for a while."""
    names: list[str] = []
    for _ in range(length):
        kept = names and generator.random() < KEPT
        names.append(names[-1] if kept else str(generator.choice(list(ACTIONS), p=CHANCES)))
    return names


def _walk(game: Any, buttons: list[str], frames: int, seed: list[int]) -> tuple[list[str], np.ndarray]:
    """Actions, and the frames ``(frames, 84, 84, 3)`` that they lead to; a walk that ends early is repeated."""
    generator = np.random.default_rng(seed)
    while True:
        game.set_seed(int(generator.integers(1 << 31)))
        game.new_episode()
        names, seen = sticky(generator, frames), []
        for name in names:
            game.make_action([button in ACTIONS[name] for button in buttons], TICS)
            if game.is_episode_finished():  # the walker has found the way out
                break
            seen.append(_square(game.get_state().screen_buffer))
        if len(seen) == frames:
            return names, np.stack(seen)


def _square(pixels: np.ndarray) -> np.ndarray:
    """The middle of a screen, shrunk."""
    height, width = pixels.shape[:2]
    left = (width - height) // 2
    image = Image.fromarray(pixels[:, left : left + height])
    return np.array(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _save(path: Path, frames: np.ndarray) -> None:
    """A lossless MP4 file: H.264 in RGB."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(TICS_PER_SECOND, TICS))
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "rgb24"
        stream.options = {"qp": "0", "g": "16"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@contextmanager
def _game() -> Iterator[tuple[Any, list[str]]]:
    """The game, and its buttons in their order."""
    try:
        vizdoom = import_module("vizdoom")
    except ImportError as error:
        raise ToolkitError(
            f"recording a maze needs vizdoom: pip install 'discrete-toolkit-video[vizdoom]' ({error})"
        ) from error
    buttons = sorted({button for pressed in ACTIONS.values() for button in pressed})
    game = vizdoom.DoomGame()
    game.set_doom_scenario_path(str(Path(vizdoom.scenarios_path) / "my_way_home.wad"))
    game.set_available_buttons([getattr(vizdoom.Button, button) for button in buttons])
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    for hide in ("hud", "weapon", "crosshair", "decals", "particles", "messages"):
        getattr(game, f"set_render_{hide}")(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_episode_start_time(10)  # the weapon is drawn by then
    game.set_episode_timeout(0)
    with TemporaryDirectory() as folder, chdir(folder):  # the game writes its settings there
        game.init()
        try:
            yield game, buttons
        finally:
            game.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit_video.maze", description="Record walks through a maze.")
    parser.add_argument("folder", type=Path, help="where the recordings go, new or empty")
    parser.add_argument("--sequences", type=int, default=20, help="how many walks (%(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed records the same walks (%(default)s)")
    options = parser.parse_args()
    try:
        record(options.folder, options.sequences, options.frames, options.seed)
    except ToolkitError as error:
        print(f"toolkit_video.maze: {error}", file=sys.stderr)
        return 2
    print(f"{options.folder}: {options.sequences} walks; dataset=video_actions dataset.root={options.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
