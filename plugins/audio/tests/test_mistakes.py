"""Wrong input as a person meets it: exit 2, one to three lines, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_sounds import encode, noise, save, save_voices

from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit_audio.folder import FolderDataset

pytestmark = pytest.mark.long

ONLY = [
    "train",
    "experiment=audio_phonemes",
    "stage=autoencoder",
    "metric=[codebook]",
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.validate_examples=4",
    "dataset.seconds=0.2",
    "decoder.hidden=8",
]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused; what it says."""

    def act(*words: object) -> str:
        capsys.readouterr()
        assert run([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if not line.startswith("note: ")]
        assert 1 <= len(lines) <= 3
        assert "Traceback" not in said
        return said

    return act


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert run([*ONLY, f"dataset.root={save_voices(folder)}", f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("a letter, and no sound\n" * 100)


def truncated(path: Path) -> None:
    encode(path, noise(2)[None], 16000, "flac", "s16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def silent_film(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))


def strange(path: Path) -> None:
    encode(path, noise(1)[None], 16000, "pcm_s16le", "s16")
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_QQQ/INT/LIT"))


DAMAGED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "an empty file": ("bad.wav", empty, "the file is empty"),
    "text named wav": ("bad.wav", text, "cannot be read as sound"),
    "a film without sound": ("bad.mp4", silent_film, "has no sound"),
    "sound of a codec of tomorrow": ("bad.mkv", strange, "FFmpeg does not support the codec"),
    "a truncated flac": ("torn0.flac", truncated, "torn0.flac: c"),
}


def test_a_damaged_file_stops_the_run(told: Callable[..., str], voices: Path, tmp_path: Path) -> None:
    name, spoil, why = DAMAGED["text named wav"]
    spoil(voices / "anna" / name)
    said = told(*ONLY, f"dataset.root={voices}", f"hydra.run.dir={tmp_path / 'out'}", "trainer.steps=30")
    assert name in said
    assert why in said
    assert "dataset.on_error=skip" in said


def test_a_run_goes_on_without_a_damaged_file(voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, spoil, why = DAMAGED["a truncated flac"]
    spoil(voices / "anna" / name)
    words = [*ONLY, f"dataset.root={voices}", "dataset.on_error=skip", "trainer.steps=8"]
    assert run([*words, f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().err
    assert why in said
    assert "1 files skipped so far" in said


def read(dataset: FolderDataset) -> None:
    """Every example once."""
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            assert dataset.example(split, index, None)["x"].shape == (1, 3200)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(damage: str, voices: Path) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(voices / "anna" / name)
    with pytest.raises(ToolkitError) as error:
        read(FolderDataset(root=str(voices), seconds=0.2))
    assert name in str(error.value)
    assert why in str(error.value)
    assert "dataset.on_error=skip" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_skipped_counted_and_named(
    damage: str, voices: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(voices / "anna" / name)
    read(FolderDataset(root=str(voices), seconds=0.2, on_error="skip"))
    assert f"{name}: " in caplog.text
    assert why in caplog.text
    assert caplog.text.count("1 files skipped so far") == 1


def test_a_file_that_disappears_between_scan_and_read(voices: Path, caplog: pytest.LogCaptureFixture) -> None:
    for on_error in ("stop", "skip"):
        dataset = FolderDataset(root=str(voices), seconds=0.2, on_error=on_error)  # type: ignore[arg-type]
        number, _ = dataset.windows["train"][0].tolist()
        gone = voices / dataset.splits["train"][number].path
        content = gone.read_bytes()
        gone.unlink()
        if on_error == "stop":
            with pytest.raises(ToolkitError, match="the file does not exist") as caught:
                dataset.example("train", 0, None)
            assert gone.name in str(caught.value)
        else:
            other = dataset.example("train", 0, None)
            assert dataset.policy.skipped == {dataset.splits["train"][number].path}
            assert (other["x"] == dataset.example("train", 0, None)["x"]).all()
            assert caplog.text.count("the file does not exist") == 1
        gone.write_bytes(content)


def test_a_split_of_which_nothing_can_be_read(voices: Path) -> None:
    dataset = FolderDataset(root=str(voices), seconds=0.2, on_error="skip")
    for utterance in dataset.splits["test"]:
        (voices / utterance.path).unlink()
    with pytest.raises(ToolkitError, match="no file of the test split can be read"):
        dataset.example("test", 0, None)


FORMS: dict[str, tuple[int, str, str, str]] = {
    "stereo": (16000, "pcm_s16le", "s16", "stereo"),
    "8 channels": (16000, "pcm_s16le", "s16", "7.1"),
    "8 kHz": (8000, "pcm_s16le", "s16", "mono"),
    "96 kHz": (96000, "pcm_s16le", "s16", "mono"),
    "24 bits": (16000, "pcm_s24le", "s32", "mono"),
    "floats": (16000, "pcm_f32le", "flt", "mono"),
}


def test_files_of_every_form_are_one_corpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, (rate, codec, form, layout) in FORMS.items():
        channels = {"mono": 1, "stereo": 2, "7.1": 8}[layout]
        path = tmp_path / "voices" / name / "a.wav"
        path.parent.mkdir(parents=True)
        encode(path, np.stack([noise(0.5, rate)] * channels), rate, codec, form, layout)
    dataset = FolderDataset(root=str(tmp_path / "voices"), seconds=0.5, form="float")
    assert {sound.samples for sound in dataset.sounds.values()} == {8000}
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            x = dataset.example(split, index, None)["x"]
            assert x.shape == (1, 8000)
            assert 0.005 < x.std() < 0.1
    assert "skipped" not in caplog.text


def test_an_unknown_speaker(told: Callable[..., str], finished: Path, voices: Path) -> None:
    file = voices / "anna" / "0.wav"
    assert "did you mean p226?" in told("reconstruct", f"run={finished}", file, "condition.speaker=p26")
    assert "known: anna, p226, 화자 [1], x=y" in told("reconstruct", f"run={finished}", file, "condition.speaker=zz")
    assert "did you mean speaker?" in told("reconstruct", f"run={finished}", file, "condition.speeker=anna")


@pytest.mark.few(2)
@pytest.mark.parametrize("damage", DAMAGED)
def test_files_that_cannot_be_reconstructed(
    damage: str, told: Callable[..., str], finished: Path, tmp_path: Path
) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(tmp_path / name)
    out = tmp_path / "nothing"
    said = told("reconstruct", f"run={finished}", tmp_path / name, f"out={out}")
    assert name in said
    assert why in said
    assert not out.exists()


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["dataset.seconds=0"], "dataset.seconds=0.0: must be above 0"),
        (["dataset.sample_rate=12"], "sample_rate=12: at least 1000"),
        (["dataset.form=mu"], "mulaw"),
        (["dataset.phones=nowhere"], "nowhere: no such folder; dataset.phones=FOLDER says"),
        (["dataset.seconds=0.21"], "strides"),
        (["dataset=audio_vctk"], "VCTK is not there"),
        (["dataset=audio_librispeech"], "LibriSpeech is not there"),
        (["decoder.strides=[5,4,2,2,2,2]"], "strides"),
        (["objective.inner.name=vimco"], "objective=audio_stft needs a quantizer with a posterior"),
        (["objective.inner.name=elbw"], "did you mean elbo"),
        (["metric=[audio_phones]"], "dataset.phones=FOLDER"),
    ],
)
@pytest.mark.few(2)
def test_options_that_do_not_fit(
    words: list[str], why: str, told: Callable[..., str], voices: Path, tmp_path: Path
) -> None:
    base = [word for word in ONLY if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    said = told(*base, f"dataset.root={voices}", f"hydra.run.dir={tmp_path / 'out'}", *words)
    assert why in said
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_corpus(told: Callable[..., str], tmp_path: Path) -> None:
    out = f"hydra.run.dir={tmp_path / 'out'}"
    assert "no such folder" in told(*ONLY, f"dataset.root={tmp_path / 'none'}", out)
    (tmp_path / "empty").mkdir()
    assert "no sound files" in told(*ONLY, f"dataset.root={tmp_path / 'empty'}", out)
    save(tmp_path / "one" / "a.wav", noise(0.5))
    assert FolderDataset(root=str(tmp_path / "one"), seconds=0.2).size("train")  # it is all there is to learn


def broken(folder: Path, error: str) -> Path:
    """A place to import a torchaudio from that fails."""
    package = folder / "broken" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise {error}\n")
    return folder / "broken"


@pytest.mark.slow
@pytest.mark.parametrize("error", ['OSError("libcudart.so.13: cannot open shared object file")', 'RuntimeError("abi")'])
def test_torchaudio_that_does_not_import_costs_only_itself(error: str, voices: Path, tmp_path: Path) -> None:
    """Beside a torch that it was not built for it fails in two ways: whoever needs it says why, all else works."""
    env = {**os.environ, "PYTHONPATH": str(broken(tmp_path, error))}
    script = (
        "import sys\n"
        "from toolkit.__main__ import run\n"
        "codes = [run(['plugins', '--check']), run(sys.argv[1:]), run([*sys.argv[1:], 'dataset.loudness=-23'])]\n"
        "print(codes)\n"
    )
    words = [*ONLY, f"dataset.root={voices}"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2]", done.stdout + done.stderr
    why = error.partition('"')[2].partition('"')[0]
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("dataset=audio_vctk: "))
    assert "dataset.loudness needs torchaudio, which does not import beside torch" in told
    assert why in told
    assert "dataset.loudness needs torchaudio" in done.stderr
    assert "pip install" in done.stderr
    assert "audio_conv" in done.stdout
    assert "image_conv" in done.stdout


def test_what_a_dataset_lacks_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(broken(tmp_path, 'OSError("gone")')))
    assert run(["plugins", "dataset", "--check", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["components"]
    lacking = {row["name"] for row in listed if row["missing_dependencies"]}
    assert lacking == {"audio_folder", "audio_librispeech", "audio_vctk"}
    assert not any(row["problem"] for row in listed)
