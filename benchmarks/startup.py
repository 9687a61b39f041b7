"""How long commands take that only look: with many plugins installed, and none of them imported.

    python benchmarks/startup.py [--plugins 52] [--components 10] [--rounds 9] [--out results.json]

Writes so many packages as they lie in a site folder once they are installed (modules, YAML presets, dist-info), puts
the folder on PYTHONPATH, and runs each command as a process of its own, in turns; medians of the clock, and of the
time of the process, in seconds. Each imports a component's module only if something is wrong: these raise.

    python       the interpreter alone
    plugins      toolkit plugins
    cfg          toolkit train experiment=plugin_00 --cfg job
    completion   what the shell asks for at toolkit train encoder=
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
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

KINDS = {"encoder": "Encoder", "decoder": "Decoder", "quantizer": "Quantizer", "prior": "Prior", "metric": "Metric"}
COMMANDS = {
    "python": ("-c", "pass"),
    "plugins": ("-m", "toolkit", "plugins"),
    "cfg": ("-m", "toolkit", "train", "experiment=plugin_00", "--cfg", "job"),
    "completion": ("-m", "toolkit", "completion", "query", "toolkit train encoder="),
}
RAISE = "raise ImportError('it was imported')\n"
HEAD = f"""from typing import Literal

import torch
from toolkit import Decoder, Encoder, Metric, Prior, Quantizer

{RAISE}"""
CLASS = '''

class {name}({interface}):
    """Component {number} of a plugin.

    Args:
        hidden: channels.
        layers: how many.
        norm: which one.
    """

    def __init__(
        self, {given}, *, hidden: int = 64, layers: int = 4, norm: Literal["none", "group"] = "none", rate: float = 0.1
    ) -> None: ...
'''
GIVEN = {"prior": "code_spec, conditions", "metric": "data", "quantizer": "dim"}
DATASET = '''

class Data(Dataset):
    """Data that is nowhere."""

    def __init__(self, *, root: str = "data") -> None: ...
'''
EXPERIMENT = """# @package _global_
defaults:
  - override /dataset: {name}
  - override /encoder: {name}_encoder_0
  - override /quantizer: {name}_quantizer_0
  - override /decoder: {name}_decoder_0
  - override /metric: []
  - _self_
encoder: {{hidden: 32}}
"""


def write_site(site: Path, plugins: int, components: int) -> None:
    """So many plugins, of so many components each beside a dataset, as an installer leaves them."""
    for number in range(plugins):
        _write_plugin(site, f"plugin_{number:02d}", components)


def _write_plugin(site: Path, name: str, components: int) -> None:
    package, info = site / name, site / f"bench_{name}-1.0.dist-info"
    (package / "conf" / "experiment").mkdir(parents=True)
    info.mkdir()
    made = [(kind, i) for i in range(components) for kind in KINDS][:components]
    for kind, interface in KINDS.items():
        source = HEAD
        for number in (i for own, i in made if own == kind):
            given = GIVEN.get(kind, "data, dim")
            source += CLASS.format(name=f"{interface}{number}", interface=interface, number=number, given=given)
        (package / f"{kind}.py").write_text(source)
    (package / "__init__.py").write_text(RAISE)
    (package / "dataset.py").write_text("from toolkit import Dataset\n" + DATASET)
    (package / "conf" / "experiment" / f"{name}.yaml").write_text(EXPERIMENT.format(name=name))
    points = [f"[toolkit.conf]\n{name} = {name}.conf\n[toolkit.dataset]\n{name} = {name}.dataset:Data"]
    for kind, interface in KINDS.items():
        points.append(f"[toolkit.{kind}]")
        points += [f"{name}_{kind}_{i} = {name}.{kind}:{interface}{i}" for own, i in made if own == kind]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bench-{name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("")


def environment(site: Path) -> dict[str, str]:
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def imported(words: tuple[str, ...], site: Path) -> set[str]:
    """The modules that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], env=environment(site), capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def seconds(words: tuple[str, ...], site: Path) -> tuple[float, float]:
    """Of the clock, and of the process."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environment(site), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    clock = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return clock, used.ru_utime + used.ru_stime


def race(site: Path, rounds: int) -> list[dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for words in COMMANDS.values():  # bytecode is written once, as by an installer
        seconds(words, site)
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            times[name].append(seconds(words, site))
    return [_row(name, own, "torch" in imported(COMMANDS[name], site)) for name, own in times.items()]


def _row(name: str, times: list[tuple[float, float]], torch: bool) -> dict[str, Any]:
    clock, process = ([each[i] for each in times] for i in (0, 1))
    row = {"what": name, "seconds": statistics.median(clock), "low": min(clock), "high": max(clock)}
    return {**row, "process": statistics.median(process), "process_low": min(process), "imports_torch": torch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugins", type=int, default=52)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_site(Path(folder), args.plugins, args.components)
        rows = race(Path(folder), args.rounds)
    for row in rows:
        torch = "imports torch" if row["imports_torch"] else "no torch"
        spread = f"({row['low']:.3f} .. {row['high']:.3f})"
        print(f"{row['what']:10} {row['seconds']:.3f} s {spread}, of the process {row['process']:.3f} s, {torch}")
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "hydra": version("hydra-core"),
        "toolkit": version("discrete-toolkit"),
        "arguments": {k: str(v) for k, v in vars(args).items() if k != "out"},
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
