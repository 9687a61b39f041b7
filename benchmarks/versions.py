"""A training step on a CPU in two versions of toolkit, each in a process of its own, in turns.

    python benchmarks/versions.py --before other/.venv/bin/python [--root data] [--out results.json] [NAME …]

``--before`` is the Python of an environment that has the other version; this one's is the one that runs the script.
Both train the same experiment from the same seed on the same batches, CIFAR-10's or noise, on one thread. It is the
time of the process that counts. Steps are taken with their running metrics, without the log. A ratio is the median over
rounds of the other's time over this one's in the same round, of several pairs of processes, as where a process's
tensors lie in memory can make its convolutions half as fast: above 1 means that this version is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SMALL = ["encoder.hidden=32", "decoder.hidden=32", "trainer.batch_size=16", "trainer.workers=0"]
LOGISTIC = ["likelihood=logistic", "likelihood.mixtures=2"]
CASES = {
    "vqvae": ["experiment=image_cifar10_vqvae", *SMALL],
    "vqvae logistic": [
        *("experiment=image_cifar10_vqvae", *SMALL, *LOGISTIC),
        *("dim=80", "quantizer.inner.commitment=96"),
    ],
    "modern": ["experiment=image_cifar10_modern", *SMALL],
    "vae": ["experiment=image_cifar10_vae", *SMALL],
    "notebook": ["experiment=image_cifar10_notebook", "trainer.workers=0"],
}
"""Experiments at a CPU's size; ``logistic``: as in baselines.py."""


def child(words: list[str], root: str | None) -> None:
    """Takes as many steps as each line of its input says, and prints the seconds of one."""
    import torch

    from toolkit.batches import TrainBatches
    from toolkit.build import build_autoencoder, build_objective
    from toolkit.cli.config.compose import compose
    from toolkit.optimization import Optimization
    from toolkit.running_metrics import RunningMetrics
    from toolkit.training import Stage, train_steps
    from toolkit_image.cifar10 import CIFAR10Dataset

    torch.set_num_threads(1)
    config = compose(words).config
    spec = CIFAR10Dataset().spec if root is None else CIFAR10Dataset(root=root).spec
    examples: Any = Noise() if root is None else CIFAR10Dataset(root=root)
    torch.manual_seed(0)
    model = build_autoencoder(config, spec)
    stage, options = Stage(build_objective(config, model), model), config.trainer
    batches = TrainBatches(examples, torch.device("cpu"), batch_size=options.batch_size, seed=0, workers=0)
    steps, running = train_steps(stage, batches, Optimization(stage, options)), RunningMetrics()
    for line in sys.stdin:
        began = time.process_time()
        for _ in range(int(line)):
            metrics = next(steps)
            running.add(0, metrics)
        row = {"seconds": (time.process_time() - began) / int(line), "loss": float(metrics["loss"])}
        print(json.dumps({**row, "torch": str(torch.__version__)}), flush=True)


class Noise:
    """Random images in place of files."""

    def size(self, split: str) -> int:
        return 2000

    def example(self, split: str, index: int, generator: object) -> dict[str, Any]:
        import torch

        return {"x": torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(index)).byte()}


class Version:
    """A process that trains."""

    def __init__(self, python: str, words: list[str], root: str | None) -> None:
        command = [python, str(Path(__file__).resolve()), "--child", json.dumps(words)]
        command += [] if root is None else ["--root", root]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def take(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def race(name: str, args: argparse.Namespace) -> dict[str, Any]:
    pythons = {"before": args.before, "after": sys.executable}
    times: dict[str, list[float]] = {which: [] for which in pythons}
    for _ in range(args.pairs):
        versions = {which: Version(python, CASES[name], args.root) for which, python in pythons.items()}
        last = {which: version.take(args.steps) for which, version in versions.items()}  # initializes
        for number in range(args.rounds):
            for which in list(versions) if number % 2 else reversed(versions):
                last[which] = versions[which].take(args.steps)
                times[which].append(last[which]["seconds"])
        for version in versions.values():
            version.end()
    ratios = [before / after for before, after in zip(times["before"], times["after"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "what": name,
        "words": CASES[name],
        "milliseconds_before": 1e3 * statistics.median(times["before"]),
        "milliseconds_after": 1e3 * statistics.median(times["after"]),
        "ratio": statistics.median(ratios),
        "quartiles": [low, high],
        "loss_before": last["before"]["loss"],
        "loss_after": last["after"]["loss"],
        "torch": last["after"]["torch"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--before", metavar="PYTHON")
    parser.add_argument("--commit", help="of the other version, to be recorded")
    parser.add_argument("--root")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child), args.root)
        return
    if not args.before:
        parser.error("--before: the Python of an environment with the other version")
    rows = []
    for name in args.names or CASES:
        rows.append(race(name, args))
        shown = "before {milliseconds_before:.1f} ms  after {milliseconds_after:.1f} ms  ratio {ratio:.3f}  quartiles"
        print(f"{name:16}", shown.format(**rows[-1]), "{:.3f} {:.3f}".format(*rows[-1]["quartiles"]), flush=True)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "images": "noise" if args.root is None else "CIFAR-10",
        "before": args.commit,
        "steps": args.steps,
        "rounds": args.rounds,
        "pairs": args.pairs,
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
