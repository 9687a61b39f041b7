"""Speed of the networks of published tokenizers, beside an independent implementation of each, in one process.

    python benchmarks/networks.py [--only image_vqgan …] [--what encode decode train] [--size 128] [--rounds 7]
                                  [--threads 1] [--out results.json]

Both have the same random weights and the same inputs, float32. A network encodes without its quantizer, decodes
latents, and takes a step of training, forward and backward through both. Contestants take turns, every other round
backwards; it is the time of the process that counts. A ratio is the median over rounds of the other's time over ours in
the same round: above 1 means that ours is faster.

A contest is an entry of ``CONTESTS``, a function that gives both contestants; those whose library is not installed stay
away.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# Threads that wait for one another would be counted as if they worked.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

import toolkit
from toolkit.adopting.adopt import hold
from toolkit.autoencoder import Autoencoder
from toolkit.cli.adopting import compose_open
from toolkit.family import Family


class Contest(NamedTuple):
    """Ours and another's of the same network, and an input of each half."""

    library: str
    ours: Autoencoder
    other: nn.Module
    encode: Callable[[Tensor], Tensor]
    """The other's, of data in [-1, 1], to latents."""
    decode: Callable[[Tensor], Tensor]
    """The other's, of latents, to data."""
    x: Tensor


def llamagen_vq16(size: int) -> Contest:
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    from toolkit_image.families.janus import JanusFamily

    other = JanusVQVAE(JanusVQVAEConfig(num_patches=size // 16))
    ours = adopted(JanusFamily(), other.config.to_dict(), other.state_dict())

    def encode(x: Tensor) -> Tensor:
        return other.quant_conv(other.encoder(x))

    def decode(z: Tensor) -> Tensor:
        return other.decoder(other.post_quant_conv(z))

    return Contest("transformers", ours, other, encode, decode, image(size))


def amused(size: int) -> Contest:
    from diffusers.models.autoencoders.vq_model import VQModel

    from toolkit_image.families.vqmodel import VqmodelFamily

    other = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(128, 256, 256, 512, 768),
        layers_per_block=2,
        latent_channels=64,
        sample_size=size,
        num_vq_embeddings=8192,
        vq_embed_dim=64,
        mid_block_add_attention=False,
    )
    ours = adopted(VqmodelFamily(), dict(other.config), other.state_dict())

    def encode(x: Tensor) -> Tensor:
        return other.encode(x).latents

    def decode(z: Tensor) -> Tensor:
        return other.decode(z, force_not_quantize=True).sample

    return Contest("diffusers", ours, other, encode, decode, image(size))


def vidtok(size: int) -> Contest:
    """Films of 1 + 8 frames; theirs takes three copies of the first frame before it, and gives as many."""
    from diffusers.models.autoencoders.autoencoder_vidtok import AutoencoderVidTok

    from toolkit_video.families.vidtok import VidTokFamily

    other = AutoencoderVidTok(z_channels=5, double_z=False, regularizer="fsq", codebook_size=8**5)
    ours = adopted(VidTokFamily(), dict(other.config), other.state_dict())

    def encode(x: Tensor) -> Tensor:
        return other.encoder(torch.cat([x[:, :, :1].expand(-1, -1, 3, -1, -1), x], 2))

    def decode(z: Tensor) -> Tensor:
        return other.decoder(z)[:, :, 3:]

    return Contest("diffusers", ours, other, encode, decode, torch.rand(1, 3, 9, size, size) * 2 - 1)


CONTESTS: Mapping[str, tuple[str, Callable[[int], Contest]]] = {
    "image_vqgan, LlamaGen VQ-16": ("transformers", llamagen_vq16),
    "image_vqgan, aMUSEd": ("diffusers", amused),
    "video_vidtok, 9 frames": ("diffusers", vidtok),
}
"""By the network and its sizes: whose library it needs, and what makes the contestants for inputs of a size."""


def adopted(family: Family, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Autoencoder:
    """A model of ours with another's weights."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return hold(family, settings, shapes, lambda _: tensors, compose_open, "the contestant").stage.model


def image(size: int) -> Tensor:
    return torch.rand(1, 3, size, size) * 2 - 1


def races(contest: Contest) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """What is raced, ours, and the other's."""
    ours, x = contest.ours, contest.x
    levels = ours.data.unscale(x)
    with torch.no_grad():
        z = ours.encode(levels)

    def without_gradient(call: Callable[[Tensor], object], given: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return call(given)

        return run

    def our_step() -> None:
        mean = ours.decode(ours.encode(levels), {}).mean
        assert mean is not None
        mean.square().mean().backward()
        ours.zero_grad(set_to_none=True)

    def other_step() -> None:
        contest.decode(contest.encode(x)).square().mean().backward()
        contest.other.zero_grad(set_to_none=True)

    yield "encode", without_gradient(ours.encode, levels), without_gradient(contest.encode, x)
    yield "decode", without_gradient(lambda z: ours.decode(z, {}).mean, z), without_gradient(contest.decode, z)
    yield "train", our_step, other_step


def race(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Seconds of both, and the ratio with its quartiles."""
    contestants = {"ours": ours, "other": other}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            start = time.process_time()
            contestants[name]()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    ratios = [other / own for own, other in zip(seconds["ours"], seconds["other"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "ratio": ratio, "quartiles": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of the contests' names")
    parser.add_argument("--what", nargs="*", default=["encode", "decode", "train"], help="which of the three")
    parser.add_argument("--size", type=int, default=128, help="pixels along both axes of an image or frame")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, (library, make) in CONTESTS.items():
        if not name.startswith(tuple(options.only)):
            continue
        if find_spec(library) is None:
            print(f"{name}: {library} is not installed")
            continue
        torch.manual_seed(0)
        contest = make(options.size)
        for what, ours, other in races(contest):
            if what not in options.what:
                continue
            row = {"network": name, "library": f"{library} {version(library)}", "size": options.size, "what": what}
            row |= race(ours, other, options.rounds)
            rows.append(row)
            print(
                f"{name:32} {what:8} ours {row['ours']:7.3f} s  other {row['other']:7.3f} s  {row['ratio']:5.2f} x",
                flush=True,
            )
            if options.out:
                write(options, rows)


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The rows so far."""
    machine = {"machine": platform.processor() or platform.machine(), "threads": options.threads}
    versions = {"torch": torch.__version__, "toolkit": toolkit.__version__}
    report = {"date": date.today().isoformat(), **machine, **versions, "rounds": options.rounds, "rows": rows}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
