"""Every question to a device: which there is, its memory, its random numbers, how precisely and how surely it computes.

Nothing else asks ``torch.cuda`` or its like, but for the ranks' GPUs (``toolkit.distributed``) and captured steps.
"""

from toolkit.device.choice import choose_device, device_name, has_accelerator
from toolkit.device.determinism import deterministic
from toolkit.device.layout import placed
from toolkit.device.memory import free_memory, keep_memory, peak_memory, pins
from toolkit.device.precision import NARROW, autocast, built_for_bf16, double, has_float64, resolve_precision, wide
from toolkit.device.randomness import random_kept, random_state, set_random_state
from toolkit.device.tf32 import exact, in_float32, matmuls

__all__ = [
    "NARROW",
    "autocast",
    "built_for_bf16",
    "choose_device",
    "deterministic",
    "device_name",
    "double",
    "exact",
    "free_memory",
    "has_accelerator",
    "has_float64",
    "in_float32",
    "keep_memory",
    "matmuls",
    "peak_memory",
    "pins",
    "placed",
    "random_kept",
    "random_state",
    "resolve_precision",
    "set_random_state",
    "wide",
]
