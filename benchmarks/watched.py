"""What loggers and a page that somebody watches cost a training.

    python benchmarks/watched.py [--steps 150] [--turns 15] [--threads 2] [--out results.json]

Two trainings of ``experiment=image_shapes``, at its own size, are processes of their own that take turns of ``steps``
steps, always the same steps of both; the first turn warms up and does not count.

    plain      no logger, and nobody watches
    watched    logger=[tensorboard,csv,report], and ``toolkit watch`` beside it, which a client asks as its page does:
               for the state every three seconds, and for the page where that is another one

A turn has all that a training does in these steps: validations, pictures and checkpoints, too. What is asked for is the
``ratio``, steps per second of the watched over those of the plain one: the median over turns, and that of all turns'
sums, which has the rare steps that the median leaves out. A page that is being made when a turn ends is waited for and
not counted; ``pages`` and the seconds that the server's process worked say how much of it there was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import toolkit

LOGGERS = "tensorboard,csv,report"
EVERY = 3.0
"""Seconds between two questions of a page."""


class Turns:
    """A report that lets a training go on for so many steps whenever a line comes in, and prints their seconds."""

    def __init__(self, steps: int) -> None:
        self.steps, self.began = steps, 0.0

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._wait()

    def step(self, done: int) -> None:
        if done % self.steps == 0:
            print(time.perf_counter() - self.began, flush=True)
            self._wait()

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def _wait(self) -> None:
        sys.stdin.readline()
        self.began = time.perf_counter()


def work(folder: Path, words: list[str], steps: int, threads: int) -> None:
    """One training, in turns."""
    torch.set_num_threads(threads)
    toolkit.train(toolkit.compose("experiment=image_shapes", "stage=autoencoder", *words), folder, report=Turns(steps))


class Training:
    """A process that trains when it is asked to."""

    def __init__(self, folder: Path, words: list[str], steps: int, threads: int) -> None:
        options = ["--folder", str(folder), "--steps", str(steps), "--threads", str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *options, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> float:
        """Its seconds for the next steps."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate("\n")


class Watched:
    """``toolkit watch`` of a run, and the page of it that a browser has open."""

    def __init__(self, run: Path) -> None:
        words = [sys.executable, "-m", "toolkit", "watch", f"run={run}", "port=0"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.address, self.state, self.pages = self.process.stdout.readline().strip(), "", 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """In the block a client asks."""
        closed = threading.Event()
        client = threading.Thread(target=self._follow, args=(closed,))
        client.start()
        try:
            yield
        finally:
            closed.set()
            client.join()

    def _follow(self, closed: threading.Event) -> None:
        while not closed.is_set():
            state = self._asked("state")
            if state != self.state:
                self._asked("")
                self.pages += 1
            self.state = state
            closed.wait(EVERY)

    def _asked(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path) as answer:
            text: str = answer.read().decode("utf-8")
            return text

    def end(self) -> float:
        """The seconds that it has worked."""
        self.process.terminate()
        _, _, usage = os.wait4(self.process.pid, 0)
        return usage.ru_utime + usage.ru_stime


def race(folder: Path, steps: int, turns: int, threads: int) -> dict[str, Any]:
    """Seconds of each turn of both, the plain one first in every other turn."""
    length = f"trainer.steps={steps * (turns + 1)}"
    plain = Training(folder / "plain", [length], steps, threads)
    logged = Training(folder / "watched", [length, f"logger=[{LOGGERS}]"], steps, threads)
    plain.turn(), logged.turn()
    watch = Watched(folder / "watched")
    with watch.open():
        pass
    times: dict[str, list[float]] = {"plain": [], "watched": []}
    for i in range(turns):
        for name in ("plain", "watched") if i % 2 == 0 else ("watched", "plain"):
            if name == "plain":
                times[name].append(plain.turn())
            else:
                with watch.open():
                    times[name].append(logged.turn())
    plain.end()
    logged.end()
    return {**times, "pages": watch.pages, "page_seconds": watch.end()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        work(args.folder, args.words, args.steps, args.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = race(Path(folder), args.steps, args.turns, args.threads)
    plain, watched = found["plain"], found["watched"]
    ratios = [a / b for a, b in zip(plain, watched, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    rate = args.steps * args.turns / sum(plain)
    print(f"plain: {rate:.2f} steps per second; {found['pages']} pages, {found['page_seconds']:.2f} s of their process")
    print(f"ratio: {middle:.3f} (quartiles {low:.3f} to {high:.3f}); of the sums {sum(plain) / sum(watched):.3f}")
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"CPU, {args.threads} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "arguments": {"steps": args.steps, "turns": args.turns},
        "ratio": middle,
        "quartiles": [low, high],
        "ratio_of_sums": sum(plain) / sum(watched),
        **found,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
