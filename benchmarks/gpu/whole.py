"""A run from its experiment, by the commands: both stages for the minutes there are, evaluated, sampled and resumed.

Without CIFAR-10 the same model learns shapes, whose bits per dim compare with nothing.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import composed
from benchmarks.gpu.rows import Judged, NotThereError, Rows
from benchmarks.gpu.setting import Setting

SHARES = {"autoencoder": 0.4, "prior": 0.18}
"""Of the part's time, for the training of each stage; the rest is for what comes behind."""
SWITCHES = ("trainer.graph=true", "prior_trainer.graph=true")
TINY = (
    *("encoder.hidden=8", "decoder.hidden=8", "prior.hidden=8", "prior.layers=1", "trainer.steps=2"),
    *("prior_trainer.steps=2", "trainer.batch_size=4", "prior_trainer.batch_size=4", "trainer.validate_examples=4"),
    *("prior_trainer.validate_examples=4", "dataset.train_size=8", "dataset.val_size=4", "dataset.test_size=4"),
)
NEVER = 100_000_000


def run(rows: Rows, setting: Setting) -> None:
    folder = setting.scratch / "run"
    begin = ["train", *_words(setting), "stage=autoencoder", f"hydra.run.dir={folder}"]
    rows.check("stage one", lambda: trained(begin, folder, "autoencoder", setting))
    go_on = ["train", f"run={folder}", "stage=prior"]
    rows.check("stage two", lambda: trained(go_on, folder, "prior-pixelcnn", setting))
    rows.check("evaluate", lambda: evaluated(folder, setting))
    rows.check("sample", lambda: sampled(folder, setting))
    rows.check("reconstruct", lambda: len(_toolkit(["reconstruct", *_of(folder, setting), "examples=8"], 40)))
    rows.check("resume", lambda: resumed(folder, setting))


def trained(words: list[str], folder: Path, stage: str, setting: Setting) -> Judged:
    """Trains until the stage's time is over, when a signal stops it as a terminal would; what its log says last."""
    kind = stage.partition("-")[0]
    _toolkit(words, setting.seconds * SHARES[kind], stops=True)
    steps = [path.name for path in sorted((folder / _checkpoints(stage)).glob("step-*"))]
    lines = [line for line in _log(folder) if line["stage"] == stage and line["split"] == "train"]
    shown = ("step", "loss", "nll", "mse", "images_per_second", "examples_per_second", "data_wait", "peak_memory_gib")
    last = {name: lines[-1][name] for name in shown if name in lines[-1]} if lines else {}
    return Judged(bool(steps and lines), {"checkpoint": steps[-1] if steps else None, **last})


def evaluated(folder: Path, setting: Setting) -> Judged:
    examples = 4 if setting.dry else 2048
    _toolkit(["evaluate", *_of(folder, setting), f"examples={examples}"], 60)
    metrics = json.loads((folder / "evaluation.json").read_text())
    shown = ("bits_per_dim", "data_bits_per_dim", "code_bits_per_dim", "psnr", "usage", "perplexity")
    return Judged(metrics["examples"] == examples, {name: metrics[name] for name in shown if name in metrics})


def sampled(folder: Path, setting: Setting) -> str:
    """The line that tells how fast codes came."""
    lines = _toolkit(["sample", *_of(folder, setting), f"n={2 if setting.dry else 64}"], 60)
    return next(line for line in lines if line.startswith("samples: "))


def resumed(folder: Path, setting: Setting) -> Judged:
    """Two more steps of stage one, from its checkpoint."""
    (before, *_) = sorted((folder / "autoencoder").glob("step-*"), reverse=True)
    step = int(before.name[5:]) + 2
    more = ["stage=autoencoder", f"trainer.steps={step}", f"trainer.device={setting.device.type}"]
    _toolkit(["train", f"run={folder}", *more], 60)
    return Judged((folder / "autoencoder" / f"step-{step:08d}").is_dir(), f"{before.name} to {step}")


def _words(setting: Setting) -> list[str]:
    words = ["experiment=image_cifar10_vqvae", "prior_trainer.allow_collapsed=true"]
    words += [f"dataset.root={setting.data}"] if setting.data else ["dataset=image_shapes"]
    for trainer in ("trainer", "prior_trainer"):
        words += [f"{trainer}.device={setting.device.type}", f"{trainer}.checkpoint_every={NEVER}"]
        words += [f"{trainer}.validate_every={NEVER}", f"{trainer}.pictures_every={NEVER}", f"{trainer}.log_every=1"]
        words += [] if setting.dry else [f"{trainer}.precision=bf16", f"{trainer}.log_every=50"]
    if setting.is_cuda:
        words += [switch for switch in SWITCHES if _is_there(switch)]
    return [*words, *TINY] if setting.dry else words


def _is_there(word: str) -> bool:
    try:
        composed([word])
    except NotThereError:
        return False
    return True


def _of(folder: Path, setting: Setting) -> list[str]:
    return [f"run={folder}", f"device={setting.device.type}"]


def _checkpoints(stage: str) -> str:
    kind, _, name = stage.partition("-")
    return f"priors/{name}" if kind == "prior" else kind


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _toolkit(words: list[str], seconds: float, stops: bool = False) -> list[str]:
    """What a command prints. RuntimeError where it fails, or takes too long; one that ``stops`` is asked to, once."""
    print("toolkit", *words, flush=True)
    command = [sys.executable, "-m", "toolkit", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        asked = False
        for patience, number in ((seconds, signal.SIGINT if stops else signal.SIGKILL), (30, signal.SIGKILL)):
            try:
                text, _ = process.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                asked = stops
                process.send_signal(number)
        else:
            text, _ = process.communicate()
    print(text, flush=True)
    if process.returncode and not (asked and process.returncode != -signal.SIGKILL):
        raise RuntimeError(f"toolkit {words[0]} ended with {process.returncode}: {' '.join(text.split())[-300:]}")
    return text.splitlines()
