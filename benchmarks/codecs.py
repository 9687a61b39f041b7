"""How fast the networks of published codecs are, beside independent ones with the same weights.

    python benchmarks/codecs.py [--only encodec mimi …] [--seconds 1] [--rounds 9] [--threads 1] [--out results.json]

Needs the audio plugin, and transformers or snac. Weights are random, and adopted. A row is a second of sound through
the encoder, its latents through the codebooks, or its codes to sound. Contestants take turns in one process, every
other round backwards; it is the time of the process that counts, and a ratio is the median over rounds of the other's
time over ours in the same round: above 1 ours is faster.

Through the codebooks ours also gives the losses and figures that a validation reports; of EnCodec and Mimi the other
gives codes alone. SNAC's authors' decoder draws noise, ours has it in training only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

# Threads that wait for one another would be counted as if they worked.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

import toolkit
from toolkit.adopting.adopt import family_of, hold
from toolkit.autoencoder import Autoencoder
from toolkit.cli.adopting import compose_open


class Contestant(NamedTuple):
    """Another's model, and what it does."""

    settings: Mapping[str, Any]
    model: nn.Module
    encode: Callable[[Tensor], Any]
    """Sound to latents."""
    quantize: Callable[[Tensor], Any]
    decode: Callable[[Tensor], Any]
    """Our codes to sound."""


def encodec(**settings: Any) -> Contestant:
    from transformers.models.encodec.configuration_encodec import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecModel

    model = EncodecModel(EncodecConfig(**settings)).eval()
    for layer in model.quantizer.layers:
        nn.init.normal_(layer.codebook.embed)
    bandwidth = model.config.target_bandwidths[-1]
    return Contestant(
        model.config.to_dict(),
        model,
        model.encoder,
        lambda z: model.quantizer.encode(z, bandwidth),
        lambda codes: model.decoder(model.quantizer.decode(codes.transpose(0, 1))),
    )


def dac(**settings: Any) -> Contestant:
    from transformers.models.dac.configuration_dac import DacConfig
    from transformers.models.dac.modeling_dac import DacModel

    model = DacModel(DacConfig(**settings)).eval()
    return Contestant(
        model.config.to_dict(),
        model,
        model.encoder,
        model.quantizer,
        lambda codes: model.decode(audio_codes=codes, return_dict=False),
    )


def mimi() -> Contestant:
    from transformers.models.mimi.configuration_mimi import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiModel

    model = MimiModel(MimiConfig()).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            nn.init.normal_(buffer)
    return Contestant(
        model.config.to_dict(),
        model,
        model.encoder,
        model.quantizer.encode,
        model.decode,
    )


def snac(**settings: Any) -> Contestant:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's
        from snac import SNAC

    model = SNAC(**settings).eval()
    strides = settings["vq_strides"]
    shares = [strides[0] // stride for stride in strides]

    def decode(codes: Tensor) -> Tensor:
        unit = codes.shape[2] // sum(shares)
        x: Tensor = model.decode(list(codes.squeeze(1).split([unit * share for share in shares], 1)))
        return x

    return Contestant(settings, model, model.encoder, model.quantizer, decode)


STEREO: Mapping[str, Any] = {
    "audio_channels": 2,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "sampling_rate": 48000,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}
SNAC_24: Mapping[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
SNAC_44: Mapping[str, Any] = {
    **SNAC_24,
    "sampling_rate": 44100,
    "encoder_dim": 64,
    "encoder_rates": [3, 3, 7, 7],
    "decoder_dim": 1536,
    "decoder_rates": [7, 7, 3, 3],
    "attn_window_size": 32,
    "vq_strides": [8, 4, 2, 1],
}
MODELS: Mapping[str, tuple[str, str, Callable[[], Contestant]]] = {
    "encodec 24 kHz": ("encodec", "transformers", encodec),
    "encodec 48 kHz": ("encodec", "transformers", lambda: encodec(**STEREO)),
    "dac 44.1 kHz": ("dac", "transformers", lambda: dac(sampling_rate=44100)),
    "mimi 24 kHz": ("mimi", "transformers", mimi),
    "snac 24 kHz": ("snac", "snac", lambda: snac(**SNAC_24)),
    "snac 44.1 kHz": ("snac", "snac", lambda: snac(**SNAC_44)),
}
"""Its family, whose library it needs, and what makes it."""


def ours_of(family: str, theirs: Contestant) -> Autoencoder:
    """The same model in parts of ours."""
    tensors = theirs.model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    held = hold(family_of(family), theirs.settings, shapes, lambda _: tensors, compose_open, family)
    return held.stage.model.eval()


def calls(theirs: Contestant, ours: Autoencoder, x: Tensor) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What both do of a row, ours first."""
    z, codes = ours.encode(x), ours.quantize(x).codes
    return {
        "encoder": (lambda: ours.encode(x), lambda: theirs.encode(x)),
        "quantizer": (lambda: ours.quantizer(z), lambda: theirs.quantize(z)),
        "codes to sound": (lambda: ours.decode(ours.embed(codes), {}).mean, lambda: theirs.decode(codes)),
    }


def race(pair: tuple[Callable[[], Any], Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Median seconds of both, ours first, and the ratio with its quartiles."""
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            pair[which]()
            if number:  # the first round warms up
                spent[which].append(time.process_time() - start)
    low, ratio, high = statistics.quantiles((other / own for own, other in zip(*spent, strict=True)), n=4)
    own, other = (statistics.median(seconds) for seconds in spent)
    return {"ours": own, "other": other, "ratio": ratio, "quartiles": [low, high]}


@torch.no_grad()
def measured(name: str, length: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each part; the codebooks', which take little, several times as often."""
    torch.manual_seed(0)
    family, library, make = MODELS[name]
    theirs = make()
    ours = ours_of(family, theirs)
    positions = ours.data.axes[0]
    unit = positions // ours.grid[0]
    codes = ours.grid[0] if ours.code_spec.parts else max(1, ceil(length * (ours.data.rates[0] or 0) / unit))
    x = torch.randn(1, ours.data.channels, codes * unit) / 3
    rows = []
    for what, pair in calls(theirs, ours, x).items():
        row = race(pair, rounds * (5 if what == "quantizer" else 1))
        rows.append({"model": name, "library": f"{library} {version(library)}", "what": what, **row})
        print(
            f"{name:16} {what:14} ours {row['ours']:.4f} s, other {row['other']:.4f} s, {row['ratio']:.2f} x",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of sound; SNAC's are of its window")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of the models' names")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, (_, library, _) in MODELS.items():
        if not name.startswith(tuple(options.only)):
            continue
        if find_spec(library) is None:
            print(f"{name}: {library} is not installed")
            continue
        rows += measured(name, options.seconds, options.rounds)
    if options.out:
        versions = {"torch": torch.__version__, "toolkit": toolkit.__version__}
        machine = {"date": date.today().isoformat(), "machine": platform.machine(), "threads": options.threads}
        options.out.write_text(
            json.dumps({**machine, **versions, "rounds": options.rounds, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
