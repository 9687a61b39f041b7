"""One part, in this process: ``python -m benchmarks.gpu.part NAME --out FILE``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu.machine import machine, name_of
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.setting import Setting


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.gpu.part")
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--data")
    args = parser.parse_args(words)
    if not args.dry and not torch.cuda.is_available():
        parser.error("this machine has no GPU that torch can use: --dry runs every part, tiny, on a CPU")
    device, rows = torch.device("cpu" if args.dry else "cuda"), Rows(args.out)
    if args.name == "machine":
        rows.check("machine", lambda: {"name": name_of(device), **machine(device)})
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(device, args.dry, Path(scratch), args.seconds, args.data)
        import_module(f"benchmarks.gpu.{args.name}").run(rows, setting)
    return int(args.dry and any(row["ok"] is False for row in rows.rows))


if __name__ == "__main__":
    raise SystemExit(main())
