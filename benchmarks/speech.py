"""What a distance of spectrograms and an adversary are worth to a codec of speech: the same network trained for as many
steps by its likelihood alone, with spectrograms, and with both.

    python benchmarks/speech.py --root speech [--start 800] [--steps 500] [--seeds 0]
        [--contestants likelihood spectral both] [--runs outputs/speech] [--sheet sheet.png] [--out results.json]

The network is that of the experiment audio_codec_small. For each seed a start is trained by the likelihood alone, at a
fixed rate; from it every contestant goes on for ``--steps`` more, with the same options but its objective, while the
rate falls to zero. Each run is kept in a folder below ``--runs`` and trained only once, so that the table can be added
to. Figures are those of ``--seconds`` from the middle of each utterance of the test split, which are encoded whole;
``silence`` is what zeros would have. The sheet has the spectrograms of two of them, with each contestant's below.
The packages pesq and pystoi are used where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import toolkit
from toolkit.build import build_dataset
from toolkit.report import Silence

EXPERIMENT = ["experiment=audio_codec_small", "stage=autoencoder", "metric=[reconstruction,codebook,audio_quality]"]
ALONE = ["trainer.critic_learning_rate=null", "trainer.critic_start=0"]
PLAIN = ["objective=elbo", *ALONE]
SPECTRA = ["share=1", "windows=[128,512,2048]", "mel_bands=40", "balance=0.9"]
SPECTRAL = ["objective=audio_stft", *(f"objective.{word}" for word in SPECTRA), *ALONE]
CONTESTANTS = {"likelihood": PLAIN, "spectral": SPECTRAL, "both": []}
FIGURES = ("mel_distance", "stft_distance", "si_sdr", "pesq", "stoi")


def trained(run: Path, words: list[str], steps: int) -> Path:
    """A run of so many steps, unless it is there."""
    if not (run / "seconds.json").exists():
        names = ("steps", "validate_every", "checkpoint_every", "pictures_every")
        start = time.process_time()
        every = [f"trainer.{name}={steps}" for name in names]
        with warnings.catch_warnings(action="ignore"):  # other objectives have not all of the experiment's options
            config = toolkit.compose(*EXPERIMENT, "trainer.warmup=30", *words, *every)
        toolkit.train(config, run, report=Silence())
        (run / "seconds.json").write_text(json.dumps(time.process_time() - start))
    return run


def started(options: argparse.Namespace, seed: int) -> Path:
    words = [*PLAIN, "trainer.schedule=constant", f"dataset.root={options.root}", f"seed={seed}"]
    return trained(Path(options.runs) / f"start{options.start}-seed{seed}", words, options.start)


def contestant(options: argparse.Namespace, name: str, seed: int) -> Path:
    """The critic learns alone for the first tenth of the steps, and counts in full after the third tenth."""
    tenth = options.steps // 10
    adversary = [f"trainer.critic_start={tenth // 2}", f"objective.start={tenth}", f"objective.ramp={2 * tenth}"]
    words = [*(CONTESTANTS[name] or adversary), f"dataset.root={options.root}", f"seed={seed + 100}"]
    run = Path(options.runs) / f"{name}-start{options.start}-steps{options.steps}-seed{seed}"
    return trained(run, [*words, f"init={started(options, seed)}"], options.steps)


def utterances(options: argparse.Namespace) -> list[Tensor]:
    """The test split's, ``(1, 1, samples)`` each."""
    words = [f"dataset.root={options.root}", f"dataset.seconds={options.seconds}", "dataset.trim=40"]
    dataset = build_dataset(toolkit.compose(*EXPERIMENT, *words))
    step = max(1, dataset.size("test") // options.utterances)
    return [dataset.example("test", i, None)["x"].unsqueeze(0) for i in range(0, dataset.size("test"), step)]


def figures(pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Means of the metric audio_quality over reconstructions and originals."""
    from types import SimpleNamespace

    from toolkit import CodeSpec, DataSpec
    from toolkit_audio.quality import QualityMetric

    data = DataSpec(1, tuple(pairs[0][1].shape[2:]), rates=(16000.0,))
    packages = {name: find_spec(package) is not None for name, package in (("pesq", "pesq"), ("stoi", "pystoi"))}
    metric = QualityMetric(data, CodeSpec((), ()), **packages)
    for estimate, x in pairs:
        metric.update(x, SimpleNamespace(likelihood=SimpleNamespace(mean=estimate)), {})  # type: ignore[arg-type]
    values = metric.compute()
    nmse = sum(float((e - x).square().sum()) for e, x in pairs) / sum(float(x.square().sum()) for _, x in pairs)
    return {"nmse": nmse} | {name: values[name] for name in FIGURES if name in values}


def of_run(run: Path, originals: list[Tensor]) -> dict[str, float]:
    path = run / "figures.json"
    if not path.exists():
        model = toolkit.load(run, "cpu")
        values = figures([(model.reconstruct(x).float(), x) for x in originals])
        values["perplexity"] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["perplexity"]
        values["seconds"] = json.loads((run / "seconds.json").read_text())
        path.write_text(json.dumps(values))
    return shown(run.name, json.loads(path.read_text()))


def shown(name: str, values: dict[str, float]) -> dict[str, float]:
    print(f"{name}: " + "  ".join(f"{figure} {value:.4g}" for figure, value in values.items()), flush=True)
    return values


def sheet(options: argparse.Namespace, originals: list[Tensor], path: Path) -> None:
    models = [toolkit.load(contestant(options, name, options.seeds[0]), "cpu") for name in options.contestants]
    x = torch.cat([originals[len(originals) // 4], originals[len(originals) // 2]])
    models[0].dataset.plot([x, *(model.reconstruct(x) for model in models)], models[0].spec, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--start", type=int, default=800)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--seconds", type=float, default=1.92)
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--runs", default="outputs/speech")
    parser.add_argument("--sheet")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    originals = utterances(options)
    rows = {"silence": [shown("silence", figures([(torch.zeros_like(x), x) for x in originals]))]}
    for seed in options.seeds:
        rows.setdefault("start", []).append(of_run(started(options, seed), originals))
        for name in options.contestants:
            rows.setdefault(name, []).append(of_run(contestant(options, name, seed), originals))
    if options.sheet:
        sheet(options, originals, Path(options.sheet))
    if options.out:
        about: dict[str, Any] = {"date": str(date.today()), "machine": platform.machine(), "torch": torch.__version__}
        about |= {"start": options.start, "steps": options.steps, "seeds": options.seeds}
        about |= {"utterances": len(originals), "seconds": options.seconds, "figures": rows}
        Path(options.out).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
