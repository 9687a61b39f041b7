"""Runs the parts, each in a process of its own, and writes what they found."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import gpu
from benchmarks.gpu.part import main as run
from benchmarks.gpu.parts import BUDGETS, PARTS, Part
from benchmarks.gpu.rows import without_paths

ROOT = Path(__file__).resolve().parents[2]
LEAST = 10
"""Seconds below which no part is begun."""
PATIENCE = 4
"""A dry run's limits are so many times those of a GPU, which it is not."""


def main(words: Sequence[str] | None = None) -> int:
    args = _arguments(words)
    chosen = [part for part in PARTS if _is_chosen(part, args)]
    out = Path(args.out or os.environ.get("OUT") or (tempfile.mkdtemp() if args.dry else ROOT / "benchmarks/results"))
    out.mkdir(parents=True, exist_ok=True)
    budget = args.budget or sum(seconds for half, seconds in BUDGETS.items() if half in {p.half for p in chosen})
    budget *= PATIENCE if args.dry else 1
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(chosen, args, Path(scratch), budget, lambda results: write(results, args, out))
    summarize(results["parts"])
    print(write(results, args, out))
    return int(args.dry and any(part["rc"] != 0 for part in results["parts"]))


def measure(
    parts: Sequence[Part],
    args: argparse.Namespace,
    scratch: Path,
    budget: float,
    save: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """The results of all parts, saved after each; those for which no time is left are skipped."""
    until = time.monotonic() + budget
    machine = next((row["found"] for row in run_part("machine", 60 * PATIENCE, args, scratch)["rows"]), None)
    if machine is None:
        raise SystemExit(2)
    name = args.name or ("dry" if args.dry else machine["name"])
    kept = {key: value for key, value in machine.items() if key != "name"}
    done: list[dict[str, Any]] = []
    results = {"date": time.strftime("%Y-%m-%d"), "name": name, **kept, "dry": args.dry, "parts": done}
    for part in parts:
        left = until - time.monotonic()
        if left < LEAST:
            done.append({"part": part.name, "rc": None, "why": "no time was left", "rows": []})
            continue
        limit = min(part.seconds * (PATIENCE if args.dry else 1), left)
        print(f"== {part.name}: {part.what} (at most {limit:.0f} s)", flush=True)
        done.append((run_here if args.dry else run_part)(part.name, limit, args, scratch))
        save(results)
    return results


def write(results: dict[str, Any], args: argparse.Namespace, out: Path) -> Path:
    """The results' file."""
    path = out / f"gpu-{results['name']}{f'-{args.half}' if args.half else ''}.json"
    path.write_text(json.dumps(without_paths(results), indent=1) + "\n")
    return path


def run_part(name: str, limit: float, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """A part in a process, and the rows that it wrote, however it ended; ``rc`` is None for one that took too long."""
    command = [sys.executable, "-m", "benchmarks.gpu.part", *_words(name, limit, args, scratch)]
    began = time.monotonic()
    rc: int | None
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            rc = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            rc = None
        with suppress(ProcessLookupError):  # its own processes, too
            os.killpg(process.pid, signal.SIGKILL)
    return _found(name, rc, began, scratch)


def run_here(name: str, limit: float, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """A part in this process, as a dry run has it: to import torch for each would take longer than all they do."""
    began = time.monotonic()
    try:
        rc = run(_words(name, limit, args, scratch))
    except Exception:
        traceback.print_exc()
        rc = 1
    return _found(name, rc, began, scratch)


def _words(name: str, limit: float, args: argparse.Namespace, scratch: Path) -> list[str]:
    words = [name, f"--out={scratch / f'{name}.json'}", f"--seconds={limit:.0f}"]
    return [*words, *(["--dry"] if args.dry else []), *([f"--data={args.data}"] if args.data else [])]


def _found(name: str, rc: int | None, began: float, scratch: Path) -> dict[str, Any]:
    path = scratch / f"{name}.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    return {"part": name, "rc": rc, "seconds": round(time.monotonic() - began, 1), "rows": rows}


def summarize(parts: Sequence[dict[str, Any]]) -> None:
    """A line for each part, and each row that is not well."""
    for part in parts:
        rows = part["rows"]
        bad = [row for row in rows if row["ok"] is False]
        missing = sum(row["ok"] is None for row in rows)
        ended = part.get("why") or ("took too long" if part["rc"] is None else f"rc {part['rc']}")
        print(f"{part['part']:10} {ended}, {len(rows)} rows, {len(bad)} not well, {missing} not there")
        for row in bad:
            print(f"    {row['check']}: {row['found']}")


def _is_chosen(part: Part, args: argparse.Namespace) -> bool:
    if args.only:
        return part.name in args.only.split(",")
    return args.half in (None, part.half)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=gpu.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    halves = parser.add_mutually_exclusive_group()
    halves.add_argument("--first", dest="half", action="store_const", const=1, help="what should hold: 5 minutes")
    halves.add_argument("--second", dest="half", action="store_const", const=2, help="how fast it is: 7 minutes")
    parser.add_argument("--only", help=f"parts: {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--dry", action="store_true", help="every part, tiny, on a CPU")
    parser.add_argument("--data", help="CIFAR-10's folder or archive; without it, the whole run learns shapes")
    parser.add_argument("--out", help="folder of the results; by default $OUT, or benchmarks/results")
    parser.add_argument("--name", help="of the results' file, gpu-NAME.json; by default the card's")
    parser.add_argument("--budget", type=float, help="seconds in all; by default those of the halves")
    args = parser.parse_args(words)
    unknown = set(args.only.split(",") if args.only else ()) - {part.name for part in PARTS}
    if unknown:
        parser.error(f"--only: no part {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
