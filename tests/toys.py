"""The toy plugin's words, and what tests ask of runs that were trained with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from toolkit.runs.folder import Run
from toolkit.stages.recorder import CLOCKED

TOY = Path(__file__).resolve().parent / "toy"
TILES = ["dataset=toy_tiles", "encoder=toy_conv", "decoder=toy_conv", "likelihood=categorical", "dim=4"]
VQ = ["quantizer=vq", "quantizer.codebook_size=16"]
PIXELCNN = ["prior=pixelcnn", "prior.hidden=8", "prior.layers=2", "prior.head=8"]
PIXELCNN_DECODER = ["decoder=pixelcnn", "decoder.hidden=8", "decoder.layers=2", "decoder.head=8"]


def trainers(*words: str) -> list[str]:
    """Words for the trainers of both stages."""
    return [f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in words]


TWO_STEPS = [*trainers("steps=2", "batch_size=4", "workers=0"), "prior_trainer.allow_collapsed=true"]
SIX_STEPS = [
    *trainers("batch_size=4", "workers=0"),
    *("trainer.steps=6", "trainer.log_every=2", "trainer.checkpoint_every=3", "prior_trainer.steps=3"),
]
SMALL = [*TILES, *PIXELCNN, *SIX_STEPS]
"""All but the quantizer of a run that takes a second."""


@contextmanager
def plugged_in() -> Iterator[None]:
    """The toy plugin's parts have names while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))
        yield


def fingerprint(folder: Path) -> dict[str, Any]:
    """Hashes of everything in the last checkpoint of each stage, and of the codes."""
    stages = [path for path in (folder / "autoencoder", *folder.glob("priors/*")) if ".old-" not in path.name]
    paths = [file for stage in stages for file in max(stage.glob("step-????????")).iterdir()]
    paths += folder.glob("codes/*")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]


def weights(run: Run, step: int = 6) -> dict[str, Tensor]:
    """Those of an autoencoder's checkpoint."""
    return load_file(run.autoencoder / f"step-{step:08d}" / "model.safetensors")


def flip(path: Path) -> None:
    """Changes one bit of a file, near its end."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
