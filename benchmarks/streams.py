"""How fast a run works on sound as it arrives, on one thread, and whether the whole gives the same.

    python benchmarks/streams.py RUN SOUND… [--seconds 60] [--chunk 20] [--out results.json]

SOUND are files that the run's dataset reads, one after the other until there are so many seconds. They are pushed in
chunks of ``--chunk`` milliseconds, each to codes and back to sound. Figures are

    latency_ms     as it is known beforehand: of the encoder, and of the decoder beside it
    factor         seconds of the process for a second of sound, and of the encoder alone; below 1 is as it arrives
    longest_ms     the longest of all chunks, on the clock
    unequal        codes that differ from those of the whole
    difference     the largest of the sound, of the whole's largest sample

It exits with 1 where a code differs by more than rounding would explain, or the sound does: 1e-5.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor

import toolkit
from toolkit.cli.files import read_example
from toolkit.model import Model


def sound(model: Model, paths: list[Path], seconds: float) -> Tensor:
    """``(1, channels, samples)``, in the data's own form."""
    length, pieces = round(seconds * (model.spec.rates[0] or 1)), list[Tensor]()
    for path in paths:
        pieces.append(read_example(model, path))
        if sum(piece.shape[1] for piece in pieces) >= length:
            break
    return torch.cat(pieces, 1)[None, :, :length]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("sound", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--chunk", type=float, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = toolkit.load(options.run, "cpu")
    x, rate = sound(model, options.sound, options.seconds), model.spec.rates[0] or 1
    encoder, decoder = model.stream_encoder(), model.stream_decoder()
    codes, heard, encoding, longest = list[Tensor](), list[Tensor](), 0.0, 0.0
    begun = process_time()
    for piece in x.split(round(rate * options.chunk / 1000), 2):
        start, own = perf_counter(), process_time()
        codes.append(encoder.push(piece))
        encoding += process_time() - own
        heard.append(decoder.push(codes[-1]))
        longest = max(longest, perf_counter() - start)
    codes.append(encoder.flush())
    heard += [decoder.push(codes[-1]), decoder.flush()]
    taken, seconds = process_time() - begun, x.shape[2] / rate
    whole = model.encode(x)
    y, all_codes = model.decode(whole).double(), torch.cat(codes, 2)
    difference = float((torch.cat(heard, 2).double() - y).abs().max() / y.abs().max())
    unequal = int((all_codes != whole).sum())
    row = {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "toolkit": version("discrete-toolkit"),
        "run": model.run.path.name,
        "seconds": seconds,
        "chunk_ms": options.chunk,
        "latency_ms": [encoder.latency_ms, decoder.latency_ms],
        "factor": [round(taken / seconds, 4), round(encoding / seconds, 4)],
        "longest_ms": round(1000 * longest, 1),
        "codes": all_codes.numel(),
        "unequal": unequal,
        "difference": difference,
    }
    print(json.dumps(row, indent=1))
    if options.out:
        options.out.write_text(json.dumps(row, indent=1) + "\n")
    return int(unequal > 1e-4 * all_codes.numel() or (not unequal and difference > 1e-5))


if __name__ == "__main__":
    sys.exit(main())
