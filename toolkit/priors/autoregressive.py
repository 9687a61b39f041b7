"""What priors with a causal network share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from toolkit.causal.coding import entropy_code
from toolkit.causal.context import Context, with_texts
from toolkit.causal.network import CausalNetwork, Trunk
from toolkit.causal.sampling import sample
from toolkit.conditioner import Conditioner
from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.spec import CodeSpec, Condition


class AutoregressivePrior(Prior):
    """p(codes) as the product of each code's probability given those before it, by a causal network.

    Conditions are embedded and given to the network at every position; those per step along the grid's first axis. In
    training, a share ``condition_dropout`` of the examples has no conditions, which guidance needs (Ho and Salimans
    2022, arXiv:2207.12598). A subclass only chooses the ``trunk``, whose context has as many channels as its input; one
    whose trunk attends to texts gives a ``conditioner`` for them.
    """

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        trunk: Trunk,
        head: int,
        condition_dropout: float,
        depth_layers: int = 0,
        conditioner: Callable[[Condition], Conditioner] | None = None,
    ) -> None:
        super().__init__()
        self.code_spec, self.condition_dropout = code_spec, condition_dropout
        self.embedding = ConditionEmbedding(conditions, trunk.channels, conditioner) if conditions else None
        self.network = CausalNetwork(trunk, code_spec.codebook_sizes, head=head, depth_layers=depth_layers)

    @property
    def conditions_seen(self) -> tuple[Condition, ...]:
        """Those that it was built for."""
        return () if self.embedding is None else self.embedding.conditions

    def blocks_in_order(self) -> Sequence[nn.Module]:
        return self.network.trunk.blocks_in_order()

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.network.log_prob(codes, self.context(conditions, len(codes), codes.shape[2:]))

    def nats_by_position(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What each code costs ``(batch, depth, *grid)``, of which ``-log_prob`` is the sum."""
        return self.network.by_position(codes, self.context(conditions, len(codes), codes.shape[2:]))

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.network.cross_entropy(codes, self._dropped(codes, conditions))

    def loss_by_position(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.network.by_position(codes, self._dropped(codes, conditions))

    def _dropped(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor | None:
        """The context of which training leaves out conditions."""
        keep = None if self.embedding is None else self.embedding.keep(len(codes), self.condition_dropout)
        return self.context(conditions, len(codes), codes.shape[2:], keep)

    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        check_guidance(sampling, self.embedding)
        with torch.no_grad():
            context = self.context(conditions, n, self.code_spec.grid)
            always = {} if self.embedding is None else self.embedding.always(conditions)
            unconditional = self.context(always, n, self.code_spec.grid)
        return sample(
            self.network,
            n,
            self.code_spec.grid,
            sampling,
            context=context,
            unconditional=unconditional,
            prefix=prefix,
            generator=generator,
            progress=progress,
        )

    def entropy_code(
        self,
        coder: EntropyCoder,
        n: int,
        conditions: Mapping[str, Tensor],
        codes: Tensor | None = None,
        *,
        positions: int | None = None,
        depth: int | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        grid = self.code_spec.grid
        if depth not in (None, self.code_spec.depth):
            raise NotImplementedError("its network gives a code's probability from all codes of the positions before")
        with torch.no_grad():
            context = self.context(conditions, n, grid)
        return entropy_code(self.network, coder, n, grid, codes, context=context, positions=positions, prefix=prefix)

    def context(
        self, conditions: Mapping[str, Tensor], n: int, grid: Sequence[int], keep: Tensor | None = None
    ) -> Context | None:
        """What the network is told of the conditions at every position, ``(batch, channels, *grid)`` or with length 1
        along axes where it is constant, and the texts. ``keep``: see ``ConditionEmbedding``."""
        if self.embedding is None:
            return None
        everywhere = over_grid(self.embedding(conditions, n, keep), grid)
        return with_texts(everywhere, self.embedding.tokens(conditions, n, keep))


def check_guidance(sampling: SamplingOptions, embedding: ConditionEmbedding | None) -> None:
    """ToolkitError for guidance without conditions."""
    if sampling.guidance != 1.0 and embedding is None:
        raise ToolkitError(f"guidance={sampling.guidance}: this prior has no conditions to guide it; leave it at 1.0")
