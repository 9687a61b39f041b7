"""How fast windows come out of video files, and whether training waits for them.

    python benchmarks/video.py --root gestures [--frames 16] [--size 64] [--rounds 7] [--out results.json]

Windows: ``video_folder`` gives windows of files below a folder, at the files' own rate, shrunk and cropped. Against it
stand, for the same windows:
  everything  what a plain loop does: every frame of the file is decoded and converted, the window taken and shrunk
  bare        PyAV alone: open, seek to the keyframe before the window, decode to its end; nothing is converted
``video_folder`` itself runs without memory, as it reads a window for the first time, and ``remembered`` with it, as it
does from then on. All run in turns in one process, window by window, in an order that changes, with decoders of one
thread; seconds are the process's own; a ratio is the median over rounds. The plain loop's windows are compared with
those of ``video_folder``: both show the same frames.

Waiting: the share of the time for which the autoencoder of the experiment ``video_gestures`` waits for its data, in the
training process: in the first turn through the windows, and in the steps after it.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

from toolkit.__main__ import run
from toolkit_video.corpus import Window
from toolkit_video.folder import FolderDataset

WINDOWS = 24
"""Of a round."""
BATCH = 4
"""Windows of a training step."""


def timed(act: Callable[[], object]) -> float:
    """Seconds that the process computes."""
    began = time.process_time()
    act()
    return time.process_time() - began


def everything(path: Path, numbers: np.ndarray, size: int) -> torch.Tensor:
    """The plain loop: ``(channels, frames, size, size)``."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    x = torch.from_numpy(frames[numbers]).permute(0, 3, 1, 2).float()
    scale = size / min(x.shape[-2:])
    x = interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
    top, left = (x.shape[2] - size) // 2, (x.shape[3] - size) // 2
    return x[:, :, top : top + size, left : left + size].round().clamp(0, 255).byte().transpose(0, 1)


def bare(path: Path, last: int, key: int) -> None:
    """Decodes from a keyframe to a window's end, by their ticks; from the file's beginning where the key is 0."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if key:
            container.seek(key, stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= last:
                return


def loading(root: Path, frames: int, size: int, rounds: int) -> dict[str, float]:
    words: dict[str, Any] = {"root": str(root), "frames": frames, "size": size, "labels": "none"}
    dataset, remembering = FolderDataset(**words, memory=0), FolderDataset(**words, memory=1024)
    places = np.random.default_rng(0).integers(0, dataset.size("train"), WINDOWS).tolist()

    def drawn(data: FolderDataset, place: int) -> Window:
        return data.corpus.window("train", place, torch.Generator().manual_seed(place))

    windows = [drawn(dataset, place) for place in places]
    for place in places:
        drawn(remembering, place)
    apart = [
        (window.x.float() - everything(root / window.path, window.numbers, size).float()).abs().mean().item()
        for window in windows
    ]
    assert max(apart) < 6, "the plain loop shows other frames"

    def alone(window: Window) -> None:
        timeline = dataset.corpus.timelines[window.path]
        ticks = timeline.ticks[window.numbers]
        keys = timeline.keys[timeline.keys <= ticks[0]]
        bare(root / window.path, int(ticks[-1]), int(keys[-1]) if len(keys) > 1 else 0)

    contestants: dict[str, Callable[[int, Window], object]] = {
        "video_folder": lambda place, _: drawn(dataset, place),
        "everything": lambda _, window: everything(root / window.path, window.numbers, size),
        "bare": lambda _, window: alone(window),
        "remembered": lambda place, _: drawn(remembering, place),
    }
    seconds = []
    for _ in range(rounds):
        spent = Counter[str]()
        for place, window in zip(places, windows, strict=True):
            for name in random.sample(list(contestants), len(contestants)):
                spent[name] += timed(partial(contestants[name], place, window))  # type: ignore[assignment]
        seconds.append(spent)
    made = {
        f"{name}_windows_per_second": WINDOWS / statistics.median(each[name] for each in seconds)
        for name in contestants
    }
    for name in ("everything", "bare"):
        made[f"over_{name}"] = statistics.median(each[name] / each["video_folder"] for each in seconds)
    return made


def waiting(root: Path, steps: int) -> dict[str, float]:
    turn = ceil(FolderDataset(root=str(root), rate=10.0, labels="none").size("train") / BATCH)
    with tempfile.TemporaryDirectory() as folder:
        words = [f"dataset.root={root}", f"hydra.run.dir={folder}/run", "stage=autoencoder", "trainer.log_every=1"]
        counts = [f"trainer.batch_size={BATCH}", f"trainer.steps={turn + steps}", "trainer.validate_examples=1"]
        if run(["train", "experiment=video_gestures", *words, *counts]):
            raise SystemExit(1)
        lines = [json.loads(line) for line in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "data_wait" in line]
    return {
        "first_turn": statistics.mean(line["data_wait"] for line in told[:turn]),
        "later": statistics.mean(line["data_wait"] for line in told[turn:]),
        "seconds_per_step": 1 / statistics.median(line["steps_per_second"] for line in told),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = loading(args.root, args.frames, args.size, args.rounds)
    print("windows   " + "   ".join(f"{name} {value:,.2f}" for name, value in loaded.items()), flush=True)
    waited = waiting(args.root, args.steps)
    print("waiting   " + "   ".join(f"{name} {value:.3f}" for name, value in waited.items()))
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": version("av"),
        "arguments": {name: str(value) for name, value in vars(args).items() if name not in ("out", "root")},
        "windows": loaded,
        "waiting": waited,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
