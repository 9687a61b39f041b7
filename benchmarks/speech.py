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
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import kept_runs
import torch
from torch import Tensor

import toolkit
from toolkit.build import build_dataset

EXPERIMENT = ["experiment=audio_codec_small", "stage=autoencoder", "metric=[reconstruction,codebook,audio_quality]"]
WARMUP = "trainer.warmup=30"
ALONE = ["trainer.critic_learning_rate=null", "trainer.critic_start=0"]
PLAIN = ["objective=elbo", *ALONE]
SPECTRA = ["share=1", "windows=[128,512,2048]", "mel_bands=40", "balance=0.9"]
SPECTRAL = ["objective=audio_stft", *(f"objective.{word}" for word in SPECTRA), *ALONE]
CONTESTANTS = {"likelihood": PLAIN, "spectral": SPECTRAL, "both": []}
FIGURES = ("mel_distance", "stft_distance", "si_sdr", "pesq", "stoi")


def started(options: argparse.Namespace, seed: int) -> Path:
    return kept_runs.started(options, [*EXPERIMENT, WARMUP, *PLAIN], seed)


def contestant(options: argparse.Namespace, name: str, seed: int) -> Path:
    """The critic learns alone for the first tenth of the steps, and counts in full after the third tenth."""
    tenth = options.steps // 10
    adversary = [f"trainer.critic_start={tenth // 2}", f"objective.start={tenth}", f"objective.ramp={2 * tenth}"]
    words = [*EXPERIMENT, WARMUP, *(CONTESTANTS[name] or adversary)]
    return kept_runs.continued(options, name, words, started(options, seed), seed)


def utterances(options: argparse.Namespace) -> list[Tensor]:
    """The test split's, ``(1, 1, samples)`` each."""
    words = [f"dataset.root={options.root}", f"dataset.seconds={options.seconds}", "dataset.trim=40"]
    dataset = build_dataset(toolkit.compose(*EXPERIMENT, *words))
    step = max(1, dataset.size("test") // options.utterances)
    return [dataset.example("test", i, None)["x"].unsqueeze(0) for i in range(0, dataset.size("test"), step)]


def figures(pairs: list[tuple[Tensor, Tensor]]) -> kept_runs.Figures:
    """Means of the metric audio_quality over reconstructions and originals."""
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


def of_run(run: Path, originals: list[Tensor]) -> kept_runs.Figures:
    model = toolkit.load(run, "cpu")
    values = figures([(model.reconstruct(x).float(), x) for x in originals])
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return values | {"perplexity": logged["perplexity"]}


def sheet(options: argparse.Namespace, originals: list[Tensor], path: Path) -> None:
    models = [toolkit.load(contestant(options, name, options.seeds[0]), "cpu") for name in options.contestants]
    x = torch.cat([originals[len(originals) // 4], originals[len(originals) // 2]])
    models[0].dataset.plot([x, *(model.reconstruct(x) for model in models)], models[0].spec, path)


def main() -> None:
    parser = kept_runs.arguments(__doc__, list(CONTESTANTS), start=800, steps=500, runs="outputs/speech")
    parser.add_argument("--seconds", type=float, default=1.92)
    parser.add_argument("--utterances", type=int, default=40)
    options = parser.parse_args()
    originals = utterances(options)
    measure = partial(of_run, originals=originals)
    asked = {"utterances": len(originals), "seconds": options.seconds}
    silence = figures([(torch.zeros_like(x), x) for x in originals])
    rows = {"silence": [kept_runs.shown("silence", silence)]}
    for seed in options.seeds:
        rows.setdefault("start", []).append(kept_runs.figures(started(options, seed), measure, **asked))
        for name in options.contestants:
            rows.setdefault(name, []).append(kept_runs.figures(contestant(options, name, seed), measure, **asked))
    if options.sheet:
        sheet(options, originals, options.sheet)
    kept_runs.concluded(options, rows, **asked)


if __name__ == "__main__":
    main()
