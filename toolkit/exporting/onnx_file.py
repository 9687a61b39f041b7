"""ONNX files: the one place that knows of onnx and onnxruntime, which are an extra."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from toolkit.errors import ToolkitError
from toolkit.exporting.graphs import Graph
from toolkit.exporting.tracing import not_converted, quietly

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require() -> None:
    """ToolkitError where the extra is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ToolkitError(
            f"format=onnx needs {', '.join(missing)}: pip install 'discrete-toolkit[onnx]', or format=torch"
        )


@torch.no_grad()
def write(graph: Graph, program: ExportedProgram, path: Path) -> None:
    """A program as an ONNX file with the graph's names. ExportError naming the operation that ONNX lacks."""
    with quietly():
        try:
            converted: Any = torch.onnx.export(
                program,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamo=True,
                verbose=False,
            )
        except Exception as e:
            raise not_converted(graph, e) from e
        _rename(converted.model, graph)
        converted.save(path)


def _rename(model: Any, graph: Graph) -> None:
    """Gives free axes their names, where torch has numbers, and forgets the lines that operations come from."""
    names: dict[str, str] = {}
    for tensor, name in zip(model.graph.inputs, graph.inputs, strict=True):
        for axis, dim in graph.axes[name].items():
            symbol = re.search(r"[a-z]\w*", str(tensor.shape[axis]))
            if symbol:
                names[symbol[0]] = re.sub(r"\d+\*", "", dim.__name__)
    for tensor in (*model.graph.inputs, *model.graph.outputs):
        for axis, size in enumerate(tensor.shape):
            if not isinstance(size, int):
                tensor.shape[axis] = re.sub(r"[a-z]\w*", lambda match: names.get(match[0], match[0]), str(size))
    taken = {*graph.inputs, *graph.outputs}
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            if value.name in taken and not value.is_graph_output():
                value.name = f"{value.name}_inside"


@final
class Session:
    """A file, run by onnxruntime on as many threads as torch uses."""

    def __init__(self, path: Path) -> None:
        onnxruntime = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.path = path
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        fed = {name: value.numpy() for name, value in inputs.items()}
        try:
            outputs = self.session.run(None, fed)
        except Exception as e:  # its errors have no class of their own in common
            raise ToolkitError(
                f"onnxruntime cannot run {self.path.name}: {str(e).splitlines()[0]}; format=torch writes a graph that"
                " PyTorch runs"
            ) from e
        return tuple(torch.from_numpy(np.asarray(output)) for output in outputs)
