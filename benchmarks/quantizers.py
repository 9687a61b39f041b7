"""Speed and memory of quantizers, side by side in one process.

    python benchmarks/quantizers.py [--threads 1 2] [--rounds 11] [--out results.json]
    python benchmarks/quantizers.py --gpu [--out results.json]

A step is forward and backward in training mode, N latents of D channels against K entries, float32, the gradient of
the output given. Contestants take ``steps`` steps in turn, ``rounds`` times, every other round backwards. On a CPU it
is the time of the process that counts, on a GPU the clock. A ratio is the median over rounds of the contestant's time
over that of toolkit's ``ema`` in the same round: above 1 means that ``ema`` is faster. Each gets latents in the layout
it likes best; toolkit's are ``(batch, dim, positions)``, as a convolution gives them.

    product      z @ codebook.T alone, all N x K numbers of it
    ema vq …     toolkit's
    vqp …        vector-quantize-pytorch, as it comes (rotation trick), with decay 0.99
    leech        toolkit's lattice; codes per second, by its structure and by a search of its table, are beside it
    encodec      its VectorQuantization, around EuclideanCodebook
    pythae       QuantizerEMA

Peers that are not installed stay away. Memory is the most that a step holds at once beyond what was there before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

# Threads that wait for one another would be counted as if they worked.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import toolkit

Step = Callable[[], object]
Shape = tuple[int, int, int]

SHAPES = ((8192, 512, 64), (8192, 1024, 256), (2048, 8192, 64))
MEMORY = (8192, 8192, 64)
LARGE = (16384, 16384, 64)
TABLES = ("ema", "vq", "ibq")
"""Whose memory is measured there, too: a table of all distances takes 1 GiB."""
GPU_SHAPES = ((262144, 8192, 64), (262144, 65536, 64))
POSITIONS = 256
LATTICE = (8, 8, 8)
SEARCHED = 2048
"""Rows whose nearest of the Leech lattice's vectors are found, to count codes per second."""
PEERS = ("vector-quantize-pytorch", "encodec", "pythae")


def product(shape: Shape, device: torch.device) -> Step:
    n, size, dim = shape
    z, codebook = torch.randn(n, dim, device=device), torch.randn(size, dim, device=device)
    return lambda: z @ codebook.T


def step_of(module: nn.Module, z: Tensor, read: Callable[[Any], tuple[Tensor, Tensor]]) -> Step:
    """read: the module's output as latents and loss."""
    module.to(z.device).train()
    z.requires_grad_()
    inputs = [z, *module.parameters()]
    given: list[Tensor] = []

    def step() -> None:
        out, loss = read(module(z))
        if not given:
            given.append(torch.randn(out.shape, device=z.device))
        outputs, gradients = (out, loss), (given[0], torch.ones_like(loss))
        learned = 2 if loss.requires_grad else 1
        torch.autograd.grad(outputs[:learned], inputs, gradients[:learned], allow_unused=True)

    return step


def ours(where: str, name: str, shape: Shape, device: torch.device, **options: Any) -> Step:
    made = getattr(importlib.import_module(f"toolkit.quantizers.{where}"), name)
    quantizer = made(**options)
    z = torch.randn(shape[0] // POSITIONS, quantizer.channels, POSITIONS, device=device)
    return step_of(quantizer, z, lambda quantized: (quantized.z, quantized.loss.mean()))


def vqp(name: str, shape: Shape, device: torch.device, channels: int, **options: Any) -> Step:
    module = getattr(importlib.import_module("vector_quantize_pytorch"), name)(**options)
    z = torch.randn(shape[0] // POSITIONS, POSITIONS, channels, device=device)
    return step_of(module, z, lambda made: (made[0], made[2].sum() if len(made) > 2 else made[0].new_zeros(())))


def encodec(shape: Shape, device: torch.device) -> Step:
    n, size, dim = shape
    _bare_package("encodec")
    core = importlib.import_module("encodec.quantization.core_vq")
    module = core.VectorQuantization(dim, size, kmeans_init=False)
    z = torch.randn(n // POSITIONS, dim, POSITIONS, device=device)
    return step_of(module, z, lambda made: (made[0], made[2].sum()))


def _bare_package(name: str) -> None:
    """A package without what its first file imports: torchaudio, here, which the quantizer does not need."""
    for each in (name, f"{name}.quantization"):
        spec = find_spec(each)
        if spec is None:
            raise ImportError(f"no package {name}")
        sys.modules.setdefault(each, module_from_spec(spec))


def pythae(shape: Shape, device: torch.device) -> Step:
    from pythae.models import VQVAEConfig
    from pythae.models.vq_vae.vq_vae_utils import QuantizerEMA

    n, size, dim = shape
    config = VQVAEConfig(input_dim=(1,), latent_dim=dim, num_embeddings=size, decay=0.99)
    config.embedding_dim = dim
    z = torch.randn(n // POSITIONS, 1, POSITIONS, dim, device=device)
    return step_of(QuantizerEMA(config), z, lambda made: (made.quantized_vector, made.loss))


def contestants(shape: Shape, device: torch.device) -> Iterator[tuple[str, Callable[[], Step]]]:
    _, size, dim = shape
    table = {"dim": dim, "codebook_size": size}
    bits = size.bit_length() - 1
    yield "ema", lambda: ours("ema", "EMAQuantizer", shape, device, **table)
    yield "product", lambda: product(shape, device)
    yield "vq", lambda: ours("vq", "VectorQuantizer", shape, device, **table)
    yield "simvq", lambda: ours("simvq", "SimVQQuantizer", shape, device, **table)
    yield "ibq", lambda: ours("ibq", "IBQQuantizer", shape, device, **table)
    yield "residual 4", lambda: ours("residual", "ResidualQuantizer", shape, device, dim=dim, inner=_ema(size))
    yield "fsq", lambda: ours("fsq", "FSQQuantizer", shape, device, levels=LATTICE)
    yield "leech", lambda: ours("lattice", "LatticeQuantizer", shape, device)
    yield "lfq", lambda: ours("lfq", "LFQQuantizer", shape, device, bits=bits, heads=1)
    yield "vqp VectorQuantize", lambda: vqp("VectorQuantize", shape, device, dim, decay=0.99, **table)
    yield "vqp SimVQ", lambda: vqp("SimVQ", shape, device, dim, **table)
    yield "vqp ResidualVQ 4", lambda: vqp("ResidualVQ", shape, device, dim, num_quantizers=4, decay=0.99, **table)
    yield "vqp FSQ", lambda: vqp("FSQ", shape, device, len(LATTICE), levels=list(LATTICE))
    yield "vqp LFQ", lambda: vqp("LFQ", shape, device, bits, codebook_size=size, dim=bits)
    yield "encodec", lambda: encodec(shape, device)
    yield "pythae", lambda: pythae(shape, device)


def _ema(size: int) -> Callable[[int], nn.Module]:
    from toolkit.quantizers.ema import EMAQuantizer

    return lambda dim: EMAQuantizer(dim, codebook_size=size)


def present(shape: Shape, device: torch.device, only: list[str] | None) -> dict[str, Step]:
    made = {}
    for name, make in contestants(shape, device):
        if only is None or name in only:
            try:
                made[name] = make()
            except (ImportError, AttributeError) as e:
                print(f"{name}: not here ({e})")
    return made


def seconds(step: Step, n: int, device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    synchronize(device)
    began = clock()
    for _ in range(n):
        step()
    synchronize(device)
    return (clock() - began) / n


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def race(steps: dict[str, Step], n: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds per step of each in each round, taken in turns, every other round backwards."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        seconds(step, 3, device)
    for i in range(rounds):
        order = list(steps.items())
        for name, step in order if i % 2 == 0 else reversed(order):
            times[name].append(seconds(step, n, device))
    return times


def rows_of(shape: Shape, threads: int | None, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    base = times["ema"]
    rows = []
    for name, own in times.items():
        ratios = [b / a for a, b in zip(base, own, strict=True)]
        row = {"shape": list(shape), "threads": threads, "what": name, "ms": 1e3 * statistics.median(own)}
        row |= {"over_ema": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        row |= {"ms_low": 1e3 * min(own), "ms_high": 1e3 * max(own)}
        rows.append(row)
    return rows


def peak(step: Step, device: torch.device) -> float:
    """MiB."""
    step()
    return (_cuda_peak(step) if device.type == "cuda" else _cpu_peak(step)) / 2**20


def _cuda_peak(step: Step) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(step: Step) -> int:
    """Summed over what the allocator gives and takes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def memory_rows(shape: Shape, device: torch.device, only: list[str] | None) -> list[dict[str, Any]]:
    rows = []
    for name, step in present(shape, device, only).items():
        try:
            rows.append({"shape": list(shape), "what": name, "peak_mib": peak(step, device)})
        except torch.OutOfMemoryError:
            rows.append({"shape": list(shape), "what": name, "peak_mib": None})
    return rows


def code_rows(rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Codes per second of the Leech lattice, by its structure and by a search of all of its vectors, in turns."""
    from toolkit.nn.lookup import nearest
    from toolkit.quantizers.lattice import LatticeQuantizer

    quantizer = LatticeQuantizer().to(device)
    table = quantizer.vectors * quantizer.unit
    rows = torch.nn.functional.normalize(torch.randn(SEARCHED, 24, device=device))
    searches = {"leech": lambda: quantizer.search(rows), "leech by its table": lambda: nearest(rows, table)}
    times = race(searches, 1, rounds, device)
    shape = [SEARCHED, *table.shape]
    return [
        {"shape": shape, "what": name, "codes_per_second": SEARCHED / statistics.median(own)}
        for name, own in times.items()
    ]


def gpu_rows(shape: Shape, args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Peak memory of all, then the time of those for which there is enough."""
    memory = memory_rows(shape, device, args.only)
    fit = [row["what"] for row in memory if row["peak_mib"] is not None]
    return memory + rows_of(shape, None, race(present(shape, device, fit), args.steps, args.rounds, device))


def cpu_rows(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for shape in SHAPES:
            times = race(present(shape, device, args.only), args.steps, args.rounds, device)
            rows += shown(rows_of(shape, threads, times))
    large = [name for name in TABLES if args.only is None or name in args.only]
    return (
        rows
        + shown(memory_rows(MEMORY, device, args.only))
        + shown(memory_rows(LARGE, device, large))
        + _searched(args, device)
    )


def _searched(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    wanted = args.only is None or "leech" in args.only
    return shown(code_rows(args.rounds, device)) if wanted else []


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        n, size, dim = row["shape"]
        figures = _codes(row) if "codes_per_second" in row else _time(row) if "ms" in row else _memory(row)
        print(f"N {n:6} K {size:6} D {dim:3}  {row['what']:20}", figures, flush=True)
    return rows


def _time(row: dict[str, Any]) -> str:
    threads = f"{row['threads']} threads" if row["threads"] else ""
    spread = f"({row['ratio_low']:.2f} .. {row['ratio_high']:.2f})"
    return f"{row['ms']:9.2f} ms  {row['over_ema']:6.2f} of ema's {spread} {threads}"


def _codes(row: dict[str, Any]) -> str:
    return f"{row['codes_per_second']:9.0f} codes per second"


def _memory(row: dict[str, Any]) -> str:
    return "out of memory" if row["peak_mib"] is None else f"{row['peak_mib']:9.1f} MiB"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    found = {"torch": torch.__version__, "toolkit": toolkit.__version__}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="names of contestants; ema must be one of them")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if args.gpu else "cpu")
    rows = (
        [r for s in GPU_SHAPES for r in shown(gpu_rows(s, args, device))] + _searched(args, device)
        if args.gpu
        else cpu_rows(args, device)
    )
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


if __name__ == "__main__":
    main()
