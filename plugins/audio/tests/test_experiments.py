"""Every experiment composes, trains both stages for two steps, is evaluated and sampled, and takes files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sounds import align, noise, save

import toolkit
import toolkit_audio
from toolkit.__main__ import run
from toolkit_audio.reading import read_header, read_span

CONF = Path(toolkit_audio.__file__).parent / "conf" / "experiment"
TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.workers=0",
    "trainer.validate_examples=4",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.validate_examples=4",
    "prior_trainer.workers=0",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "encoder.hidden=4",
    "prior.hidden=8",
    "prior.layers=2",
]
DATA = {
    "audio_phonemes": ["dataset.seconds=0.2", "decoder.hidden=8"],
    "audio_codec": ["dataset.seconds=0.2", "decoder.hidden=4", "dim=8", "quantizer.inner.codebook_size=16"],
}
ALIGNED = ("audio_phonemes",)
FIGURES = {"usage", "perplexity", "rate", "uniform_code_bits_per_dim", "kbit_per_second"}


def test_the_table_is_complete() -> None:
    assert {p.stem for p in CONF.glob("*.yaml")} == set(DATA)


@pytest.mark.parametrize("name", DATA)
def test_experiment(name: str, voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, *DATA[name]]
    if name != "audio_vowels":
        words += [f"dataset.root={voices}"]
    if name in ALIGNED:
        words += [f"dataset.phones={align(voices)}"]
    out = tmp_path / "run [1], a=b"
    assert run(["train", f"experiment={name}", *words, f"hydra.run.dir={out}"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert run(["evaluate", f"run={out}", "examples=4"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert set(told) >= FIGURES | ({"phone_accuracy", "phone_majority", "phone_kmeans"} if name in ALIGNED else set())
    assert len(told["priors"]) == 2
    model = toolkit.load(out)
    assert run(["sample", f"run={out}", "n=2", f"out={tmp_path / 'samples'}"]) == 0
    for path in sorted((tmp_path / "samples").glob("sample-*.wav")):
        assert read_header(path) == (model.spec.rates[0], *model.sampled_spec().axes)
    assert run(["reconstruct", f"run={out}", "examples=2"]) == 0
    assert (out / "samples" / "reconstructions.png").is_file()


@pytest.fixture
def codec(voices: Path, tmp_path: Path) -> Path:
    """A run that hears a speaker and takes 320 samples for a code."""
    words = [*TINY, *DATA["audio_codec"], f"dataset.root={voices}", "conditions.decoder=[speaker]", "stage=autoencoder"]
    assert run(["train", "experiment=audio_codec", *words, f"hydra.run.dir={tmp_path / 'codec'}"]) == 0
    return tmp_path / "codec"


def test_utterances_of_any_length_in_another_voice(
    codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each comes back as long as it was, at its rate, whatever the others' lengths and its own rate are."""
    files = [
        save(tmp_path / f"{i} [a], b=c.wav", noise(s, 16000), 16000) for i, s in enumerate((0.31, 0.5, 0.5, 0.013))
    ]
    voice = "condition.speaker=화자 [1], x=y"
    out = tmp_path / "out"
    capsys.readouterr()
    assert run(["reconstruct", f"run={codec}", *map(str, files), voice, f"out={out}"]) == 0
    assert capsys.readouterr().err == ""
    made = sorted(out.glob("reconstruction-*.wav"))
    assert [read_header(path) for path in made] == [(24000, round(s * 24000)) for s in (0.31, 0.5, 0.5, 0.013)]
    assert (
        run(["reconstruct", f"run={codec}", str(files[1]), "condition.speaker=anna", f"out={tmp_path / 'anna'}"]) == 0
    )
    anna = read_span(tmp_path / "anna" / "reconstruction-0000.wav", 0, None, 24000)
    assert not np.array_equal(anna, read_span(made[1], 0, None, 24000))
    assert run(["reconstruct", f"run={codec}", str(files[0]), "condition.speaker=ana"]) == 2
    assert "did you mean anna?" in capsys.readouterr().err


def test_files_to_codes_and_back_are_their_reconstructions(codec: Path, tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.wav", noise(s, 24000), 24000) for i, s in enumerate((0.31, 0.2, 0.47))]
    voice, codes = "condition.speaker=p226", tmp_path / "c.safetensors"
    assert run(["reconstruct", f"run={codec}", *map(str, files), voice, f"out={tmp_path / 'a'}"]) == 0
    assert run(["encode", f"run={codec}", *map(str, files), f"out={codes}"]) == 0
    assert run(["decode", f"run={codec}", str(codes), voice, f"out={tmp_path / 'b'}"]) == 0
    pairs = zip(sorted((tmp_path / "a").glob("*.wav")), sorted((tmp_path / "b").glob("*.wav")), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(*(torch.from_numpy(read_span(path, 0, None, 24000)) for path in (one, other)))


def test_the_codecs_bit_rate_is_six_kilobits() -> None:
    from toolkit.build import build_autoencoder
    from toolkit.cli.compose import compose
    from toolkit.spec import DataSpec

    config = compose(["experiment=audio_codec", "dataset.root=.", "encoder.hidden=1", "decoder.hidden=1"]).config
    latent = build_autoencoder(config, DataSpec(1, (24000,), rates=(24000.0,))).latent
    assert (latent.grid, latent.rate) == ((75,), 6000)


@pytest.mark.parametrize(
    ("name", "options", "rate"),
    [("audio_phonemes", ["dataset.seconds=1.28"], 175)],
)
def test_the_papers_rates(name: str, options: list[str], rate: float, voices: Path) -> None:
    from toolkit.build import build_autoencoder, build_dataset
    from toolkit.cli.compose import compose

    config = compose([f"experiment={name}", f"dataset.root={voices}", *options]).config
    data = build_dataset(config).spec
    latent = build_autoencoder(config, data).latent
    assert latent.rate * 16000 / data.axes[0] == rate
