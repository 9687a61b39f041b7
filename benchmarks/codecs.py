"""How fast the networks of published codecs are, beside those of transformers with the same weights.

    python benchmarks/codecs.py [--seconds 1] [--repeats 5] [--out results.json]

Needs the audio plugin, and transformers. Weights are random, and adopted. A row is a second of sound through the
encoder, its latents through the codebooks, or its codes to sound; both contestants take turns in one process, and the
ratio is that of medians: above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.dac.configuration_dac import DacConfig
from transformers.models.dac.modeling_dac import DacModel
from transformers.models.encodec.configuration_encodec import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecModel

import toolkit
from toolkit.adopting.adopt import family_of, hold
from toolkit.autoencoder import Autoencoder
from toolkit.cli.adopting import compose_open

STEREO = {
    "audio_channels": 2,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "sampling_rate": 48000,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}
MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "encodec 24 kHz": ("encodec", lambda: EncodecModel(EncodecConfig())),
    "encodec 48 kHz": ("encodec", lambda: EncodecModel(EncodecConfig(**STEREO))),
    "dac 44.1 kHz": ("dac", lambda: DacModel(DacConfig(sampling_rate=44100))),
}


def ours_of(family: str, theirs: Any) -> Autoencoder:
    """The same model in parts of ours."""
    tensors = theirs.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    settings = theirs.config.to_dict()
    return hold(family_of(family), settings, shapes, lambda _: tensors, compose_open, family).stage.model.eval()


def calls(theirs: Any, ours: Autoencoder, x: Tensor) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What both do of a row, ours first."""
    z, codes = ours.encode(x), ours.quantize(x).codes
    if isinstance(theirs, EncodecModel):
        bandwidth = theirs.config.target_bandwidths[-1]
        return {
            "encoder": (lambda: ours.encode(x), lambda: theirs.encoder(x)),
            "quantizer": (lambda: ours.quantizer(z), lambda: theirs.quantizer.encode(z, bandwidth)),
            "codes to sound": (
                lambda: ours.decode(ours.embed(codes), {}).mean,
                lambda: theirs.decoder(theirs.quantizer.decode(codes.transpose(0, 1))),
            ),
        }
    return {
        "encoder": (lambda: ours.encode(x), lambda: theirs.encoder(x)),
        "quantizer": (lambda: ours.quantizer(z), lambda: theirs.quantizer(z)),
        "codes to sound": (
            lambda: ours.decode(ours.embed(codes), {}).mean,
            lambda: theirs.decode(audio_codes=codes, return_dict=False)[0],
        ),
    }


def seconds(call: Callable[[], Any]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


@torch.no_grad()
def measured(name: str, length: float, repeats: int) -> list[dict[str, Any]]:
    """A row for each part."""
    torch.manual_seed(0)
    family, make = MODELS[name]
    theirs = make().eval()
    for module in theirs.modules():
        if name.startswith("encodec") and isinstance(getattr(module, "embed", None), Tensor):
            nn.init.normal_(module.embed)
    ours = ours_of(family, theirs)
    positions = ours.data.axes[0]
    unit = positions // ours.grid[0]
    x = torch.randn(1, ours.data.channels, max(1, round(length * positions / unit)) * unit) / 3
    rows = []
    for what, pair in calls(theirs, ours, x).items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(repeats + 1):
            for taken, call in zip(times, pair, strict=True):
                once = seconds(call)
                taken += [once] if turn else []  # the first turn warms up
        own, other = (median(taken) for taken in times)
        rows.append({"model": name, "what": what, "ours": own, "transformers": other, "ratio": other / own})
        print(f"{name:16} {what}: ours {own:.3f} s, transformers {other:.3f} s, ratio {other / own:.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of sound")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [row for name in options.only for row in measured(name, options.seconds, options.repeats)]
    if options.out:
        versions = {"torch": torch.__version__, "toolkit": toolkit.__version__}
        machine = {"date": date.today().isoformat(), "machine": platform.machine(), "threads": torch.get_num_threads()}
        options.out.write_text(json.dumps({**machine, **versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
