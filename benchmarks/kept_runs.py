"""Runs that go on from one start, trained only once and kept: what ``perceptual.py`` and ``speech.py`` stand on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait would be counted as if they worked

import torch

import toolkit
from toolkit.report import Silence

Figures = dict[str, float]


def arguments(
    doc: str | None, contestants: Sequence[str], start: int, steps: int, runs: str
) -> argparse.ArgumentParser:
    """What both are told; torch gets as many threads as OMP_NUM_THREADS says, else one."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--start", type=int, default=start)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contestants", nargs="*", default=list(contestants))
    parser.add_argument("--runs", default=runs)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    return parser


def started(options: argparse.Namespace, words: list[str], seed: int) -> Path:
    """The run that the contestants of a seed go on from, at one learning rate."""
    run = Path(options.runs) / f"start{options.start}-seed{seed}"
    words = [*words, "trainer.schedule=constant", f"dataset.root={options.root}", f"seed={seed}"]
    return trained(run, words, options.start)


def continued(options: argparse.Namespace, name: str, words: list[str], start: Path, seed: int) -> Path:
    """A contestant's run from there, while the rate falls to zero."""
    run = Path(options.runs) / f"{name}-start{options.start}-steps{options.steps}-seed{seed}"
    words = [*words, "trainer.schedule=cosine", f"dataset.root={options.root}", f"seed={seed + 100}", f"init={start}"]
    return trained(run, words, options.steps)


def trained(run: Path, words: list[str], steps: int) -> Path:
    """A run of so many steps, unless it is there; its words and the seconds of its process are kept beside it."""
    names = ("steps", "validate_every", "checkpoint_every", "pictures_every")
    words = [*words, *(f"trainer.{name}={steps}" for name in names)]
    if not (run / "kept.json").exists():
        with warnings.catch_warnings(action="ignore"):  # other objectives have not all of an experiment's options
            config = toolkit.compose(*words)
        began = time.process_time()
        toolkit.train(config, run, report=Silence())
        (run / "kept.json").write_text(json.dumps({"words": words, "seconds": time.process_time() - began}))
    elif json.loads((run / "kept.json").read_text())["words"] != words:
        raise SystemExit(f"{run} was trained with other words: give another --runs")
    return run


def figures(run: Path, measure: Callable[[Path], Figures], **asked: Any) -> Figures:
    """A run's, measured unless they are there as they are ``asked`` for, and the seconds of its training."""
    path = run / "figures.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("asked") != asked:
        seconds = json.loads((run / "kept.json").read_text())["seconds"]
        found = {"asked": asked, "figures": measure(run) | {"seconds": seconds}}
        path.write_text(json.dumps(found))
    values: Figures = found["figures"]
    return shown(run.name, values)


def shown(name: str, values: Figures) -> Figures:
    print(f"{name}: " + "  ".join(f"{figure} {value:.4g}" for figure, value in values.items()), flush=True)
    return values


def concluded(options: argparse.Namespace, rows: dict[str, list[Figures]], **more: Any) -> None:
    """Prints each contestant's mean and spread over seeds, and writes all figures where that is asked for."""
    for name, of_seeds in rows.items():
        columns = {figure: [row[figure] for row in of_seeds] for figure in of_seeds[0]}
        print(f"{name}: " + "  ".join(f"{figure} {_spread(values)}" for figure, values in columns.items()))
    if options.out:
        about: dict[str, Any] = {"date": str(date.today()), "machine": platform.machine(), "torch": torch.__version__}
        about |= {"start": options.start, "steps": options.steps, "seeds": options.seeds, **more, "figures": rows}
        options.out.write_text(json.dumps(about, indent=1) + "\n")


def _spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"
