"""How fast a WaveNet speaks, how fast crops come out of files, and how soon many files are ready.

    python benchmarks/audio.py [--hidden 64] [--samples 16000] [--rounds 3] [--threads 1] [--files 100000]
                               [--only starting] [--out results.json]

Speaking: the decoder ``wavenet`` draws one second at 16 kHz from latents of 64 samples each, step by step over what it
keeps of the past, one voice at a time and sixteen. ``realtime`` is seconds of sound by seconds of work. ``uncached``
draws each sample from a pass over all samples, as a network without memory does: one such pass is timed, and there are
as many as samples. Nothing is trained; the weights do not matter to the time.

Loading: one-second crops of ten-second flac files at 16 kHz, by decoding the crop alone and by decoding the file. The
files are noise with the level of speech. Both go through the same reader in turns; a ratio is the median over rounds.

Starting: ``audio_folder`` on many short files that it has not seen, which are looked into one by one, and again, when
it only asks whether they have changed. The files are links to a few, a thousand in a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from toolkit import DataSpec
from toolkit.decoders.wavenet import WaveNetDecoder
from toolkit_audio.folder import FolderDataset
from toolkit_audio.reading import read_span

RATE, CODE = 16_000, 64
FILES, SECONDS = 8, 10
FOLDER, LINKS = 1000, 20_000
"""Files in a folder, and links to one file; more of either, and some file systems refuse."""
CROPS = 64


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def speaking(hidden: int, samples: int, rounds: int) -> list[dict[str, float]]:
    """A row for each number of voices."""
    data = DataSpec(1, (samples,), levels=256, rates=(float(RATE),))
    decoder = WaveNetDecoder(data, 64, (samples // CODE,), (), hidden=hidden).eval()
    rows = []
    with torch.no_grad():
        z, x = torch.randn(1, 64, samples // CODE), torch.randint(256, (1, 1, samples))
        decoder(z, {}).log_prob(x)  # the first pass is slower
        forward = statistics.median(timed(lambda: decoder(z, {}).log_prob(x)) for _ in range(rounds))
        for voices in (1, 16):
            spoken = z.expand(voices, -1, -1)
            decoder(spoken[..., :2], {}).sample(torch.Generator().manual_seed(0))
            seconds = statistics.median(
                timed(lambda: decoder(spoken, {}).sample(torch.Generator().manual_seed(0)))  # noqa: B023
                for _ in range(rounds)
            )
            row = {"voices": voices, "seconds": seconds, "samples_per_second": voices * samples / seconds}
            row["realtime"] = row["samples_per_second"] / RATE
            if voices == 1:
                row |= {"forward_seconds": forward, "uncached_over_cached": forward * samples / seconds}
            rows.append(row)
    return rows


def loading(folder: Path, rounds: int) -> dict[str, float]:
    files = [write_flac(folder / f"{i}.flac", i) for i in range(FILES)]
    starts = np.random.default_rng(0).integers(0, (SECONDS - 1) * RATE, CROPS).tolist()

    def crops() -> None:
        for i, start in enumerate(starts):
            read_span(files[i % FILES], start, start + RATE, RATE)

    def whole() -> None:
        for i, start in enumerate(starts):
            read_span(files[i % FILES], 0, None, RATE)[start : start + RATE]

    crops(), whole()
    pairs = [(timed(crops), timed(whole)) for _ in range(max(rounds, 5))]
    return {
        "crops_per_second": CROPS / statistics.median(crop for crop, _ in pairs),
        "whole_files_per_second": CROPS / statistics.median(file for _, file in pairs),
        "ratio": statistics.median(file / crop for crop, file in pairs),
    }


def starting(folder: Path, files: int) -> dict[str, float]:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    for i in range(files):
        if i % LINKS == 0:
            source = write_flac(folder / f"short{i}.flac", i, seconds=0.5)
        path = folder / "many" / str(i // FOLDER) / f"{i}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(source)
    first, second = (timed(lambda: FolderDataset(root=str(folder / "many"))) for _ in range(2))
    return {"files": files, "first_seconds": first, "second_seconds": second}


def write_flac(path: Path, seed: int, seconds: float = SECONDS) -> Path:
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    sound = (2000 * np.convolve(white, np.ones(8) / 8, "same")).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE, frame_size=stream.frame_size)
        for given in (frame, None):
            for part in resampler.resample(given):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--samples", type=int, default=RATE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--only", choices=["loading", "starting", "speaking"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    acts: dict[str, Callable[[Path], list[dict[str, float]]]] = {
        "loading": lambda folder: [loading(folder, args.rounds)],
        "starting": lambda folder: [starting(folder, args.files)],
        "speaking": lambda folder: speaking(args.hidden, args.samples, args.rounds),
    }
    rows = {}
    for name in [args.only] if args.only else acts:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = acts[name](Path(folder))
        for row in rows[name]:
            print(f"{name:9} " + "   ".join(f"{key} {value:,.2f}" for key, value in row.items()), flush=True)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": version("av"),
        "arguments": {name: str(value) for name, value in vars(args).items() if name != "out"},
        **rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
