"""A prior that is divided over the ranks: every rank keeps a shard of each weight, gradient and moment.

This is torch's ``fully_shard`` (FSDP2, Zhao et al. 2023, arXiv:2304.11277): a block's weights are gathered when a pass
comes to it, and dropped behind it; gradients are averaged into shards. A sharded tensor looks whole: its shape is the
whole one's, and it takes part in operations with others like it. ``whole`` and ``shard_like`` go from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from toolkit.device import NARROW, resolve_precision
from toolkit.distributed import broadcast, gathering, ranks, work_group
from toolkit.errors import ToolkitError
from toolkit.options import AutoencoderTrainerOptions, PriorTrainerOptions


class Divisible(Protocol):
    """What can be sharded block by block."""

    def blocks_in_order(self) -> Sequence[nn.Module]: ...


def check_sharding(trainer: AutoencoderTrainerOptions, prior_trainer: PriorTrainerOptions, stage: str) -> None:
    """ToolkitError, in a sentence, for options that do not go with a sharded prior or with checkpointed activations."""
    if trainer.checkpoint_activations and prior_trainer.graph:
        raise ToolkitError(
            "trainer.checkpoint_activations=true with prior_trainer.graph=true: a captured step cannot compute"
            " activations again; choose one of them"
        )
    if trainer.checkpoint_activations and stage == "autoencoder":
        raise ToolkitError(
            "trainer.checkpoint_activations=true with stage=autoencoder: only a prior's are computed again, and none is"
            " trained; leave it out"
        )
    if not trainer.shard:
        if prior_trainer.checkpoints == "sharded" and stage == "autoencoder":
            raise ToolkitError(
                "prior_trainer.checkpoints=sharded with stage=autoencoder: only a prior's are sharded, and none is"
                " trained; leave it out"
            )
        if prior_trainer.checkpoints == "sharded":
            raise ToolkitError(
                "prior_trainer.checkpoints=sharded with trainer.shard=false: every rank has the whole prior; choose"
                " checkpoints=whole, which opens sharded ones, too, or trainer.shard=true"
            )
        return
    if stage == "autoencoder":
        raise ToolkitError(
            "trainer.shard=true with stage=autoencoder: only the prior is sharded, and none is trained; leave it out"
        )
    refused = {
        "compile": (bool(prior_trainer.compile), "a sharded prior is not compiled; choose compile=false"),
        "graph": (prior_trainer.graph, "the gathering of weights is not captured; choose graph=false"),
        "optimizer": (prior_trainer.optimizer == "muon", "it needs whole matrices; choose adam, adamw or sgd"),
        "precision": (
            prior_trainer.precision == "fp16",
            "the scale of the loss is not that of all shards; choose bf16 or fp32",
        ),
    }
    for name, (given, why) in refused.items():
        if given:
            value = getattr(prior_trainer, name)
            raise ToolkitError(f"trainer.shard=true with prior_trainer.{name}={value}: {why}")


def checkpoint_activations(model: Divisible) -> None:
    """In training, every block keeps its input alone, and computes the rest again in the backward pass.

    ToolkitError where the model has no blocks.
    """
    require_blocks(model)
    for block in model.blocks_in_order():
        block.forward = partial(_checkpointed, block, block.forward)


def check_divisible(prior: Divisible, trainer: AutoencoderTrainerOptions) -> None:
    """ToolkitError where a prior is to be divided, and cannot."""
    if trainer.checkpoint_activations:
        require_blocks(prior)
    if trainer.shard and max(ranks(), trainer.ranks) > 1:
        require_shards(prior)


def require_blocks(model: Divisible) -> None:
    """ToolkitError where a model has no blocks whose activations could be computed again."""
    if not model.blocks_in_order():
        raise ToolkitError(
            f"trainer.checkpoint_activations=true: {type(model).__name__} has no blocks to compute again; leave it out"
        )


def require_shards(model: Any) -> None:
    """ToolkitError where a parameter cannot be divided over ranks."""
    for name, parameter in model.named_parameters():
        if not parameter.dim():
            raise ToolkitError(
                f"trainer.shard=true: {name} is a single number, which has no shards; make its shape (1,)"
            )


def _checkpointed(block: nn.Module, forward: Any, *inputs: Any, **options: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False, **options)
    return forward(*inputs, **options)


def shard(model: Any, device: torch.device, precision: str) -> None:
    """Divides a model over the ranks, and places it: its blocks one by one, and whatever is outside of them as one.

    Its ``loss`` and ``loss_by_position`` may be called then, on all ranks together, and nothing else of it. In bf16
    its blocks are gathered and computed in bf16, with gradients averaged in float32; their weights' shards stay
    float32. Every rank begins with rank 0's weights. ToolkitError where a parameter is a single number.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    require_shards(model)
    for tensor in (*model.parameters(), *model.buffers()):
        broadcast(tensor.data)
    mesh = DeviceMesh.from_group(work_group(), device.type)
    narrow = NARROW.get(resolve_precision(precision, device))
    policy = MixedPrecisionPolicy()
    if narrow is not None:
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, output_dtype=torch.float32)
    for block in model.blocks_in_order():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    for method in ("loss", "loss_by_position"):
        register_fsdp_forward_method(model, method)


def is_sharded(module: nn.Module) -> bool:
    return any(is_shard(parameter) for parameter in module.parameters())


def is_shard(tensor: Tensor) -> bool:
    """Whether this rank has only a shard of it; without an import of what few runs need."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which ranks may have shards; they all call it."""
    if not is_shard(tensor):
        return tensor
    with torch.no_grad(), gathering():
        full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def local(tensor: Tensor) -> Tensor:
    """What this rank has of it."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined,no-any-return]


@torch.no_grad()
def shard_like(value: Tensor, like: Tensor | None) -> Tensor:
    """A whole tensor, or this rank's shard of it where ``like`` is one; without a word to the others."""
    if like is None or not is_shard(like) or is_shard(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    shared = distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return shared.clone()  # else it would keep the memory of the whole


def drop_gathered(module: nn.Module) -> None:
    """After passes without gradients: what is outside of the blocks is gathered anew in the next pass.

    It is kept behind a forward pass, for the backward pass that usually follows; weights that are written meanwhile
    would not be seen.
    """
    reshard = getattr(module, "reshard", None)
    if reshard is not None and ranks() > 1:
        reshard()
