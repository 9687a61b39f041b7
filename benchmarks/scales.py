"""Speed of drawing all codes of a scale at once, against raster order over the same codes, side by side in one process.

    python benchmarks/scales.py [--rounds 5] [--threads 1] [--batch 16] [--out results.json] [NAME …]

Both networks have as many channels, layers and heads; float32. Contestants take turns, ``rounds`` times; a ratio is the
median over rounds. Times are the process's on one thread, so that others on the machine do not count, and the clock's
on several. Figures, at batch 16:

    ratio               codes, and so images, per second of scales over raster order on the same codes
    images_over_finest  images per second over a raster transformer on the finest scale's grid alone
    most                the same as ratio if scales took only its matrix products, with nothing between them
    over_its_products   each one's time over that of its matrix products, raster's with so few rows as it has
    shares              what scales spends its time on: see ``SHARES``

Rows are written to ``--out`` as they are measured, beside those of other networks and numbers of threads that it has.
A row falls short, and the script exits with 1, where ``ratio`` is below what is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import toolkit
from toolkit.causal import sampling
from toolkit.causal.network import CausalNetwork
from toolkit.causal.scales import ScalesTransformer
from toolkit.causal.transformer import Transformer

Row = dict[str, Any]


class Case(NamedTuple):
    """A pair of networks, and how many times as fast as in raster order the codes must be drawn."""

    sides: tuple[int, ...]
    hidden: int
    layers: int
    entries: int
    asked: float | None = None
    rounds: int = 9
    """At most."""


CASES = {
    "grids.py's, 1 to 8, 96 x 4": Case((1, 2, 4, 8), 96, 4, 185, asked=1.8),
    "image_cifar10_var's, 1 to 8, 384 x 12": Case((1, 2, 3, 4, 6, 8), 384, 12, 1024, asked=1.8, rounds=3),
    "1 to 16, 32 x 4": Case((1, 2, 4, 8, 16), 32, 4, 256),
    "1 to 16, 384 x 6": Case((1, 2, 4, 8, 16), 384, 6, 1024, rounds=3),
    "1 to 32, 512 x 4": Case((1, 2, 4, 8, 16, 32), 512, 4, 4096, rounds=1),
}
SHARES = {
    "products": ("aten::addmm", "aten::mm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_attention_math"),
    "drawing": ("aten::_softmax", "aten::cumsum", "aten::searchsorted", "aten::mul"),
    "norms": ("aten::native_layer_norm",),
    "gelu": ("aten::gelu",),
    "copies": ("aten::copy_", "aten::index_select", "aten::index_copy_", "aten::cat", "aten::fill_"),
}
"""Operations by what they are for, by their own time; the rest, and what is between operations, is ``others``."""


def race(acts: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each by round, every other round backwards; where there are several, after one that does not count."""
    for act in acts.values() if rounds > 1 else ():
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(rounds):
        for name in list(acts)[:: -1 if number % 2 else 1]:
            began = clock()
            acts[name]()
            times[name].append(clock() - began)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """The median over rounds of one's time over the other's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def row_of(name: str, args: argparse.Namespace) -> Row:
    case, batch = CASES[name], args.batch
    torch.manual_seed(0)
    parts = [(side, side) for side in case.sides]
    flat, last = (sum(map(prod, parts)),), parts[-1]
    sizes: dict[str, Any] = {"hidden": case.hidden, "layers": case.layers, "heads": max(4, case.hidden // 64)}
    nets = {
        "scales": (CausalNetwork(ScalesTransformer(parts, **sizes), (case.entries,)).eval(), flat),
        "raster": (CausalNetwork(Transformer(flat, **sizes), (case.entries,)).eval(), flat),
        "finest": (CausalNetwork(Transformer(last, **sizes), (case.entries,)).eval(), last),
    }
    acts: dict[str, Callable[[], object]] = {
        act: lambda net=net, grid=grid: sampling.sample(net, batch, grid) for act, (net, grid) in nets.items()
    }
    linear = [module.weight for module in nets["raster"][0].modules() if isinstance(module, torch.nn.Linear)]
    together = [batch * prod(part) for part in parts]
    acts["scales' products"] = lambda: multiply(linear, together)
    acts["raster's products"] = lambda: multiply(linear, [batch] * flat[0])
    with torch.inference_mode():
        times = race(acts, min(args.rounds, case.rounds), time.process_time if args.threads == 1 else time.perf_counter)
        shares = shares_of(acts["scales"])
    seconds = {act: statistics.median(each) for act, each in times.items()}
    return {
        "name": f"{name}, batch {batch}",
        "threads": args.threads,
        "codes": flat[0],
        "codes_per_second": batch * flat[0] / seconds["scales"],
        "rasters_codes_per_second": batch * flat[0] / seconds["raster"],
        "images_per_second": batch / seconds["scales"],
        "rasters_images_per_second": batch / seconds["raster"],
        "images_over_finest": ratio(times, "finest", "scales"),
        "over_its_products": ratio(times, "scales", "scales' products"),
        "raster_over_its_products": ratio(times, "raster", "raster's products"),
        "most": ratio(times, "raster", "scales' products"),
        "shares": shares,
        "parameters": {act: sum(p.numel() for p in net.parameters()) for act, (net, _) in nets.items()},
        "ratio": ratio(times, "raster", "scales"),
        "asked": case.asked,
    }


def multiply(weights: list[Tensor], batches: list[int]) -> None:
    """So many vectors at a time through each weight."""
    for count in batches:
        for weight in weights:
            torch.mm(torch.zeros(count, weight.shape[1]), weight.t())


def shares_of(act: Callable[[], object]) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        act()
    own = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(own.values())
    shares = {name: sum(own.get(key, 0) for key in keys) / total for name, keys in SHARES.items()}
    return {**shares, "others": 1 - sum(shares.values())}


def met(row: Row) -> bool:
    return row["ratio"] >= (row["asked"] or 0)


def show(row: Row) -> Row:
    asked = f" (asked {row['asked']})" if row["asked"] else ""
    print(f"{'met  ' if met(row) else 'SHORT'} {row['name']:48} {row['ratio']:5.1f} times{asked}", flush=True)
    for key in ("codes_per_second", "rasters_codes_per_second", "images_over_finest", "over_its_products"):
        print(f"      {key:28} {row[key]:10.1f}")
    print(f"      {'at most':28} {row['most']:10.1f}")
    print("     ", *(f"{name} {share:.0%}" for name, share in row["shares"].items()), flush=True)
    return row


def write(rows: list[Row], args: argparse.Namespace) -> None:
    """The rows, among those that are there already: of other networks, and of other numbers of threads."""
    before = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    every = {(row["name"], row["threads"]): row for row in [*before, *rows]}
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"CPU of {os.cpu_count()} cores",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "rows": list(every.values()),
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME", help=f"of {'; '.join(CASES)}; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with torch.no_grad():
        for name in args.names:
            rows.append(show(row_of(name, args)))
            if args.out:  # after each, so that what is done is kept
                write(rows, args)
    return 0 if all(map(met, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
