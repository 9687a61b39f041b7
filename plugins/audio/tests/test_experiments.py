"""Every experiment composes, trains both stages for two steps, is evaluated and sampled, and takes files."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sounds import align, encode, noise, save
from on_stand_in import act, commands_work, sampled_alike, train_quietly, used_alike
from tiny_audio import TINY, WAVENET

import toolkit
import toolkit_audio
from toolkit import DataSpec
from toolkit.__main__ import run
from toolkit.build import build_autoencoder, build_dataset
from toolkit.cli.config.compose import compose
from toolkit.testing.accelerator import stand_in
from toolkit_audio.reading import read_header, read_span

CONF = Path(toolkit_audio.__file__).parent / "conf" / "experiment"
DATA = {
    "audio_vowels": [
        "encoder.hidden=4",
        "dataset.train_size=32",
        "dataset.val_size=4",
        "dataset.test_size=4",
        "prior_dataset.seconds=0.64",
        "prior_dataset.train_size=32",
    ],
    "audio_vctk_paper": [*WAVENET, "prior_dataset.seconds=0.256"],
    "audio_librispeech_paper": [*WAVENET, "prior_dataset.seconds=0.256"],
    "audio_voices": [*WAVENET, "prior_dataset.seconds=0.32", "dataset.seconds=0.16"],
    "audio_phonemes": ["dataset.seconds=0.2", "decoder.hidden=8"],
    "audio_codec": [
        "dataset.seconds=0.2",
        "encoder.hidden=4",
        "decoder.hidden=4",
        "dim=8",
        "quantizer.inner.codebook_size=16",
    ],
    "audio_encodec": [
        "dataset.seconds=0.2",
        "encoder.hidden=2",
        "decoder.hidden=2",
        "dim=8",
        "quantizer.depth=4",
        "quantizer.inner.codebook_size=16",
        "objective.discriminator.hidden=2",
    ],
    "audio_dac": [
        f"dataset.seconds={16 * 512 / 44100}",
        "encoder.hidden=2",
        "decoder.hidden=32",
        "dim=16",
        "quantizer.depth=3",
        "quantizer.inner.inner.codebook_size=16",
        "objective.discriminator.first.hidden=2",
        "objective.discriminator.second.hidden=2",
    ],
    "audio_codec_small": [
        "dataset.seconds=0.2",
        "encoder.hidden=2",
        "decoder.hidden=2",
        "quantizer.inner.codebook_size=16",
        "objective.discriminator.hidden=2",
        "objective.start=0",
        "trainer.critic_start=0",
    ],
    "audio_snac": [
        f"dataset.seconds={16 * 512 / 24000}",
        "decoder.hidden=32",
        "dim=16",
        "quantizer.grid=[16]",
        "quantizer.inner.inner.codebook_size=16",
    ],
}
ALIGNED = ("audio_phonemes", "audio_vowels")
FIGURES = {"usage", "perplexity", "rate", "uniform_code_bits_per_dim", "kbit_per_second"}


def places(name: str, voices: Path) -> list[str]:
    """Where an experiment's data is, in the layout that it expects."""
    if name == "audio_vowels":
        return []
    if name == "audio_phonemes":
        return [f"dataset.root={voices}", f"dataset.phones={align(voices)}"]
    if name == "audio_vctk_paper":
        (voices.parent / "vctk").mkdir()
        shutil.copytree(voices, voices.parent / "vctk" / "wav48")
        return [f"dataset.root={voices.parent / 'vctk'}"]
    if name == "audio_librispeech_paper":
        for path in sorted(voices.glob("*/*.wav")):
            file = voices.parent / "train-clean-100" / path.parent.name / "1" / f"{path.stem}.flac"
            file.parent.mkdir(parents=True, exist_ok=True)
            encode(file, read_span(path, 0, None, 16000)[None], 16000, "flac", "s16")
        return [f"dataset.root={voices.parent}"]
    return [f"dataset.root={voices}"]


SMALLEST = "audio_phonemes"
"""That of the default lane."""
QUICK = ("audio_phonemes",)
"""What is trained on the stand-in for a GPU in the default lane: it takes a few seconds."""
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in DATA if name != SMALLEST]


def test_the_table_is_complete() -> None:
    assert {p.stem for p in CONF.glob("*.yaml")} == set(DATA)


@pytest.mark.long
@pytest.mark.parametrize("name", [SMALLEST, *OTHERS])
def test_experiment(name: str, voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, *DATA[name], *places(name, voices)]
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


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in DATA])
def test_no_step_on_a_gpu_waits(name: str, voices: Path, tmp_path: Path) -> None:
    words = [f"experiment={name}", *TINY, *DATA[name], *places(name, voices), "trainer.batch_size=2"]
    train_quietly(words, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_on_a_gpu_it_does_what_it_does_on_a_cpu(name: str, voices: Path, tmp_path: Path) -> None:
    words, out = [*TINY, *DATA[name], *places(name, voices)], tmp_path / "run"
    with stand_in():
        act("train", f"experiment={name}", *words, f"hydra.run.dir={out}")
    used_alike(out, 1)
    graphs = sampled_alike(out, 1).graphs
    assert graphs
    assert all(graph.replays > 1 for graph in graphs)
    commands_work(out, tmp_path / "samples")


@pytest.fixture
def codec(voices: Path, tmp_path: Path) -> Path:
    """A run that hears a speaker and takes 320 samples for a code."""
    words = [*TINY, *DATA["audio_codec"], f"dataset.root={voices}", "conditions.decoder=[speaker]", "stage=autoencoder"]
    assert run(["train", "experiment=audio_codec", *words, f"hydra.run.dir={tmp_path / 'codec'}"]) == 0
    return tmp_path / "codec"


@pytest.mark.slow
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


@pytest.mark.slow
def test_files_to_codes_and_back_are_their_reconstructions(codec: Path, tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.wav", noise(s, 24000), 24000) for i, s in enumerate((0.31, 0.2, 0.47))]
    voice, codes = "condition.speaker=p226", tmp_path / "c.safetensors"
    assert run(["reconstruct", f"run={codec}", *map(str, files), voice, f"out={tmp_path / 'a'}"]) == 0
    assert run(["encode", f"run={codec}", *map(str, files), f"out={codes}"]) == 0
    assert run(["decode", f"run={codec}", str(codes), voice, f"out={tmp_path / 'b'}"]) == 0
    pairs = zip(sorted((tmp_path / "a").glob("*.wav")), sorted((tmp_path / "b").glob("*.wav")), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(*(torch.from_numpy(read_span(path, 0, None, 24000)) for path in (one, other)))


@pytest.mark.long
def test_the_codecs_bit_rate_is_six_kilobits() -> None:
    config = compose(["experiment=audio_codec", "dataset.root=.", "encoder.hidden=1", "decoder.hidden=1"]).config
    code_spec = build_autoencoder(config, DataSpec(1, (24000,), rates=(24000.0,))).code_spec
    assert (code_spec.grid, code_spec.rate) == ((75,), 6000)


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "grid", "rate"), [("audio_encodec", 75, 24000), ("audio_dac", 33, 33 * 90)])
def test_published_codecs_have_their_rates(name: str, grid: int, rate: float) -> None:
    """32 codes at 75 Hz in a second, and 9 in each of 33 frames of a training example."""
    config = compose([f"experiment={name}", "dataset.root=.", "encoder.hidden=1", "decoder.hidden=16"]).config
    options = config.dataset.options
    samples = round(options["seconds"] * options["sample_rate"])
    code_spec = build_autoencoder(config, DataSpec(1, (samples,), rates=(float(options["sample_rate"]),))).code_spec
    assert (code_spec.grid, code_spec.rate) == ((grid,), rate)


RATES = {"audio_vctk_paper": 250 * 9, "audio_librispeech_paper": 125 * 9, "audio_phonemes": 25 * 7}


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("name", RATES)
def test_the_papers_rates(name: str, voices: Path) -> None:
    """64, 128 and 640 samples at 16 kHz to a code of 512, 512 and 128: bits per second."""
    config = compose([f"experiment={name}", *places(name, voices), "decoder.hidden=4"]).config
    data = build_dataset(config).spec
    code_spec = build_autoencoder(config, data).code_spec
    assert code_spec.rate * 16000 / data.axes[0] == RATES[name]
    assert data.levels == 256


@pytest.mark.long
def test_the_papers_prior_sees_320_codes(voices: Path) -> None:
    """Chunks of 40 960 samples, 128 to a code."""
    words = ["experiment=audio_librispeech_paper", *places("audio_librispeech_paper", voices)]
    config = compose(words).config
    assert build_dataset(config, config.prior_dataset).spec.axes == (40960,)
    assert 40960 // prod(config.encoder.options["strides"]) == 320
