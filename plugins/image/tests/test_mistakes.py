"""Wrong input as a person meets it: exit 2, one to three lines, no traceback, nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.__main__ import run

pytestmark = pytest.mark.long

TINY = ["trainer.steps=2", "trainer.batch_size=2", "trainer.workers=0", "encoder.hidden=8", "decoder.hidden=8"]
ONLY = [*TINY, "stage=autoencoder"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    words = ["dataset.train_size=16", "dataset.val_size=4", "dataset.test_size=4", "trainer.checkpoint_every=1"]
    assert run(["train", "experiment=image_shapes", *ONLY, *words, f"hydra.run.dir={folder}"]) == 0
    return folder


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


def picture(path: Path, size: tuple[int, int] = (40, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    return path


def folder_words(root: Path, out: Path) -> list[object]:
    return ["train", "experiment=image_imagenet128", *ONLY, f"dataset.root={root}", f"hydra.run.dir={out}"]


def test_a_misspelt_option_and_a_misspelt_part(told: Callable[..., str], tmp_path: Path) -> None:
    out = f"hydra.run.dir={tmp_path / 'out'}"
    assert "did you mean hidden" in told("train", "experiment=image_shapes", "encoder.hiddn=3", out)
    assert "did you mean image_conv" in told("train", "experiment=image_shapes", "encoder=image_cnv", out)
    assert "expects int, got 'many'" in told("train", "experiment=image_shapes", "encoder.hidden=many", out)
    assert not (tmp_path / "out").exists()


def test_a_missing_dataset_folder(told: Callable[..., str], tmp_path: Path) -> None:
    said = told(*folder_words(tmp_path / "nowhere", tmp_path / "out"))
    assert str(tmp_path / "nowhere") in said
    cifar = [
        "train",
        "experiment=image_cifar10_notebook",
        f"dataset.root={tmp_path}",
        f"hydra.run.dir={tmp_path / 'out'}",
    ]
    assert "dataset.root=" in told(*cifar)
    assert not (tmp_path / "out").exists()


def test_a_truncated_batch_file(told: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "cifar-10-batches-py"
    shutil.copytree(folder, mine)
    content = (mine / "data_batch_1").read_bytes()
    (mine / "data_batch_1").write_bytes(content[: len(content) // 2])
    assert "data_batch_1" in told("train", "experiment=image_cifar10_notebook", *ONLY, f"dataset.root={mine}")


def test_a_pickle_that_wants_to_run_code(told: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    mine, proof = tmp_path / "cifar-10-batches-py", tmp_path / "ran"
    shutil.copytree(folder, mine)
    (mine / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch " + str(proof).encode() + b"'\ntR.")
    said = told("train", "experiment=image_cifar10_notebook", *ONLY, f"dataset.root={mine}")
    assert "data_batch_1" in said
    assert "os.system" in said
    assert not proof.exists()


@pytest.mark.few(1)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_text_file_named_png(told: Callable[..., str], tmp_path: Path, workers: int) -> None:
    for i in range(3):
        picture(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "bad.png").write_text("not a picture")
    words = ["dataset.size=32", f"trainer.workers={workers}", "trainer.steps=20"]
    assert "bad.png" in told(*folder_words(tmp_path / "photos", tmp_path / "out"), *words)


def test_an_image_smaller_than_the_crop(told: Callable[..., str], tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a" / "small.png", (40, 30))
    said = told(*folder_words(tmp_path / "photos", tmp_path / "out"))
    assert "small.png" in said
    assert "dataset.size" in said


def test_an_empty_class_folder(told: Callable[..., str], tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "full" / "1.png")
    (tmp_path / "photos" / "empty").mkdir()
    assert "empty" in told(*folder_words(tmp_path / "photos", tmp_path / "out"), "dataset.size=32")


@pytest.mark.slow
def test_files_that_cannot_be_encoded(told: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'c.safetensors'}"
    (tmp_path / "bad.png").write_text("not a picture")
    small = picture(tmp_path / "small.png", (8, 8))
    assert "bad.png" in told("encode", f"run={finished}", tmp_path / "bad.png", out)
    assert "small.png" in told("encode", f"run={finished}", small, out)
    assert "no such file" in told("encode", f"run={finished}", tmp_path / "none.png", out)
    assert "no files" in told("encode", f"run={finished}", out)
    assert not (tmp_path / "c.safetensors").exists()
    assert "bad.png" in told("decode", f"run={finished}", tmp_path / "bad.png", f"out={tmp_path}")


def test_grayscale_and_transparent_images_are_converted(finished: Path, tmp_path: Path) -> None:
    Image.new("L", (32, 32), 100).save(tmp_path / "gray.png")
    Image.new("RGBA", (32, 32), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    files = [str(tmp_path / "gray.png"), str(tmp_path / "clear.png")]
    assert run(["encode", f"run={finished}", *files, f"out={tmp_path / 'c.safetensors'}"]) == 0


def damaged(finished: Path, tmp_path: Path, damage: Callable[[Path], object], *steps: int) -> Path:
    """A copy of the run whose checkpoints of those steps have a damaged model file."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for step in steps:
        damage(copy / "autoencoder" / f"step-{step:08d}" / "model.safetensors")
    return copy


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_damaged_checkpoint_falls_back(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = damaged(finished, tmp_path, cut, 2)
    assert run(["evaluate", f"run={copy}"]) == 0
    said = capsys.readouterr().err
    assert "step-00000002" in said
    assert "falling back" in said


def test_no_whole_checkpoint_is_left(told: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    copy = damaged(finished, tmp_path, cut, 1, 2)
    assert "none of its 2 checkpoints is whole" in told("sample", f"run={copy}")


def test_a_checkpoint_that_is_no_safetensors_at_all(
    told: Callable[..., str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hash says that it was one: it is damaged as any other."""
    copy = damaged(finished, tmp_path, lambda path: path.write_bytes(b"\x80\x02cos\nsystem\n" * 50), 2)
    assert run(["evaluate", f"run={copy}"]) == 0
    assert "falling back" in capsys.readouterr().err
    shutil.rmtree(copy / "autoencoder" / "step-00000001")
    assert "none of its 1 checkpoints is whole" in told("train", f"run={copy}", "trainer.steps=3")


def test_runs_that_are_none(told: Callable[..., str], tmp_path: Path) -> None:
    assert "no such folder" in told("sample", f"run={tmp_path / 'none'}")
    assert "holds no run" in told("evaluate", f"run={tmp_path}")
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    assert "config.yaml" in told("sample", f"run={tmp_path}")


def test_a_mistake_as_a_command(tmp_path: Path) -> None:
    """The same through the process: exit status, and nothing on standard output."""
    command = [sys.executable, "-m", "toolkit", "train", "experiment=image_shapes", "encoder.hiddn=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean hidden" in done.stderr
    assert list(tmp_path.iterdir()) == []
