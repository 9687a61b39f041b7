"""Runs beside everyday codecs, on the same examples."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import assert_names
from toys import PIXELCNN, TILES, TWO_STEPS

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli import against
from toolkit.cli.config.compose import compose
from toolkit.cli.items import Item
from toolkit.coding.container import unpack
from toolkit.model import Model
from toolkit.plots.curves import Line, plot_curves
from toolkit.stages.run import train

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


@pytest.fixture(scope="module")
def trained(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of depth 2, with two priors."""
    run = tmp_path_factory.mktemp("runs") / "deep"
    words = ["quantizer=residual_ema", "quantizer.depth=2", "quantizer.inner.codebook_size=16"]
    train(compose([*TILES, *words, *PIXELCNN, *TWO_STEPS, "conditions.prior=[kind]"]).config, run)
    assert command(["train", f"run={run}", "stage=prior", "prior=categorical"]) == 0
    return run


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return toolkit.load(trained, "cpu")


def curves(out: Path) -> dict[str, dict[str, Any]]:
    return {curve["label"]: curve for curve in json.loads((out / "against.json").read_text())["curves"]}


def error(model: Model, x: torch.Tensor, y: torch.Tensor) -> float:
    return float((model.spec.scale(x) - model.spec.scale(y)).double().square().mean())


def test_a_run_has_the_bytes_of_compress_and_the_error_of_decompress(
    trained: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a split, with the conditions of its examples, a point for each depth that the prior can code."""
    rows = [model.dataset.example("test", i, None) for i in range(6)]
    x, kinds = torch.stack([row["x"] for row in rows]), {"kind": torch.stack([row["kind"] for row in rows])}
    out = tmp_path / "out"
    words = ["compare", str(trained), "against=[zlib]", "examples=6", "lossless=true", f"out={out}"]
    for prior in ("categorical", "pixelcnn"):
        assert command([*words, f"prior={prior}"]) == 0
        points = curves(out)["deep"]["points"]
        data = {
            "depth 1": model.compress(x, kinds, prior="categorical", depth=1),
            "depth 2": model.compress(x, kinds, prior=prior),
            "lossless": model.compress(x, kinds, prior=prior, lossless=True),
        }
        assert [point["at"] for point in points] == [at for at in data if (prior, at) != ("pixelcnn", "depth 1")]
        for point in points:
            file = data[point["at"]]
            stream = len(unpack(file)[1])
            assert point["bytes"] - point["header"] == stream
            assert point["bits_per_dim"] == 8 * stream / x.numel()
            assert point["mse"] == pytest.approx(error(model, x, model.decompress(file)))
    shown = capsys.readouterr()
    assert "depth=1" in shown.err
    assert "test split, 6 examples of 128 numbers" in shown.out
    assert shown.out.splitlines()[-3:] == [str(out / f"against.{kind}") for kind in ("json", "md", "png")]
    assert "lossless" in (out / "against.md").read_text()


def test_a_codec_has_its_bytes_and_its_error(trained: Path, model: Model, tmp_path: Path) -> None:
    """On files, which all read as the run does."""
    files, codecs = tmp_path / "files", model.files.codecs(model.spec)
    files.mkdir()
    xs = [model.dataset.example("train", i, None)["x"] for i in range(3)]
    for i, x in enumerate(xs):
        model.files.write(x, model.spec, files / f"{i}.json")
    words = ["compare", str(trained), "against=[zlib,steps]", "prior=uniform", f"files={files}", f"out={tmp_path}"]
    assert command(words) == 0
    made = curves(tmp_path)
    assert list(made) == ["deep", "zlib", "steps"]
    assert [point["at"] for point in made["steps"]["points"]] == ["1 steps", "2 steps", "3 steps"]
    for name in ("zlib", "steps"):
        for point, quality in zip(made[name]["points"], codecs[name].qualities, strict=True):
            coded = [codecs[name].through(x, quality) for x in xs]
            assert point["bytes"] == sum(len(one.data) for one in coded)
            assert point["header"] == 3
            assert point["mse"] == pytest.approx(error(model, torch.stack(xs), torch.stack([one.x for one in coded])))
            assert ("psnr" in point) == (quality is not None)
    assert command([*words, "examples=2"]) == 0
    assert json.loads((tmp_path / "against.json").read_text())["examples"] == 2


def test_examples_of_various_lengths_are_compared_with_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run codes them by length, the codecs in their order."""
    run = tmp_path / "run"
    words = ["dataset=toy_waves", "encoder=toy_conv", "decoder=toy_conv", "likelihood=normal", "dim=4"]
    train(compose([*words, "quantizer=vq", *TWO_STEPS, "stage=autoencoder"]).config, run)
    model = toolkit.load(run, "cpu")
    lengths = [model.spec.axes[0] * n for n in (3, 1, 2)]
    xs = [torch.linspace(-1, 1, length)[None] * (i + 1) / 3 for i, length in enumerate(lengths)]
    items = [Item(partial(str, i), partial(dict, x=x)) for i, x in enumerate(xs)]
    monkeypatch.setattr(against, "split_items", lambda *_: items)
    words = ["compare", str(run), "against=[steps]", "prior=uniform", "examples=3", f"out={tmp_path}"]
    assert command(words) == 0
    (point,) = curves(tmp_path)["run"]["points"]
    squares = sum(float((x - model.reconstruct(x[None])[0]).double().square().sum()) for x in xs)
    assert point["mse"] == pytest.approx(squares / sum(lengths))
    assert "snr" in (tmp_path / "against.md").read_text()


def test_mistakes_are_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, facts in (
        (
            ["against=[zlip]"],
            "against=zlip: dataset=toy_tiles has no codec zlip (did you mean zlib?): it has zlib, steps, zstd",
        ),
        (["against=[zstd]"], "against=zstd: no zstd here"),
        (["against=[zlib]", "files=nowhere"], "nowhere: no such file"),
        (["files=nowhere"], "files … against=[…]"),
        (["lossless=true"], "lossless … against=[…]"),
    ):
        assert command(["compare", str(trained), *words, f"out={tmp_path / 'out'}"]) == 2
        assert_names(capsys.readouterr().err, f"toolkit compare: … {facts}")
    assert command(["compare", str(trained), "against=[zlib]", "prior=wavenet", f"out={tmp_path / 'out'}"]) == 2
    assert_names(
        capsys.readouterr().err, f"note: {trained} is left out: … prior=wavenet … none of these runs can be compared"
    )


def test_runs_of_different_data_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    train(compose([*TILES, "dataset.size=4", "quantizer=vq", *TWO_STEPS, "stage=autoencoder"]).config, other)
    assert command(["compare", str(trained), str(other), "against=[zlib]", f"out={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert_names(err, f"toolkit compare: … {other} … (2, 4, 4) of 8 levels … {trained} … (2, 8, 8)")
    assert not (tmp_path / "out").exists()


def test_the_plot_shows_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    assert not plot_curves(path, [Line("nothing", [(0.0, 3.0)], True)], "bits", "dB")
    assert not path.exists()
    assert plot_curves(path, [Line("run", [(0.1, 20.0)], True), Line("png", [(4.0, None)], False)], "bits", "dB")
    assert path.read_bytes().startswith(b"\x89PNG")
