"""Steps of sampling by torch's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toolkit.causal.batch import Batch
from toolkit.causal.code_network import CodeNetwork
from toolkit.errors import ToolkitError

Step = Callable[[CodeNetwork, Batch, int], None]
"""Samples the codes of a batch's position by the operations of a graph id."""


def compiled_step(step: Step, backend: str | Callable[..., Any] = "inductor") -> Step:
    """The step, compiled at the first call of each graph id; ToolkitError where that cannot be done."""
    fast = torch.compile(step, fullgraph=True, dynamic=False, backend=backend)

    def call(network: CodeNetwork, batch: Batch, graph_id: int) -> None:
        try:
            fast(network, batch, graph_id)
        except torch._dynamo.exc.TorchDynamoException as e:
            cause = str(getattr(e, "inner_exception", e)).strip().splitlines()[0]
            raise ToolkitError(
                f"compile=true: the steps cannot be compiled on this machine: {cause}; leave it out"
            ) from e

    return call


class Compiled:
    """Steps as compiled code on a CPU, which is run again with the very tensors that it was compiled for.

    So nothing is checked and looked up anew at every step, as ``torch.compile`` does: that takes longer than the
    arithmetic of a few examples.
    """

    def __init__(self, step: Step) -> None:
        self.step = compiled_step(step, self._compile)
        self.calls: list[Callable[[], object]] = []

    def __call__(self, network: CodeNetwork, batch: Batch, graph_id: int) -> Callable[[], object] | None:
        self.calls = []
        self.step(network, batch, graph_id)
        calls, self.calls = self.calls, []
        return calls[0] if len(calls) == 1 else None

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        from torch._inductor.compile_fx import compile_fx

        lower: Any = self._lower
        return compile_fx(graph, inputs, inner_compile=lower, config_patches={"cpp_wrapper": True})

    def _lower(self, graph: torch.fx.GraphModule, inputs: list[Tensor], **options: Any) -> Any:
        """Lowers a graph without side effects but on its inputs, and notes how it is called."""
        from torch._inductor.compile_fx import compile_fx_inner

        code = compile_fx_inner(graph, inputs, **options)

        def call(inputs: list[Tensor]) -> object:
            given = list(inputs)
            outputs = code(inputs)
            # What is given back, the caller would still have to put somewhere.
            if not outputs:
                self.calls.append(lambda: code(list(given)))
            return outputs

        boxed: Any = call
        boxed._boxed_call = True  # it empties its list of inputs
        return boxed
