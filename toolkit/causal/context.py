"""What a trunk is given at all positions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_structure, tree_unflatten

from toolkit.conditioner import Tokens


class TextContext(NamedTuple):
    """A context, and texts that every position attends to."""

    everywhere: Tensor
    """As a context without texts: ``(batch, context, *grid)``, with length 1 along axes where it is constant."""
    tokens: Tokens


Context: TypeAlias = Any
"""A tensor ``(batch, context, *grid)``, with length 1 along axes where it is constant, or, for a trunk that can attend
to texts, a ``TextContext``."""


def of_examples(context: Context | None, rows: Tensor | slice) -> Context | None:
    """The context of some examples."""
    return None if context is None else tree_map(lambda tensor: tensor[rows], context)


def cloned(context: Context | None) -> Context | None:
    return None if context is None else tree_map(Tensor.clone, context)


def copied(context: Context, other: Context) -> None:
    """Another context's numbers into this one's memory; their shapes are the same."""
    for tensor, source in zip(tree_leaves(context), tree_leaves(other), strict=True):
        tensor.copy_(source)


def shapes(context: Context | None) -> Hashable:
    """Shapes and types, to compare."""
    leaves = [] if context is None else tree_leaves(context)
    return tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def joined(contexts: Sequence[Context | None], n: int) -> Context | None:
    """The contexts of n examples each, one after the other, as one batch."""
    given = [context for context in contexts if context is not None]
    if not given:
        return None
    leaves = zip(*(tree_leaves(context) for context in given), strict=True)
    return tree_unflatten([_joined(parts, n) for parts in leaves], tree_structure(given[0]))


def _joined(parts: Sequence[Tensor], n: int) -> Tensor:
    shape = torch.broadcast_shapes(*(part.shape[1:] for part in parts))
    return torch.cat([part.expand(n, *shape) for part in parts])


def with_texts(everywhere: Tensor, tokens: Tokens | None) -> Context:
    """Both as one; the tensor itself where there are no texts."""
    return everywhere if tokens is None else TextContext(everywhere, tokens)


def apart(context: Context | None) -> tuple[Tensor | None, Tokens | None]:
    """What is known everywhere, and the texts."""
    return (context.everywhere, context.tokens) if isinstance(context, TextContext) else (context, None)
