"""What a run's files cost beside what evaluate promises, whether they come back, and whether damage is refused.

    python benchmarks/compress.py RUN… [--examples 256] [--split test] [--prior NAME] [--lossless] [--damage 200]
        [--out results.json]

A row is a run under one of its trained priors. The examples are the first of a split, and go into one file and into
one each. Figures are

    promised        bits of an example by the probabilities, as `toolkit evaluate` has them: of its codes, and with
                    ``--lossless`` of its data
    one             its bits in a file of all examples, without the header, and by how many percent that is more
    each            by how many bits a file of its own is more, on average and at most, without its header
    back            how many examples came back, code by code or, with ``--lossless``, number by number, from both
    mb_per_second   of data, to and from one file, once there are codes

``--damage N`` writes the first examples once more, damages that file N times, and reads it: cut short, with bits
flipped, with bits flipped under a checksum that is right, of another run (where several are named), of another format,
of another version of a library. A file is refused by a sentence, or harmless, as where a name in it has changed: then
it gives what was written. It exits with 1 where a file gives anything else, or another error than that sentence.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from math import log
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import torch

import toolkit
from toolkit.cli.compressing import rows_of
from toolkit.cli.reading import split_items
from toolkit.coding import container, read, write
from toolkit.coding.codec import ROWS, Codec, Row
from toolkit.coding.container import UnreadableError
from toolkit.model import Model

FEW = 4
"""Examples of a file that is damaged."""


def rows(model: Model, codec: Codec, split: str, n: int) -> list[Row]:
    items = split_items(model, model.bottom.dataset, split, 0, n)
    return rows_of(model, codec, items, {}, lambda _: None)


def data_of(read: list[Row]) -> list[torch.Tensor]:
    """What came back of every example."""
    return [row.codes if row.x is None else row.x for row in read]


@torch.no_grad()
def promised(model: Model, codec: Codec, examples: list[Row]) -> torch.Tensor:
    """Bits of every example, all positions in one pass."""
    parts = []
    for start in range(0, len(examples), ROWS):
        some = examples[start : start + ROWS]
        known = {name: torch.stack([row.conditions[name] for row in some]) for name in some[0].conditions}
        codes = torch.stack([row.codes for row in some])
        nats = -codec.prior.log_prob(codes, known).double()
        if codec.lossless:
            x = torch.stack([row.x for row in some if row.x is not None])
            given = model.autoencoder.decode(model.autoencoder.embed(codes), known)
            nats = nats - given.log_prob(x).double()
        parts.append(nats / log(2))
    return torch.cat(parts)


def measured(model: Model, prior: str, split: str, n: int, lossless: bool) -> dict[str, Any]:
    codec = model.codec(prior, lossless=lossless)
    examples = rows(model, codec, split, n)
    bits, dims = promised(model, codec, examples), sum(model.spec.channels * _size(row) for row in examples)
    start = perf_counter()
    one = write.compress(codec, examples)
    written = perf_counter()
    back = read.decompress(codec, *container.unpack(one.data))
    ended = perf_counter()
    each = list(write.compress_each(codec, examples))
    alone = read.decompress_each(codec, [container.unpack(packed.data) for packed in each])
    more = torch.tensor([8 * packed.stream for packed in each]) - bits
    pairs = zip(data_of(examples), data_of(back), data_of(alone), strict=True)
    mean = float(bits.mean())
    return {
        "examples": len(examples),
        "numbers": dims // len(examples),
        "code": list(examples[0].codes.shape),
        "promised": round(mean, 2),
        "promised_per_dim": round(float(bits.sum()) / dims, 5),
        "one": round(8 * one.stream / len(examples), 2),
        "one_percent": round(100 * (8 * one.stream / float(bits.sum()) - 1), 4),
        "one_header_bytes": one.header,
        "each_more": [round(float(more.mean()), 2), round(float(more.abs().max()), 2)],
        "each_header_bytes": round(sum(packed.header for packed in each) / len(each)),
        "back": sum(torch.equal(x, y) and torch.equal(x, z) for x, y, z in pairs),
        "mb_per_second": [round(_bytes(model, dims) / 1e6 / s, 4) for s in (written - start, ended - written)],
    }


def _size(row: Row) -> int:
    return int(torch.tensor(row.example.axes).prod())


def _bytes(model: Model, dims: int) -> float:
    """Of data as it lies in memory or in a plain file: levels in as few bits as tell them apart, floats as bytes."""
    levels = model.spec.levels
    return dims * (8 if levels is None else (levels - 1).bit_length()) / 8


def damaged(data: bytes, others: list[bytes], n: int) -> Iterator[tuple[str, bytes]]:
    """N files, of each kind about as many."""
    header, stream = container.unpack(data)
    kinds = ["cut", "flipped", "flipped under a right checksum", "another format", "another version"]
    kinds += ["another run"] if others else []
    if header.environment is None:
        kinds.remove("another version")  # what is read everywhere does not name any
    for i in range(n):
        kind, rng = kinds[i % len(kinds)], Random(i)
        if kind == "cut":
            yield kind, data[: rng.randrange(len(data))]
        elif kind == "flipped":
            yield kind, _flipped(data, rng)
        elif kind == "flipped under a right checksum":
            yield kind, container.pack(header, _flipped(stream, rng))
        elif kind == "another format":
            at = len(container.MAGIC)
            yield kind, data[:at] + bytes([rng.choice([0, *range(2, 256)])]) + data[at + 1 :]
        elif kind == "another version":
            environment = dict(header.environment or {})
            environment[rng.choice(sorted(environment.keys() - {"threads"}))] = f"0.{rng.randrange(100)}"
            yield kind, container.pack(replace(header, environment=environment), stream)
        else:
            yield kind, rng.choice(others)


def _flipped(data: bytes, rng: Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def damage(model: Model, prior: str, split: str, lossless: bool, others: list[bytes], n: int) -> dict[str, Any]:
    codec = model.codec(prior, lossless=lossless)
    examples = rows(model, codec, split, FEW)
    data = write.compress(codec, examples).data
    start = perf_counter()
    decoded = opened(model, data)
    whole, slowest = perf_counter() - start, 0.0
    outcomes, said = Counter[str](), Counter[str]()
    for kind, broken in damaged(data, others, n):
        start = perf_counter()
        try:
            same = all(torch.equal(x, y) for x, y in zip(data_of(opened(model, broken)), data_of(decoded), strict=True))
            outcome = "harmless" if same else "wrong"
        except UnreadableError as e:
            outcome = "refused" if str(e) and "\n" not in str(e) else "not in a sentence"
            said[re.sub(r"\d+(\.\d+)*", "N", str(e).split(":")[0])[:60]] += 1
        except Exception as e:
            outcome = f"raised {type(e).__name__}: {e}"
        slowest = max(slowest, perf_counter() - start)
        outcomes[f"{kind}: {outcome}"] += 1
    return {
        "files": n,
        "outcomes": dict(sorted(outcomes.items())),
        "said": dict(said.most_common()),
        "whole_s": round(whole, 4),
        "slowest_s": round(slowest, 4),
    }


def opened(model: Model, data: bytes) -> list[Row]:
    """The examples of a file, as `toolkit decompress` reads it."""
    header, stream = container.unpack(data)
    return read.decompress(model.codec_of(header), header, stream)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--split", default="test")
    parser.add_argument("--prior")
    parser.add_argument("--lossless", action="store_true")
    parser.add_argument("--damage", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    models = [toolkit.load(run, "cpu") for run in options.runs]
    results, files = [], dict[str, bytes]()
    for model in models:
        for prior in [options.prior] if options.prior else model.run.priors():
            row = measured(model, prior, options.split, options.examples, options.lossless)
            results.append({"run": model.run.path.name, "prior": prior, "lossless": options.lossless, **row})
            print(json.dumps(results[-1]), flush=True)
        if options.damage:
            codec = model.codec(options.prior)
            files[str(model.run.path)] = write.compress(codec, rows(model, codec, options.split, FEW)).data
    for model in models if options.damage else ():
        prior = model.codec(options.prior).prior_name
        others = [data for path, data in files.items() if path != str(model.run.path)]
        row = damage(model, prior, options.split, options.lossless, others, options.damage)
        results.append({"run": model.run.path.name, "prior": prior, "lossless": options.lossless, "damage": row})
        print(json.dumps(results[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(_result(results), indent=1) + "\n")
    outcomes = [outcome for row in results if "damage" in row for outcome in row["damage"]["outcomes"]]
    back = all(row["back"] == row["examples"] for row in results if "back" in row)
    return int(not back or any(not outcome.endswith((": refused", ": harmless")) for outcome in outcomes))


def _result(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "toolkit": version("discrete-toolkit"),
        "rows": results,
    }


if __name__ == "__main__":
    sys.exit(main())
