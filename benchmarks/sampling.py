"""Speed of drawing codes from causal networks, side by side in one process.

    python benchmarks/sampling.py [--rounds 5] [--only NAME …] [--out results.json]
    python benchmarks/sampling.py --gpu [--out results.json]

Everything is float32 and, on a CPU, on one thread. Contestants take turns, ``rounds`` times; what is printed is the
median over rounds. Exits with 1 where a figure falls short of what is asked of it.

    cached      toolkit's sampling of all codes against the plain way: one forward pass over the whole grid for every
                code, which is one pass's time times the number of codes, not run to the end
    step        WaveNet's step, without drawing, against the way it is usually written, a list of one queue per layer;
                compiled, too
    floor       all of a sample with ``compile=true``, one example, in units of its arithmetic: the products of the
                steps' matrices with one vector each, one call for all; for a PixelCNN those of its rows, too
    peer        codes per second against pythae's PixelCNN sampler (where it is installed): 10 layers of 64 channels and
                as many parameters each, in plain 5x5 convolutions, half of every one masked, or in gated 3x3 ones
    prefix      a transformer's state after a prefix of 512 codes, in one pass against position by position
    flat        microseconds per code on larger and larger grids: a cache that is one costs the same everywhere

On a GPU, steps are captured and replayed, and ``cached`` also races them against the same steps taken one by one.
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
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

import toolkit
from toolkit.causal import sampling
from toolkit.causal.compiling import Compiled
from toolkit.causal.network import CausalNetwork, Trunk
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.causal.transformer import Transformer
from toolkit.causal.wavenet import WaveNet

Row = dict[str, Any]


class Case(NamedTuple):
    """A network and grid, and how many times faster than the plain way its sampling must be, by batch size."""

    make: Callable[[], CausalNetwork]
    grid: tuple[int, ...]
    asked: dict[int, float]


CASES = {
    "pixelcnn 32x32": Case(
        lambda: CausalNetwork(PixelCNN(2, hidden=64, layers=10, kernel_size=5), (512,)), (32, 32), {1: 150, 16: 600}
    ),
    "pixelcnn 4x16x16": Case(
        lambda: CausalNetwork(PixelCNN(3, hidden=64, layers=10, kernel_size=5), (512,)), (4, 16, 16), {16: 500}
    ),
    "pixelcnn 8x8x10": Case(
        lambda: CausalNetwork(PixelCNN(2, hidden=64, layers=10, kernel_size=5), (512,) * 10), (8, 8), {16: 230}
    ),
    "wavenet 4096": Case(
        lambda: CausalNetwork(WaveNet(hidden=64, blocks=2, layers=10, skip=256), (256,)), (4096,), {1: 360, 16: 4500}
    ),
    "transformer 1024": Case(
        lambda: CausalNetwork(Transformer((1024,), hidden=256, layers=8, heads=8), (512,)), (1024,), {8: 170}
    ),
}
STEP_ASKED = {"eager": 2.2, "compiled": 3.2}
FLOOR_ASKED = 3.0
"""A compiled code costs at most this many times its products."""
PEER_ASKED = {16: None, 64: 20.0}
"""By batch size."""
PREFIX_ASKED = {1: 10.0, 8: 4.0}
"""By batch size."""
FLAT_ASKED = 1.25
"""A code on the largest grid costs at most this many times one on a grid of a quarter of its size."""


def clock(act: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.thread_time()  # of this thread alone, which does all: others of the machine do not count
        act()
        return time.thread_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    act()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def race(acts: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each by round, every other round backwards, after one turn that does not count."""
    for act in acts.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(rounds):
        for name in list(acts)[:: -1 if number % 2 else 1]:
            times[name].append(clock(acts[name], device))
    return times


def ratio(times: dict[str, list[float]], one: str, other: str, factor: float = 1.0) -> float:
    """The median over rounds of one's time over the other's."""
    return statistics.median(a * factor / b for a, b in zip(times[one], times[other], strict=True))


def cached_rows(name: str, rounds: int, device: torch.device) -> list[Row]:
    case, rows = CASES[name], []
    for batch, asked in case.asked.items():
        torch.manual_seed(0)
        net = case.make().to(device).eval()
        sizes = net.codebook_sizes
        codes = torch.stack([torch.randint(size, (batch, *case.grid), device=device) for size in sizes], 1)
        acts: dict[str, Callable[[], object]] = {
            "plain": lambda net=net, codes=codes: net(codes),
            "cached": lambda net=net, batch=batch, grid=case.grid: sampling.sample(net, batch, grid),
        }
        if device.type == "cuda":
            acts["one by one"] = lambda net=net, batch=batch, grid=case.grid: one_by_one(net, batch, grid)
        times = race(acts, rounds, device)
        count = codes[0].numel()
        rows.append(
            {
                "what": "cached",
                "name": f"{name} batch {batch}",
                "plain_pass_ms": 1e3 * statistics.median(times["plain"]),
                "microseconds_per_code": 1e6 * statistics.median(times["cached"]) / count,
                "codes_per_second": batch * count / statistics.median(times["cached"]),
                "ratio": ratio(times, "plain", "cached", count),
                "asked": asked,
            }
        )
        if "one by one" in times:
            rows[-1]["captured_over_one_by_one"] = ratio(times, "one by one", "cached")
    return rows


def one_by_one(net: CausalNetwork, batch: int, grid: tuple[int, ...]) -> None:
    """Without captured graphs."""
    recorded, sampling._sample_recorded = sampling._sample_recorded, sampling._sample_batch
    try:
        sampling.sample(net, batch, grid)
    finally:
        sampling._sample_recorded = recorded


class Queues:
    """A WaveNet's step with one queue of tensors for each layer, read and joined anew at every step."""

    def __init__(self, trunk: WaveNet, batch: int) -> None:
        self.trunk = trunk
        self.queues = [[torch.zeros(batch, trunk.channels) for _ in range(d)] for d in trunk.dilations]
        self.weights = [weight.permute(0, 2, 1).flatten(1) for weight in trunk.weight.detach()]

    def __call__(self, x: Tensor) -> Tensor:
        trunk, skips = self.trunk, []
        for layer, queue in enumerate(self.queues):
            y = F.linear(torch.cat((queue.pop(0), x), 1), self.weights[layer], trunk.bias[layer])
            queue.append(x)
            values, gates = y.chunk(2, 1)
            z = values.tanh() * gates.sigmoid()
            skips.append(F.linear(z, trunk.skip[layer]))
            x = x + F.linear(z, trunk.out[layer])
        return torch.stack(skips).sum(0)


def step_rows(rounds: int, steps: int = 1000) -> list[Row]:
    torch.manual_seed(0)
    trunk, batch = WaveNet(hidden=64, blocks=2, layers=10, skip=256).eval(), 1
    x = torch.randn(batch, 64)
    places = torch.arange(steps).split(1)
    queues, states = Queues(trunk, batch), [trunk.init(batch, (steps,)) for _ in range(2)]
    position, feature = torch.zeros(1, dtype=torch.int64), torch.zeros(batch, trunk.features)

    def step(position: Tensor) -> Tensor:
        made = trunk.step(states[0], 0, position)
        trunk.append(states[0], position, x)
        return made

    def advance(*_: object) -> None:
        feature.copy_(trunk.step(states[1], 0, position))
        trunk.append(states[1], position, x)
        position.add_(1)

    def run(step: Callable[[Tensor], object]) -> Callable[[], None]:
        def act() -> None:
            position.zero_()
            for place in places:
                step(place)

        return act

    with torch.inference_mode():
        recorded = Compiled(advance)(None, None, 0)
    acts = {"queues": run(lambda _: queues(x)), "eager": run(step), "compiled": run(lambda _: recorded())}
    with torch.inference_mode():
        times = race(acts, rounds, torch.device("cpu"))
    return [
        {
            "what": "step",
            "name": f"wavenet step, {name}, batch 1",
            "microseconds": 1e6 * statistics.median(times[name]) / steps,
            "queues_microseconds": 1e6 * statistics.median(times["queues"]) / steps,
            "ratio": ratio(times, "queues", name),
            "asked": asked,
        }
        for name, asked in STEP_ASKED.items()
    ]


def floor_rows(rounds: int) -> list[Row]:
    rows = []
    for name, rank in {"pixelcnn 32x32": 2, "wavenet 4096": 1}.items():
        torch.manual_seed(0)
        net, grid = CASES[name].make().eval(), (32,) * 2 if rank == 2 else (1024,)
        acts: dict[str, Callable[[], object]] = {
            "products": products(net, grid),
            "eager": lambda net=net, grid=grid: sampling.sample(net, 1, grid),
            "compiled": lambda net=net, grid=grid: sample_compiled(net, grid),
        }
        with torch.inference_mode():
            times = race(acts, rounds, torch.device("cpu"))
        costs = {act: 1e6 * statistics.median(seconds) / 1024 for act, seconds in times.items()}
        rows.append(
            {
                "what": "floor",
                "name": f"{name}, 1024 codes compiled, batch 1",
                "microseconds_per_code": costs,
                "growth": ratio(times, "compiled", "products"),
                "at_most": FLOOR_ASKED,
            }
        )
    return rows


def sample_compiled(net: CausalNetwork, grid: tuple[int, ...]) -> None:
    with sampling.compiled():
        sampling.sample(net, 1, grid)


def products(net: CausalNetwork, grid: tuple[int, ...]) -> Callable[[], None]:
    """The arithmetic of all 1024 codes: every number of the weights that a step reads, times a number."""
    trunk = net.trunk
    own = list(trunk.parameters()) if isinstance(trunk, WaveNet) else [trunk.stacks[1].weight, trunk.stacks[1].out]
    numbers = sum(weight.numel() for weight in (*own, net.proj.weight, net.heads[0].weight) if weight.ndim > 1)
    whole, x = torch.randn(numbers // 64, 64), torch.randn(64)
    out = torch.empty(len(whole))
    outer = [] if isinstance(trunk, WaveNet) else row_products(trunk, grid[1])

    def act() -> None:
        for position in range(1024):
            torch.mv(whole, x, out=out)
            if position % grid[-1] == 0:
                for weight, columns in outer:
                    torch.mm(columns, weight)

    return act


def row_products(trunk: PixelCNN, columns: int) -> list[tuple[Tensor, Tensor]]:
    """A weight ``(inputs, outputs)`` and the columns of a row, for each layer of the first stack and its link."""
    first, last = trunk.stacks
    weights = [*first.weight.flatten(2).transpose(1, 2), *first.out, *last.link]
    return [(weight.detach().contiguous(), torch.randn(columns, len(weight))) for weight in weights]


def peer_rows(rounds: int) -> list[Row]:
    return [row for batch in PEER_ASKED for row in peer_row(rounds, batch)]


def peer_row(rounds: int, batch: int) -> list[Row]:
    """pythae's own sampling loop, less what it does after the last code."""
    try:
        from pythae.models.normalizing_flows import PixelCNN as Peer
        from pythae.models.normalizing_flows import PixelCNNConfig
    except ImportError:
        print("pythae is not installed: it stays away")
        return []
    torch.manual_seed(0)
    side = 8
    peer = Peer(PixelCNNConfig(input_dim=(1, side, side), n_embeddings=512, n_layers=10, kernel_size=5)).eval()
    net = CausalNetwork(PixelCNN(2, hidden=64, layers=10, kernel_size=3), (512,), head=64).eval()

    @torch.no_grad()
    def peers() -> None:
        z = torch.zeros(batch, 1, side, side)
        for row in range(side):
            for column in range(side):
                out = peer({"data": z}).out.squeeze(2)
                probabilities = F.softmax(out[:, :, row, column], dim=-1)
                z[:, :, row, column] = torch.multinomial(probabilities, 1).float()

    acts: dict[str, Callable[[], object]] = {
        "pythae": peers,
        "cached": lambda: sampling.sample(net, batch, (side, side)),
    }
    times = race(acts, rounds, torch.device("cpu"))
    count = batch * side * side
    return [
        {
            "what": "peer",
            "name": f"pythae's PixelCNN sampler, 8x8, K 512, batch {batch}",
            "codes_per_second": count / statistics.median(times["cached"]),
            "peers_codes_per_second": count / statistics.median(times["pythae"]),
            "parameters": parameters(net),
            "peers_parameters": parameters(peer),
            "ratio": ratio(times, "pythae", "cached"),
            "asked": PEER_ASKED[batch],
        }
    ]


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def prefix_rows(rounds: int, positions: int = 512) -> list[Row]:
    torch.manual_seed(0)
    grid = (1024,)
    trunk = Transformer(grid, hidden=256, layers=8, heads=8).eval()
    rows = []
    for batch, asked in PREFIX_ASKED.items():
        embedded = torch.randn(batch, 256, positions)
        states = [trunk.init(batch, grid) for _ in range(2)]
        acts: dict[str, Callable[[], object]] = {
            "one by one": lambda states=states, embedded=embedded: Trunk.prefill(trunk, states[0], grid, embedded),
            "one pass": lambda states=states, embedded=embedded: trunk.prefill(states[1], grid, embedded),
        }
        with torch.inference_mode():
            times = race(acts, rounds, torch.device("cpu"))
        rows.append(
            {
                "what": "prefix",
                "name": f"transformer, prefix of {positions}, batch {batch}",
                "one_pass_ms": 1e3 * statistics.median(times["one pass"]),
                "one_by_one_ms": 1e3 * statistics.median(times["one by one"]),
                "ratio": ratio(times, "one by one", "one pass"),
                "asked": asked,
            }
        )
    return rows


def flat_rows(rounds: int, batch: int = 4) -> list[Row]:
    torch.manual_seed(0)
    makers = {
        "pixelcnn": (lambda: CausalNetwork(PixelCNN(2, hidden=64, layers=10, kernel_size=5), (512,)), 2),
        "wavenet": (lambda: CausalNetwork(WaveNet(hidden=64, blocks=2, layers=10, skip=256), (256,)), 1),
    }
    rows = []
    for name, (make, rank) in makers.items():
        net = make().eval()
        sides = (8, 16, 32, 64)
        grids = {side: (side, side) if rank == 2 else (side * side,) for side in sides}
        acts = {str(side): lambda net=net, grid=grid: sampling.sample(net, batch, grid) for side, grid in grids.items()}
        times = race(acts, rounds, torch.device("cpu"))
        each = {side: 1e6 * statistics.median(times[str(side)]) / prod(grids[side]) for side in sides}
        growth = ratio(times, "64", "32", 1 / 4)
        rows.append(
            {
                "what": "flat",
                "name": f"{name}, 64 to 4096 codes, batch {batch}",
                "microseconds_per_code": each,
                "growth": growth,
                "at_most": FLAT_ASKED,
            }
        )
    return rows


OTHERS = {
    "step": step_rows,
    "floor": floor_rows,
    "peer": peer_rows,
    "prefix": prefix_rows,
    "flat": flat_rows,
}


def met(row: Row) -> bool:
    return row["growth"] <= row["at_most"] if "growth" in row else row["ratio"] >= (row["asked"] or 0)


def show(rows: list[Row]) -> list[Row]:
    for row in rows:
        mark = "met  " if met(row) else "SHORT"
        if "growth" in row:
            costs = ", ".join(f"{side}: {cost:.0f}" for side, cost in row["microseconds_per_code"].items())
            print(f"{mark} {row['name']:44} us per code, {costs}; {row['growth']:.2f} times", flush=True)
        else:
            print(f"{mark} {row['name']:44} {row['ratio']:8.1f} times (asked {row['asked'] or 'nothing'})", flush=True)
    return rows


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "toolkit": toolkit.__version__}
    with suppress(PackageNotFoundError):
        found["pythae"] = version("pythae")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*CASES, *OTHERS], help="some rows")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if args.gpu else "cpu")
    torch.set_num_threads(1)
    wanted = args.only or [*CASES, *([] if args.gpu else OTHERS)]
    rows: list[Row] = []
    with torch.no_grad():
        for name in wanted:
            made = cached_rows(name, args.rounds, device) if name in CASES else OTHERS[name](args.rounds)
            rows += show(made)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if args.gpu else cpu_name(),
        "python": platform.python_version(),
        **versions(),
        "arguments": {k: str(v) for k, v in vars(args).items() if k != "out"},
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if all(map(met, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
