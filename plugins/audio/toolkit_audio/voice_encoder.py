"""A network that hears whose voice a sound is."""

from __future__ import annotations

from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import Self, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import ToolkitError

RATE, WINDOW, HOP, BANDS = 16000, 400, 160, 40
"""Samples per second, of a window and between windows; mel bands."""
PART, STEP = 160, 77
"""Windows that are heard at once, 1.6 seconds, and from one such part to the next: 1.3 parts a second."""
LEAST = 0.75
"""How much of a last part there must be for it to count."""
QUIET = 10 ** (-30 / 20)
"""Root mean square up to which quieter sounds are made louder."""
WIDTH, LAYERS = 256, 3


@final
class VoiceEncoder(nn.Module):
    """A recurrent network trained to tell speakers apart by a generalized end-to-end loss (Wan et al. 2018,
    arXiv:1710.10467), by the weights and on the scale of the package Resemblyzer: its embedding of an utterance, but
    that silences are not cut out first."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("filters", auditory_filters(BANDS, WINDOW, RATE), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @classmethod
    def load(cls, path: str | None = None) -> Self:
        """Frozen, from a file, by default the package's. ToolkitError where that is not there or is none of its."""
        file, generator = _file(path), torch.get_rng_state()
        network = cls()
        torch.set_rng_state(generator)  # what is loaded takes no random number
        try:
            stored = torch.load(file, map_location="cpu", weights_only=True)
            tensors = stored.get("model_state", stored)
            own = {name: tensors[name].float() for name in network.state_dict()}
            network.load_state_dict(own, assign=True)
        except Exception as e:  # whatever a file makes of its reader
            reason = str(e).strip().splitlines()[-1] if str(e).strip() else type(e).__name__
            raise ToolkitError(f"{file} does not hold the weights of Resemblyzer's voice encoder: {reason}") from e
        return network.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms ``(batch, samples)`` at 16 000 samples per second, in [-1, 1], to embeddings of norm 1, whose
        cosine is how alike two voices are, ``(batch, 256)``."""
        loudness = waveform.square().mean(1, keepdim=True).sqrt()
        waveform = waveform * (QUIET / loudness.clamp(min=1e-9)).clamp(min=1)
        starts = _starts(waveform.shape[1])
        waveform = F.pad(waveform, (0, max(0, (starts[-1] + PART) * HOP - waveform.shape[1])))
        mel = self._mel(waveform)
        parts = torch.stack([mel[:, start : start + PART] for start in starts], 1)
        _, (hidden, _) = self.lstm(parts.flatten(0, 1))
        heard = F.normalize(self.linear(hidden[-1]).relu(), dim=1)
        voices: Tensor = F.normalize(heard.unflatten(0, parts.shape[:2]).mean(1), dim=1)
        return voices

    def _mel(self, waveform: Tensor) -> Tensor:
        """The power of mel bands ``(batch, windows, bands)``."""
        window, filters = cast(Tensor, self.window), cast(Tensor, self.filters)
        padded = F.pad(waveform, (WINDOW // 2, WINDOW // 2))
        spectrum = torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True)
        return spectrum.abs().square().mT @ filters


def auditory_filters(bands: int, size: int, rate: int) -> Tensor:
    """``(size // 2 + 1, bands)``: triangles of unit area, evenly spaced on Slaney's mel scale (1998, Auditory Toolbox),
    which is linear up to 1000 Hz and logarithmic above, from 0 to rate / 2."""
    step = log(6.4) / 27  # of the logarithm, for a mel
    top = 15 + log(rate / 2 / 1000) / step
    mels = torch.linspace(0, top, bands + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * ((mels - 15) * step).exp())
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (edges[2:] - edges[:-2])).float()


def _starts(samples: int) -> list[int]:
    """The windows at which the parts of a sound begin."""
    windows = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, windows - PART + STEP + 1), STEP))
    covered = (samples / HOP - starts[-1]) / PART
    return starts[:-1] if covered < LEAST and len(starts) > 1 else starts


def _file(given: str | None) -> Path:
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise ToolkitError(f"weights={given}: there is no such file; give Resemblyzer's pretrained.pt")
        return path
    spec = find_spec("resemblyzer")  # which is not imported: it needs more than its weights do
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "pretrained.pt").is_file():
            return Path(place) / "pretrained.pt"
    raise ToolkitError(
        "metric=audio_speaker reads its weights from the package Resemblyzer:"
        " pip install --no-deps resemblyzer, or give weights=PATH of its pretrained.pt"
    )
