"""What codes know of phones, on real files with real alignments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.__main__ import run


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
