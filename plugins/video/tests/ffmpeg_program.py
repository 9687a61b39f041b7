"""What the program ffmpeg makes of a file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest


def ffmpeg(path: Path, *words: str, shape: tuple[int, ...]) -> np.ndarray:
    """What another program makes of a file's frames."""
    if which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", *words, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    done = subprocess.run([*command, "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(shape)


def shown_by_ffmpeg(path: Path) -> int:
    """How many frames the program shows."""
    if which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    words = ["-v", "error", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    done = subprocess.run(["ffmpeg", *words], capture_output=True, text=True, check=True)
    return sum(not line.startswith("#") for line in done.stdout.splitlines())


def told(path: Path) -> dict[str, Any]:
    if which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    words = ["ffprobe", "-v", "error", "-of", "json", "-select_streams", "v:0", "-show_streams", str(path)]
    (stream,) = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["streams"]
    return dict(stream)


def accurate(path: Path) -> str:
    """The filter that makes ffmpeg's colors exact, with the place of the colors that the file states."""
    place = ":in_h_chr_pos=0" if told(path).get("chroma_location") == "left" else ""
    return f"scale=flags=bicubic+accurate_rnd+full_chroma_int{place}"
