"""A GPU's rules without a GPU: a stand-in for an accelerator, whose tensors are real and lie in the CPU's memory.

    with stand_in() as gpu:
        x = torch.ones(3, device="cuda")
        x.device                      # cuda:0
        x + torch.ones(3)             # PlacementError: add: tensors on cuda:0 and cpu
        float(x.sum())                # counted in gpu.waits; refused while a graph is captured
        torch.cuda.graph(...)         # captured operations do not run; a replay runs them on the same tensors

Tensors are marked by their storages, so that views, parameters and gradients of what lies on the device lie there, too.
While the block lasts torch says that it has such a device: whatever asks for one, or for its name, memory, streams,
graphs or random numbers, gets an answer. ``StandIn`` says what is counted.

What it cannot see: the limits of a device's own kernels and their rounding, its memory, and what streams and threads do
at once. Loading processes are left out, and nothing is compiled. A loss on the CPU of outputs on the device has a
backward pass that it takes for mixed.
"""

from toolkit.testing.accelerator.device import CaptureError as CaptureError
from toolkit.testing.accelerator.device import PlacementError as PlacementError
from toolkit.testing.accelerator.device import StandIn as StandIn
from toolkit.testing.accelerator.graphs import CapturedGraph as CapturedGraph
from toolkit.testing.accelerator.interface import stand_in as stand_in

__all__ = ["CaptureError", "CapturedGraph", "PlacementError", "StandIn", "stand_in"]
