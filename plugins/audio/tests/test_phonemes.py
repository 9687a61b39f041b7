"""What codes know of phones, on real files with real alignments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from toolkit.__main__ import run
from toolkit_audio.folder import FolderDataset


@pytest.mark.slow
def test_codes_know_phonemes_better_than_kmeans_does(speech: Path, tmp_path: Path) -> None:
    """Of held-out sentences: more than half, four times what the most frequent phone gets, and more than as many
    k-means centres over log-mel magnitudes."""
    corpus, out = speech / "espeak-ms", tmp_path / "run"
    words = [
        f"dataset.root={corpus / 'wav'}",
        f"dataset.lists={corpus}",
        f"dataset.phones={corpus / 'phones'}",
        f"dataset.phone_map={corpus / 'phone-map.json'}",
    ]
    assert run(["train", "experiment=audio_phonemes", "stage=autoencoder", *words, f"hydra.run.dir={out}"]) == 0
    assert run(["evaluate", f"run={out}", "split=test"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    print({name: value for name, value in told.items() if name.startswith("phone")})
    assert told["phone_accuracy"] > max(0.5, 4 * told["phone_majority"], told["phone_kmeans"])


def test_the_phones_of_real_speakers(speech: Path) -> None:
    """169 of 240 recordings have an alignment, which lacks the folder of their split and ends where they end."""
    corpus = speech / "speechocean24"
    dataset = FolderDataset(root=str(corpus), phones=str(corpus / "phones"))
    labels = dataset.phones
    assert labels is not None
    assert (len(labels.names), len(labels.files), labels.failures) == (40, 169, {})
    seconds = {utterance.path: dataset.sounds[utterance.path].samples / 16000 for utterance in dataset.splits["test"]}
    frames = torch.cat(
        [labels.labels(path, 0, int(100 * seconds[path]), 100) for path in seconds if path in labels.files]
    )
    assert (frames < 40).double().mean() > 0.999
    assert (frames == labels.index["sil"]).double().mean() == pytest.approx(0.407, abs=0.005)


@pytest.mark.slow
def test_what_codes_know_of_real_speakers_with_and_without_silence(speech: Path, tmp_path: Path) -> None:
    """A few steps of the codebook: more than the most frequent phone, whether silence counts or not."""
    corpus, out = speech / "speechocean24", tmp_path / "run"
    words = [f"dataset.root={corpus}", f"dataset.phones={corpus / 'phones'}", "decoder.hidden=8", "stage=autoencoder"]
    words += [f"trainer.{word}" for word in ("steps=40", "warmup=10", "validate_every=40", "checkpoint_every=40")]
    assert run(["train", "experiment=audio_phonemes", *words, f"hydra.run.dir={out}"]) == 0
    assert run(["evaluate", f"run={out}", "split=test"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    print({name: value for name, value in told.items() if name.startswith("phone")})
    assert told["phone_majority"] == pytest.approx(0.36, abs=0.01)  # of windows, which overlap: of all frames 40.7 %
    assert told["phone_accuracy"] > told["phone_majority"]
    assert told["phone_majority_without_silence"] < 0.12
    assert told["phone_accuracy_without_silence"] > 1.3 * told["phone_majority_without_silence"]
