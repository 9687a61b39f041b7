"""Every experiment composes, trains both stages for two steps, is evaluated and sampled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_features
from on_stand_in import act, commands_work, sampled_alike, train_quietly, used_alike
from PIL import Image

import toolkit
import toolkit_image
from toolkit.__main__ import run
from toolkit.build import build_autoencoder, build_dataset
from toolkit.cli.config.compose import compose
from toolkit.testing.accelerator import stand_in

CONF = Path(toolkit_image.__file__).parent / "conf" / "experiment"
TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.workers=0",
    "trainer.validate_examples=8",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=64",
    "prior_trainer.validate_examples=8",
    "prior_trainer.workers=0",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "prior.hidden=8",
    "prior.layers=2",
    "prior.head=16",
    "encoder.hidden=8",
    "decoder.hidden=8",
]
DATA = {
    "image_shapes": ["dataset.train_size=64", "dataset.val_size=16", "dataset.test_size=8"],
    "image_shapes_residual": ["dataset.train_size=64", "dataset.val_size=16", "dataset.test_size=8"],
    "image_cifar10_notebook": [],
    "image_cifar10_vae": [],
    "image_cifar10_vqvae": [],
    "image_cifar10_vimco": ["objective.samples=3", "quantizer.inner.codebook_size=16"],
    "image_cifar10_modern": [],
    "image_cifar10_second_stage": [],
    "image_imagenet128": [],
    "image_titok": ["dataset.size=64", "quantizer.codebook_size=64", "prior.heads=2"],
    "image_vqgan": [
        "dataset.size=64",
        "quantizer.codebook_size=64",
        "encoder.hidden=32",
        "decoder.hidden=32",
        "encoder.residual_blocks=1",
        "decoder.residual_blocks=1",
        "prior.heads=2",
        "objective.discriminator.width=8",
    ],
    "image_vqgan_f8": [
        "dataset.size=64",
        "quantizer.codebook_size=64",
        "encoder.hidden=32",
        "decoder.hidden=32",
        "encoder.multipliers=[1,1,1,2]",
        "decoder.multipliers=[1,1,1,2]",
        "encoder.residual_blocks=1",
        "decoder.residual_blocks=1",
        "prior.heads=2",
        "objective.discriminator.width=8",
    ],
    "image_photos": ["objective.discriminator.width=8"],
    "image_cifar10_vqvae2": ["quantizer.hidden=8", "quantizer.inner.codebook_size=64"],
    "image_cifar10_var": ["quantizer.inner.codebook_size=64", "prior.heads=2"],
    "image_cifar10_maskbit": ["prior.inner.heads=2"],
    "image_maskbit": [
        "dataset.size=64",
        "quantizer.bits=4",
        "encoder.hidden=32",
        "decoder.hidden=32",
        "prior.inner.heads=2",
    ],
    "image_vqvae2": ["dataset.size=64", "quantizer.grid=[16,16]", "quantizer.hidden=8", "prior.residual_blocks=1"],
    "image_var": [
        "dataset.size=64",
        "quantizer.grid=[4,4]",
        "quantizer.scales=[[1,1],[3,3]]",
        "quantizer.inner.codebook_size=64",
        "encoder.hidden=32",
        "decoder.hidden=32",
        "encoder.residual_blocks=1",
        "decoder.residual_blocks=1",
        "prior.heads=2",
    ],
}
PRIOR = {
    "image_cifar10_vae": "normal",
    "image_titok": "maskgit",
    "image_vqgan": "transformer",
    "image_vqgan_f8": "transformer",
    "image_cifar10_vqvae2": "coarse_to_fine",
    "image_cifar10_var": "scales",
    "image_cifar10_maskbit": "factored",
    "image_maskbit": "factored",
    "image_vqvae2": "coarse_to_fine",
    "image_var": "scales",
}
"""Where it is not a PixelCNN."""
PERCEPTUAL = ("image_vqgan", "image_vqgan_f8")
"""What is trained against LPIPS."""
PHOTOS = (
    "image_imagenet128",
    "image_photos",
    "image_titok",
    *PERCEPTUAL,
    "image_vqvae2",
    "image_var",
    "image_maskbit",
)
"""What is trained on a folder of images."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with a name that no grammar likes."""
    root = tmp_path / "사진 [a], b=c (d)'s"
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2), ("test", 2)):
        for label in ("고양이 [1], x=y", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (150, 130, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def small_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two steps need no 45 000 codes: the splits' ends come sooner."""
    from toolkit_image.cifar10 import CIFAR10Dataset

    monkeypatch.setattr(CIFAR10Dataset, "size", lambda self, split: 32)
    return [f"dataset.root={folder}"]


def words_of(name: str, folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An experiment's options in small, and where its data is."""
    words = [*TINY, *DATA[name]]
    if name == "image_cifar10_vae":  # it has no codes, and so no prior to make small
        words = [word for word in words if not word.startswith("prior.")]
    if PRIOR.get(name) == "maskgit":
        words.remove("prior.head=16")
    if PRIOR.get(name) == "coarse_to_fine":
        inside = {word: word.replace("prior.", "prior.inner.") for word in TINY if word.startswith("prior.")}
        words = [part for word in words for part in dict.fromkeys((inside.get(word, word), word))]
        words = [word for word in words if word not in ("prior.layers=2", "prior.head=16")]
    if PRIOR.get(name) == "factored":
        words.remove("prior.head=16")
        words = [
            word.replace("prior.", "prior.inner.") if word.startswith("prior.") and "inner" not in word else word
            for word in words
        ]
    if name == "image_cifar10_second_stage":
        base = tmp_path / "base"
        first = [*TINY, *small_cifar10(folder, monkeypatch), "stage=autoencoder", f"hydra.run.dir={base}"]
        assert run(["train", "experiment=image_cifar10_notebook", *first]) == 0
        words += [f"dataset.run={base}", "decoder.layers=2", "decoder.head=16"]
    elif name.startswith("image_cifar10"):
        words += small_cifar10(folder, monkeypatch)
    if name in PHOTOS:
        words += [f"dataset.root={photos}"]
    if name in PERCEPTUAL:
        words += [f"objective.inner.weights={tiny_features.write(tmp_path, 'vgg')}"]
    return words


SMALLEST = "image_shapes"
"""That of the default lane."""
QUICK = ("image_cifar10_notebook",)
"""What is trained on the stand-in for a GPU in the default lane: it takes a few seconds."""
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in DATA if name != SMALLEST]


def test_the_table_is_complete() -> None:
    assert {p.stem for p in CONF.glob("*.yaml")} == set(DATA)


@pytest.mark.long
@pytest.mark.parametrize("name", [SMALLEST, *OTHERS])
def test_experiment(
    name: str,
    folder: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(name, folder, photos, tmp_path, monkeypatch)
    out = tmp_path / "run [1], a=b"
    assert run(["train", f"experiment={name}", *words, f"hydra.run.dir={out}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert run(["evaluate", f"run={out}", "examples=8"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert ("bits_per_dim" if "data_bits_per_dim" in told else "nll") in told
    if name == "image_cifar10_second_stage":
        assert told["rate"] == 27.0
    else:
        assert {"mse", "nmse", "psnr", "ssim"} <= set(told)
    if name == "image_cifar10_vae":
        assert set(told["priors"]) == {PRIOR[name]}
    else:
        assert set(told["priors"]) == {"uniform", PRIOR.get(name, "pixelcnn")}
        assert {"usage", "perplexity", "rate", "uniform_code_bits_per_dim"} <= set(told)
    if "bits_per_dim" in told:
        assert told["bits_per_dim"] == told["data_bits_per_dim"] + told["code_bits_per_dim"]
    assert run(["sample", f"run={out}", "n=2", f"out={tmp_path / 'samples'}"]) == 0
    assert len(list((tmp_path / "samples").glob("sample-*.png"))) == 2
    with Image.open(tmp_path / "samples" / "sample-0000.png") as image:
        assert image.size[::-1] == toolkit.load(out).spec.axes
    assert run(["reconstruct", f"run={out}", "examples=2"]) == 0
    assert (out / "samples" / "reconstructions.png").is_file()


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in DATA])
def test_no_step_on_a_gpu_waits(
    name: str, folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"experiment={name}", *words_of(name, folder, photos, tmp_path, monkeypatch), "trainer.batch_size=2"]
    train_quietly(words, tmp_path / "run", stages=1 if name == "image_cifar10_vae" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_on_a_gpu_it_does_what_it_does_on_a_cpu(
    name: str, folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, out = words_of(name, folder, photos, tmp_path, monkeypatch), tmp_path / "run"
    with stand_in():
        act("train", f"experiment={name}", *words, f"hydra.run.dir={out}")
    if name != "image_cifar10_vae":
        used_alike(out)
        graphs = sampled_alike(out, 1).graphs
        assert bool(graphs) == (PRIOR.get(name) not in ("maskgit", "factored"))  # of few passes, not captured
        # All of a scale is a step of its own, and comes once in a sample.
        assert all(graph.replays > (PRIOR.get(name) != "scales") for graph in graphs)
    commands_work(out, tmp_path / "samples")


@pytest.mark.slow
def test_the_papers_rate_is_exact(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """640 codes of 512 over 3072 dims: 640 x 9 / 3072 bits per dim, without rounding."""
    words = [*TINY, *small_cifar10(folder, monkeypatch), "stage=autoencoder", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run(["train", "experiment=image_cifar10_vqvae", *words]) == 0
    assert run(["evaluate", f"run={tmp_path / 'run'}", "examples=4"]) == 0
    told = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert told["uniform_code_bits_per_dim"] == 1.875


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["vae", "vimco", "modern"])
def test_the_baselines_differ_only_in_what_they_compare(name: str) -> None:
    """One encoder, one decoder, one likelihood and, but for the modern one, one way of training; 8 x 8 x 10 latents."""
    base, other = (compose([f"experiment=image_cifar10_{each}"]).config for each in ("vqvae", name))
    shared = ["dataset", "encoder", "decoder", "likelihood", "seed", *(["trainer"] if name != "modern" else [])]
    assert {key: getattr(base, key) for key in shared} == {key: getattr(other, key) for key in shared}
    data = build_dataset(base).spec
    latents = [build_autoencoder(config, data).code_spec for config in (base, other)]
    if name == "vae":
        assert other.dim == latents[0].depth == 10
    else:
        assert latents[0] == latents[1]


@pytest.mark.long
def test_encode_and_decode_files(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture to codes and back is the picture's reconstruction, and labels of any letters choose the condition."""
    run_folder, files = tmp_path / "run", sorted(photos.glob("test/*/*.png"))[:2]
    words = [
        *TINY,
        f"dataset.root={photos}",
        "dataset.size=32",
        "conditions.decoder=[class]",
        "conditions.prior=[class]",
    ]
    assert run(["train", "experiment=image_imagenet128", *words, f"hydra.run.dir={run_folder}"]) == 0
    model = toolkit.load(run_folder)
    assert model.spec.conditions[0].labels == ("dog", "고양이 [1], x=y")
    assert run(["encode", f"run={run_folder}", *map(str, files), f"out={tmp_path / 'c.safetensors'}"]) == 0
    label = "condition.class=고양이 [1], x=y"
    assert run(["decode", f"run={run_folder}", str(tmp_path / "c.safetensors"), f"out={tmp_path / 'back'}", label]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()[-2:]]
    x = model.files.read(files[1], model.spec)[None]
    again = model.reconstruct(x, model.labels({"class": "고양이 [1], x=y"}, 1))
    assert (model.files.read(written[1], model.spec) == again[0]).all()
    assert run(["sample", f"run={run_folder}", "n=2", label, f"out={tmp_path / 'samples'}"]) == 0
    capsys.readouterr()
    assert run(["sample", f"run={run_folder}", "n=2", "condition.class=dgo"]) == 2
    assert "condition.class=dgo" in capsys.readouterr().err
