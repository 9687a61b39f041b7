"""A module as the program that ``torch.export`` makes of it, and in words where it makes none."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from toolkit.errors import ToolkitError
from toolkit.exporting.graphs import Graph
from toolkit.fit import title


class ExportError(ToolkitError):
    """A graph that cannot be made; the message has the part, the operation, and what to do instead."""


@torch.no_grad()
def traced(graph: Graph) -> ExportedProgram:
    """The program of a graph, its free axes free. ExportError where that fails.

    Strict first: there a size that the code turns into a constant is an error, and nothing is fixed in silence; what
    cannot be read line by line is traced without. The axes are named to both, so that neither may fix one.
    """
    shapes, inputs = (tuple(graph.axes[name] for name in graph.inputs),), tuple(graph.inputs.values())
    with quietly():
        try:
            program = torch.export.export(graph.module.eval(), inputs, dynamic_shapes=shapes, strict=True)
        except Exception:
            try:
                program = torch.export.export(graph.module.eval(), inputs, dynamic_shapes=shapes, strict=False)
            except Exception as e:
                raise ExportError(f"{_of(graph)} cannot be traced: {_in_words(e)}") from e
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for key in _OF_SOURCE:
                node.meta.pop(key, None)
    return program


_OF_SOURCE = ("stack_trace", "source_fn_stack")
"""What torch notes of an operation: lines and paths of the machine that exports."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what torch and its exporters say to themselves."""
    logs = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def not_converted(graph: Graph, error: Exception) -> ExportError:
    """What is to be said of a program that is traced, and has an operation that a format lacks."""
    names = re.findall(r"op='([\w.]+)'|(aten[.:]+\w+)", " ".join(str(e) for e in _chain(error)))
    operation = next((first or second for first, second in names), "")
    what = f"the operation {operation} has no counterpart there" if operation else _first_line(error)
    return ExportError(f"{_of(graph)} cannot be written as onnx: {what}")


def _of(graph: Graph) -> str:
    return f"the graph {graph.name} ({', '.join(map(title, graph.parts))})"


def _in_words(error: Exception) -> str:
    """The line of a part at which tracing ended, and why."""
    if fixed := re.search(r"marked (.+?) as dynamic but your code specialized it", str(error)):
        return (
            f"its code makes a constant of the size {fixed[1]}: write x.shape[0] for len(x), and no number that is"
            " computed from a size where the size itself would do"
        )
    home = Path(torch.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not Path(f.filename).is_relative_to(home)]
    last = next((f for f in reversed(frames) if f.line and Path(__file__).parent not in Path(f.filename).parents), None)
    where = f" at `{last.line}` ({Path(last.filename).name}:{last.lineno})" if last else ""
    why = "what it does depends on values of the data" if "data-dependent" in str(error) else _first_line(error)
    return f"{why}{where}"


def _first_line(error: Exception) -> str:
    root = _chain(error)[-1]
    text = str(root).strip().splitlines() or [type(root).__name__]
    return text[0].rstrip(".")


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain
