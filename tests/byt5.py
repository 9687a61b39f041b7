"""Small encoders of ByT5's kind, with weights of nobody's, in folders as transformers writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WHY = "needs pip install 'discrete-toolkit[text]'"


def encoder(folders: pytest.TempPathFactory, seed: int = 0, vocabulary: int = 384) -> Path:
    """The folder of one, the same for the same seed."""
    transformers = pytest.importorskip("transformers", reason=WHY)
    path = folders.getbasetemp() / f"byt5-{seed}-{vocabulary}"
    if not path.is_dir():
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            made = transformers.T5EncoderModel(transformers.T5Config(vocab_size=vocabulary, **sizes))
        transformers.utils.logging.disable_progress_bar()
        made.save_pretrained(path)
    return path
