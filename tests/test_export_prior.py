"""A prior's start and step as graphs: from position to position they give what one pass gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from messages import assert_names
from torch import Tensor

import toolkit
from toolkit.causal.network import Trunk
from toolkit.errors import ToolkitError
from toolkit.exporting import onnx_file
from toolkit.exporting.comparing import Run
from toolkit.exporting.stepping import Stepping, stepping
from toolkit.exporting.tracing import traced
from toolkit.exporting.walking import walked
from toolkit.model import Model
from toolkit.prior import Prior
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.priors.categorical import CategoricalPrior
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.priors.scales import ScalesPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.priors.wavenet import WaveNetPrior
from toolkit.spec import CodeSpec, Condition, DataSpec

KIND = Condition("kind", 3)
DATA = DataSpec(1, (12,))
SMALL: dict[str, Any] = {"hidden": 8, "head": 8}
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in onnx_file.NEEDED), reason="needs pip install 'discrete-toolkit[onnx]'"
)


def wavenet() -> AutoregressivePrior:
    return WaveNetPrior(CodeSpec((6,), (5, 3)), (KIND,), blocks=1, layers=2, skip=8, **SMALL)


def transformer() -> AutoregressivePrior:
    return TransformerPrior(CodeSpec((2, 3), (5, 3)), (KIND,), layers=1, heads=2, **SMALL)


def pixelcnn() -> AutoregressivePrior:
    return PixelCNNPrior(CodeSpec((3, 2), (5,)), (KIND,), layers=2, **SMALL)


def line() -> AutoregressivePrior:
    return PixelCNNPrior(CodeSpec((4,), (5,)), (), layers=1, **SMALL)


def steps_of(prior: Prior) -> Stepping:
    torch.manual_seed(0)
    for parameter in prior.eval().parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return stepping(cast(Model, SimpleNamespace(prior=lambda name: prior, data=DATA)), "mine")


@torch.no_grad()
def worst(steps: Stepping, runs: Mapping[str, Run], n: int) -> float:
    """Largest difference of logits over random codes of n examples, some of them without a condition."""
    prior, seed = steps.prior, torch.Generator().manual_seed(n)
    grid, sizes = prior.code_spec.grid, prior.code_spec.codebook_sizes
    codes = torch.stack([torch.randint(size, (n, *grid), generator=seed) for size in sizes], 1)
    known = {c.name: torch.arange(n) % (c.size + 1) for c in prior.conditions_seen}
    whole = [depth.flatten(1, -2) for depth in prior.network(codes, prior.context(known, n, grid))]
    given = walked(steps, runs, codes.flatten(2), known)
    assert len(given) == codes[0, 0].numel()
    assert all(len(own) == len(sizes) for own in given)
    pairs = [(logits, depth[:, p]) for p, own in enumerate(given) for logits, depth in zip(own, whole, strict=True)]
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def called(module: Any) -> Run:
    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(module(*inputs.values()))

    return run


@pytest.mark.parametrize(
    ("make", "graphs"),
    [
        (wavenet, ["prior_start", "prior_step", "prior_depths"]),
        (transformer, ["prior_start", "prior_step", "prior_depths"]),
        (pixelcnn, ["prior_start", "prior_step_0", "prior_step_1"]),
        (line, ["prior_start", "prior_step"]),
    ],
)
def test_steps_give_what_one_pass_gives(make: Any, graphs: list[str]) -> None:
    steps = steps_of(make())
    assert list(steps.graphs) == graphs
    assert set(steps.changing) < set(steps.state) or steps.changing == steps.state
    assert worst(steps, {name: called(graph.module) for name, graph in steps.graphs.items()}, 5) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("make", [wavenet, transformer, pixelcnn, line])
def test_graphs_of_any_batch_give_it_too(make: Any) -> None:
    steps = steps_of(make())
    runs = {name: called(traced(graph).module()) for name, graph in steps.graphs.items()}
    assert max(worst(steps, runs, n) for n in (1, 2, 7)) < 1e-5


@needs_onnx
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:torch")
@pytest.mark.parametrize("make", [wavenet, transformer])
def test_onnx_gives_it_too(make: Any, tmp_path: Path) -> None:
    steps, runs = steps_of(make()), dict[str, Run]()
    for name, graph in steps.graphs.items():
        onnx_file.write(graph, traced(graph), tmp_path / f"{name}.onnx")
        runs[name] = onnx_file.Session(tmp_path / f"{name}.onnx")
    assert max(worst(steps, runs, n) for n in (1, 2, 7)) < 1e-4


@needs_onnx
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:torch")
def test_what_onnxruntime_cannot_run_is_a_sentence(tmp_path: Path) -> None:
    """The slabs of a PixelCNN, as its exporter writes them."""
    steps, runs = steps_of(line()), dict[str, Run]()
    for name, graph in steps.graphs.items():
        onnx_file.write(graph, traced(graph), tmp_path / f"{name}.onnx")
        runs[name] = onnx_file.Session(tmp_path / f"{name}.onnx")
    with pytest.raises(ToolkitError, match=r"onnxruntime cannot run \w+\.onnx: .*format=torch"):
        worst(steps, runs, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("toys")
def test_a_runs_prior_is_described_and_tried(toy_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "graphs"
    report = toolkit.export(toy_run, out, format="torch", graphs=["embed"], prior="pixelcnn", examples=3)
    assert report["prior"]["logits"]["largest_difference"] < 1e-5
    prior = json.loads((out / "spec.json").read_text())["prior"]
    assert len(prior["steps"]) == np.prod(prior["grid"]) - 1
    for name in {prior["start"], *prior["steps"]}:
        assert (out / f"{name}.pt2").is_file()
    assert (out / "sample.py").is_file()


@pytest.mark.parametrize(
    ("prior", "why"),
    [
        (lambda: CategoricalPrior(CodeSpec((4,), (5,)), ()), "prior=mine: it has no causal network"),
        (lambda: WaveNetPrior(CodeSpec((1,), (5,)), (), **SMALL), "prior=mine: its codes have a single position"),
        (
            lambda: ScalesPrior(CodeSpec((5,), (4,), parts=((1, 1), (2, 2))), (), layers=1, heads=2, **SMALL),
            "prior=mine: … many",
        ),
        (
            lambda: TransformerPrior(
                CodeSpec((4,), (5,)), (Condition("caption", 4, text=True),), layers=1, heads=2, **SMALL
            ),
            "prior=mine: it reads texts",
        ),
    ],
    ids=["no network", "one position", "parts", "texts"],
)
def test_what_has_no_step_is_refused(prior: Any, why: str) -> None:
    with pytest.raises(ToolkitError) as raised:
        steps_of(prior())
    assert_names(str(raised.value), why)


def test_a_trunk_of_ones_own_has_its_coarsest_graphs() -> None:
    trunk: Any = SimpleNamespace(graph_id=lambda grid, position, coarse: (position, coarse))
    assert Trunk.file_graph_id(trunk, (2,), 1) == (1, True)
