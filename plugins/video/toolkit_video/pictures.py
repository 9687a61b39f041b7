"""Decoded frames as arrays, in the shape and the colors in which they are shown."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

FORMATS = {1: "gray", 3: "rgb24"}
"""What frames are converted to, by channels."""
ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SHRINKING, KEEPING = Interpolation.AREA | ACCURATE, Interpolation.BICUBIC | ACCURATE
"""Interpolation of pixels: area means restore a frame that was enlarged by a whole factor."""
CENTER = (0.5, 0.5)


class TooSmallError(ValueError):
    """Frames have fewer pixels than are asked for; does not name the file."""


class Converter:
    """Frames to arrays ``(height, width, channels)``, uint8, as they are shown.

    A frame is turned as its display matrix says, and stretched from side to side by ``aspect``, the width of a pixel
    over its height. It is shrunk until it just covers ``size`` (height, width; None: no more than that). What is
    transparent is laid over white.
    """

    def __init__(self, channels: int, size: tuple[int, int] | None, aspect: Fraction = Fraction(1)) -> None:
        self.format, self.channels, self.size, self.aspect = FORMATS[channels], channels, size, aspect
        self.reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        turn = _turn(frame)
        stored = self._stored(frame, exchanged=turn[0])
        larger = stored[0] > frame.height or stored[1] > frame.width
        how = KEEPING if larger or stored == (frame.height, frame.width) else SHRINKING
        converted = self.reformatter.reformat(
            _on_white(frame), width=stored[1], height=stored[0], format=self.format, interpolation=how
        )
        return _turned(converted.to_ndarray().reshape(*stored, self.channels), turn)

    def _stored(self, frame: VideoFrame, exchanged: bool) -> tuple[int, int]:
        """Height and width that a frame is brought to before it is turned."""
        across = max(1, round(frame.width * self.aspect))
        height, width = (across, frame.height) if exchanged else (frame.height, across)
        wanted = self.size or (height, width)
        if height < wanted[0] or width < wanted[1]:
            raise TooSmallError(
                f"the frames are {width} x {height} (width x height), "
                f"smaller than the required {wanted[1]} x {wanted[0]}"
            )
        scale = max(wanted[0] / height, wanted[1] / width)
        cover = (max(wanted[0], round(height * scale)), max(wanted[1], round(width * scale)))
        return cover[::-1] if exchanged else cover


def crop(frames: np.ndarray, size: tuple[int, int], centering: tuple[float, float] = CENTER) -> np.ndarray:
    """A window of every frame ``(n, *size, channels)``; ``centering`` places it, from (0, 0), left and top, to (1, 1),
    right and bottom."""
    height, width = size
    left = round((frames.shape[2] - width) * centering[0])
    top = round((frames.shape[1] - height) * centering[1])
    return frames[:, top : top + height, left : left + width]


def _on_white(frame: VideoFrame) -> VideoFrame:
    """The frame itself, or one without transparency."""
    if not frame.format.has_palette and not any(component.is_alpha for component in frame.format.components):
        return frame
    pixels = frame.reformat(format="rgba", interpolation=KEEPING).to_ndarray().astype(np.uint16)
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.min() == 255:
        return frame
    blended = (colors * alpha + 255 * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(blended.astype(np.uint8), format="rgb24")


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether a frame is shown transposed, and then mirrored from right to left, and from bottom to top."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(cast("bytes", matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    exchanged = abs(a) < abs(b)
    return (True, c < 0, b < 0) if exchanged else (False, a < 0, d < 0)


def _turned(pixels: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    exchanged, mirrored, upturned = turn
    if exchanged:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if upturned else 1, :: -1 if mirrored else 1]
