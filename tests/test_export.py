"""Exported graphs: what they give is what the model gives, and what cannot be exported is named."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from messages import assert_names
from torch import Tensor, nn
from torch.export import Dim

import toolkit
from toolkit.__main__ import run
from toolkit.autoencoder import Autoencoder
from toolkit.decoders.conv import ConvDecoder
from toolkit.encoder import Encoder
from toolkit.encoders.conv import ConvEncoder
from toolkit.encoders.pool import PoolEncoder
from toolkit.exporting import comparing, onnx_file
from toolkit.exporting.graphs import Graph, stage_one
from toolkit.exporting.tensors import random_codes, random_condition, random_data
from toolkit.exporting.tracing import ExportError, traced
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.model import Model, load
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import Condition, DataSpec

pytestmark = [pytest.mark.usefixtures("toys"), pytest.mark.filterwarnings("ignore::FutureWarning:torch")]
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in onnx_file.NEEDED), reason="needs pip install 'discrete-toolkit[onnx]'"
)

STEP = Condition("step", 4, per_step=True, stride=2)
SOUND = DataSpec(1, (16,), levels=256, varying=(True,), variance=0.1, conditions=(STEP,))


def model_of(data: DataSpec, encoder: Encoder | None = None, pooled: bool = False) -> Model:
    """What is exported of a model, without a run: four positions of the data to a code."""
    torch.manual_seed(0)
    encoder = encoder or (PoolEncoder(data, 4, hidden=4) if pooled else ConvEncoder(data, 4, hidden=4))
    likelihood, strides = NormalLikelihood(data), (4, 4) if pooled else (2, 2)
    grid = (1,) if pooled else (4,)
    decoder = ConvDecoder(4, grid, (STEP,), likelihood, hidden=4, strides=strides)
    quantizer = VectorQuantizer(4, codebook_size=8, init="random")
    autoencoder = Autoencoder(data, encoder, quantizer, decoder, decoder_conditions=("step",)).eval()
    spec = autoencoder.code_spec
    return cast(Model, SimpleNamespace(spec=data, data=data, code_spec=spec, autoencoder=autoencoder, base=None))


def given(model: Model, n: int, codes: int) -> dict[str, Tensor]:
    """Inputs of every graph, of n examples as long as so many codes."""
    seed, length = torch.Generator().manual_seed(n), 4 * codes
    return {
        "x": random_data(model.spec, n, (length,), seed),
        "codes": random_codes(model.code_spec, n, (codes,), seed),
        "step": random_condition(STEP, n, length, seed),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "decoder"])
@torch.no_grad()
def test_batch_and_varying_axes_are_free(name: str) -> None:
    """Of the decoder with a condition per step, whose length is the data's, too."""
    model = model_of(SOUND)
    graphs = stage_one(model)
    assert list(graphs.there) == ["encoder", "decoder", "embed"]
    graph = graphs.there[name]
    program = traced(graph).module()
    for n, codes in ((1, 4), (3, 2), (8, 7)):
        inputs = [given(model, n, codes)[key] for key in graph.inputs]
        torch.testing.assert_close(program(*inputs), graph.module(*inputs), rtol=0, atol=1e-6)


class FourCodes(Encoder):
    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(self.data.scale(x), 4).expand(-1, 4, -1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: model_of(SOUND, pooled=True), "one unit of 16"),
        (lambda: model_of(SOUND, FourCodes(SOUND)), "codes on (4,), not on (5,)"),
    ],
    ids=["one code", "four codes"],
)
def test_codes_of_the_whole_fix_the_axes(make: Callable[[], Model], why: str) -> None:
    graphs = stage_one(make())
    assert why in graphs.fixed
    assert list(graphs.there["encoder"].axes["x"]) == [0]


@pytest.mark.slow
def test_a_run_becomes_graphs(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In PyTorch's own format, with a description and a script that need no toolkit."""
    out = tmp_path / "graphs"
    report = toolkit.export(toy_run, out, format="torch", examples=6)
    names = {"encoder.pt2", "decoder.pt2", "embed.pt2", "spec.json", "export.json", "run.py"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "export.json").read_text()) == report
    assert report["tried_on"] == "6 examples of split=test"
    assert report["graphs"]["encoder"]["outputs"]["codes"] == {"numbers": 96, "unequal": 0, "largest_difference": 0}
    assert report["graphs"]["decoder"]["outputs"]["mean"]["largest_difference"] < 1e-6
    for path in out.iterdir():
        for folder in (Path(toolkit.__file__).parent, Path(torch.__file__).parent):
            assert str(folder).encode() not in path.read_bytes(), f"{path.name} has a path of the machine"

    model, spec = load(toy_run, "cpu"), json.loads((out / "spec.json").read_text())
    x = random_data(model.spec, 8, model.spec.axes, torch.Generator().manual_seed(1))
    scale = spec["data"]["scale"]
    torch.testing.assert_close(x.float() * scale["factor"] + scale["offset"], model.spec.scale(x))
    np.save(tmp_path / "x.npy", x.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "x.npy"])
    runpy.run_path(str(out / "run.py"), run_name="__main__")
    codes = model.encode(x)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), codes.numpy())
    assert np.array_equal(np.load(tmp_path / "decoded.npy"), model.decode(codes).numpy())
    graph = torch.export.load(out / "encoder.pt2").module()
    for n in (1, 3, 8):
        assert torch.equal(graph(x[:n]), codes[:n])


@pytest.mark.long
@needs_onnx
def test_a_graph_in_onnx_gives_what_the_model_gives(toy_run: Path, tmp_path: Path) -> None:
    """The cheapest of the graphs; the others are slow."""
    toolkit.export(toy_run, tmp_path / "graphs", graphs=["embed"], examples=2)
    model, session = load(toy_run, "cpu"), onnx_file.Session(tmp_path / "graphs" / "embed.onnx")
    for n in (1, 3):
        codes = random_codes(model.code_spec, n, model.code_spec.grid, torch.Generator().manual_seed(n))
        assert torch.equal(session({"codes": codes})[0], model.autoencoder.embed(codes))


@needs_onnx
@pytest.mark.slow
def test_a_run_becomes_onnx(toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of an earlier format make place; others stay."""
    out = tmp_path / "graphs"
    out.mkdir()
    for name in ("encoder.pt2", "mine.txt"):
        (out / name).touch()
    assert run(["export", f"run={toy_run}", f"out={out}", "examples=3"]) == 0, capsys.readouterr().err
    names = {"encoder.onnx", "decoder.onnx", "embed.onnx", "spec.json", "export.json", "run.py", "mine.txt"}
    assert {path.name for path in out.iterdir()} == names
    assert "none of 48" in capsys.readouterr().out
    model, session = load(toy_run, "cpu"), onnx_file.Session(out / "encoder.onnx")
    for n in (1, 3, 8):
        x = random_data(model.spec, n, model.spec.axes, torch.Generator().manual_seed(n))
        assert torch.equal(session({"x": x})[0], model.encode(x))


@needs_onnx
@pytest.mark.slow
@torch.no_grad()
def test_onnx_has_free_axes(tmp_path: Path) -> None:
    model = model_of(SOUND)
    for name, graph in stage_one(model).there.items():
        path = tmp_path / f"{name}.onnx"
        onnx_file.write(graph, traced(graph), path)
        session = onnx_file.Session(path)
        shape = next(iter(session.session.get_inputs())).shape
        assert shape[0] == "batch"
        assert shape[2] == ("4*n0" if name == "encoder" else "n0")
        for n, codes in ((1, 4), (3, 2), (8, 7)):
            inputs = {key: given(model, n, codes)[key] for key in graph.inputs}
            expected = graph.module(*inputs.values())
            for ours, theirs in zip(expected if name == "decoder" else (expected,), session(inputs), strict=True):
                torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


class Reads(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] if inputs[0].max().item() > 0 else -inputs[0]


class Counts(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(5, -1)


class Sorts(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sort(dim=1, stable=True).values


def graph_of(module: nn.Module) -> Graph:
    return Graph("encoder", module, {"x": torch.randn(5, 4)}, {"x": {0: Dim("batch")}}, ("codes",), (module,))


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "facts"),
    [
        (Reads(), "the graph encoder (Reads) cannot be traced: … values of the data … .item() > 0"),
        (Counts(), "the graph encoder (Counts) cannot be traced: … a constant of the size batch"),
    ],
    ids=["reads", "counts"],
)
def test_what_cannot_be_traced_is_named(module: nn.Module, facts: str) -> None:
    with pytest.raises(ExportError) as raised:
        traced(graph_of(module))
    assert_names(str(raised.value), facts)
    assert "\n" not in str(raised.value)


@needs_onnx
@pytest.mark.slow
def test_what_onnx_lacks_is_named(tmp_path: Path) -> None:
    graph = graph_of(Sorts())
    with pytest.raises(ExportError) as raised:
        onnx_file.write(graph, traced(graph), tmp_path / "file.onnx")
    assert_names(str(raised.value), "the graph encoder (Sorts) cannot be written as onnx: … aten.sort")


def test_a_decoder_without_a_mean_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(SOUND)
    monkeypatch.setattr(model.autoencoder, "decode", lambda z, conditions: SimpleNamespace(mean=None))
    graphs = stage_one(model)
    assert list(graphs.there) == ["encoder", "embed"]
    assert_names(graphs.left_out["decoder"], "ConvDecoder … mean")


def test_a_code_that_rounding_decides_is_a_tie() -> None:
    """Of two codes that differ, one because its latent lies between two entries."""
    model = model_of(SOUND)
    quantizer = cast(VectorQuantizer, model.autoencoder.quantizer)
    x = random_data(SOUND, 2, (16,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = model.autoencoder.quantize(x.long()).codes
        z = model.autoencoder.encode(x.long())
        other = int(codes[1, 0, 2] + 1) % 8
        quantizer.codebook[0] = z[0, :, 1] + torch.tensor([1e-7, 0, 0, 0])
        quantizer.codebook[1] = z[0, :, 1] - torch.tensor([1e-7, 0, 0, 0])
        codes = model.autoencoder.quantize(x.long()).codes
    given = codes.clone()
    given[0, 0, 1] = 1 - codes[0, 0, 1]
    given[1, 0, 2] = other
    assert int((given != codes).sum()) == 2
    assert comparing.ties(model, x, codes, given) == 1


def test_a_level_that_rounding_decides_is_a_tie() -> None:
    """Of three that differ: at the border, in the middle of a level, and by two levels at the border."""
    mean = (torch.tensor([100.5 + 1e-4, 100.0, 100.5]) * 2 / 255 - 1)[None]
    model, graph = (
        torch.tensor([[101, 100, 100]], dtype=torch.uint8),
        torch.tensor([[100, 101, 102]], dtype=torch.uint8),
    )
    assert comparing.level_ties(SOUND, mean, model, graph) == 1


@pytest.mark.long
def test_without_a_dataset_noise_is_tried(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(model: Model) -> Any:
        raise toolkit.ToolkitError("root=/nowhere: no such folder")

    monkeypatch.setattr(Model, "dataset", property(gone))
    report = toolkit.export(toy_run, tmp_path / "graphs", format="torch", graphs=["embed"], examples=2)
    assert_names(report["tried_on"], "2 examples of noise … /nowhere")
    assert list(report["graphs"]) == ["embed"]


def test_a_runs_folder_is_not_written_to(toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (toy_run / "spec.json").read_bytes()
    assert run(["export", f"run={toy_run}", f"out={toy_run}", "format=torch"]) == 2
    assert_names(capsys.readouterr().err, f"toolkit export: out={toy_run} … name another")
    assert (toy_run / "spec.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["graphs=[encodr]", "format=torch"], "toolkit export: graphs=encodr … did you mean encoder"),
        (["format=tf"], "toolkit export: format=tf"),
        ([], "toolkit export: format=onnx needs onnxruntime … pip install 'discrete-toolkit[onnx]' … format=torch"),
    ],
    ids=["graph", "format", "extra"],
)
def test_mistakes(
    words: list[str],
    facts: str,
    toy_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert run(["export", f"run={toy_run}", f"out={tmp_path / 'graphs'}", *words]) == 2
    assert_names(capsys.readouterr().err, facts)
    assert not (tmp_path / "graphs").exists()
