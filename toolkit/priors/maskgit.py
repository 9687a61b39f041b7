"""Masked codes, predicted many at a time (MaskGIT, Chang et al. 2022, arXiv:2202.04200)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import cos, pi, prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.context import Context, apart, with_texts
from toolkit.causal.sampling import MEMORY, check_prefix, filtered_probs, guided, inverse_cdf, on_device
from toolkit.conditioner import Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.device import in_float32
from toolkit.nn.attention import Block, CrossAttention, GridPositions
from toolkit.nn.codebook import upcast
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.rotary import Positions, RotaryPositions, check_positions
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.autoregressive import check_guidance
from toolkit.ranges import Fraction, NonNegative, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class MaskGITPrior(Prior):
    """A transformer that sees all codes but the masked ones, and predicts those.

    Training masks a share ``cos(pi u / 2)`` of the codes, u uniform; the loss is the mean cross-entropy of a masked
    code, times the number of codes. Sampling starts with all masked. In each of ``passes`` passes every masked code is
    sampled, and the least likely are masked again, so that the shares left masked follow the same cosine. The cost is
    ``passes`` passes for any number of codes; the codes of one pass are independent of one another.

    Any codes may be given: a prefix may also have all positions, with -1 where a code is to be sampled. With rotary
    positions a wholly masked grid looks the same everywhere, so that a sample's first codes do not know their place.

    Args:
        hidden: channels.
        layers: number of blocks.
        heads: attention heads per block.
        passes: runs of the network per sample.
        choice_temperature: randomness in which codes are kept, falling to 0 at the last pass.
        dropout: share of the channels of a block's residual updates that training drops.
        condition_dropout: share of the training examples that have no conditions.
        conditioner: what reads the texts among the conditions, which every block then attends to; there is none
            without texts.
    """

    tractable = False

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        hidden: PositiveInt = 256,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        passes: PositiveInt = 12,
        choice_temperature: NonNegative = 4.5,
        positions: Positions = "learned",
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
        conditioner: Callable[[Condition], Conditioner] = BytesConditioner,
    ) -> None:
        super().__init__()
        if passes < 1:
            raise ValueError(f"passes={passes}: at least 1")
        check_positions(positions)
        self.code_spec, self.passes, self.choice_temperature = code_spec, passes, choice_temperature
        self.condition_dropout = condition_dropout
        # The last row of each table stands for a masked code.
        self.tables = nn.ModuleList(nn.Embedding(size + 1, hidden) for size in code_spec.codebook_sizes)
        self.positions = GridPositions(code_spec.grid, hidden) if positions == "learned" else None
        rank = len(code_spec.grid)
        self.rotary = RotaryPositions(rank, hidden // heads) if positions == "rotary" else None
        self.embedding = ConditionEmbedding(conditions, hidden, conditioner) if conditions else None
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in code_spec.codebook_sizes)
        for table in self.tables.parameters():
            nn.init.normal_(table, std=code_spec.depth**-0.5)
        count = layers if any(condition.text for condition in conditions) else 0
        self.texts = nn.ModuleList(CrossAttention(hidden, heads, dropout) for _ in range(count))

    def blocks_in_order(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError(
            "maskgit predicts many codes at once, in any order, and has no joint probability of them"
        )

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        keep = None if self.embedding is None else self.embedding.keep(len(codes), self.condition_dropout)
        masked = self._masks(codes)
        logits = self._logits(codes, masked, self._context(conditions, len(codes), codes.shape[2:], keep))
        costs = [
            F.cross_entropy(upcast(part).movedim(-1, 1), codes[:, d], reduction="none") for d, part in enumerate(logits)
        ]
        cost = torch.stack(costs, 1) * masked
        return cost.flatten(1).sum(1) / masked.flatten(1).sum(1) * masked[0].numel()

    @torch.no_grad()
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
        device, positions = self.norm.weight.device, prod(self.code_spec.grid)
        codes = torch.full((n, self.code_spec.depth, positions), -1, dtype=torch.int64)
        if prefix is not None:
            known = check_prefix(prefix.clamp(min=0), n, self.code_spec.codebook_sizes, positions)
            codes[:, :, : known.shape[2]] = prefix
        # What to sample and what to keep, per pass; an example's numbers do not depend on how many examples there are.
        noise = torch.rand(n, self.passes, 2, *codes.shape[1:], generator=generator, dtype=torch.float64)
        size = max(1, MEMORY // (16 * max(self.code_spec.codebook_sizes) * codes[0].numel()))
        batches = []
        with in_float32(device):
            for start in range(0, n, size):
                rows = slice(start, start + size)
                given = {name: value[rows] for name, value in conditions.items()}
                batches.append(self._fill(codes[rows].to(device), on_device(noise[rows], device), given, sampling))
                if progress is not None:
                    progress(min(n, start + size) * positions // n)
        return torch.cat(batches)

    def _fill(
        self, codes: Tensor, noise: Tensor, conditions: Mapping[str, Tensor], sampling: SamplingOptions
    ) -> Tensor:
        """Fills in the codes ``(n, depth, positions)`` that are -1; noise ``(n, passes, 2, depth, positions)``."""
        n, grid = len(codes), self.code_spec.grid
        contexts = [self._context(conditions, n, grid)]
        if self.embedding is not None and sampling.guidance != 1.0:
            contexts.append(self._context(self.embedding.always(conditions), n, grid))
        masked = codes < 0
        codes = codes.clamp(min=0).unflatten(2, grid)
        count = masked.flatten(1).sum(1, keepdim=True)
        for number, (choices, keeps) in enumerate(_passes(noise)):
            guess, confidence = self._guess(codes, masked.view_as(codes), choices, contexts, sampling)
            codes = guess.where(masked.view_as(codes), codes)
            temperature = self.choice_temperature * (1 - (number + 1) / self.passes)
            confidence = confidence - temperature * (-keeps.clamp(1e-12, 1 - 1e-12).log()).log().view_as(confidence)
            share = cos(pi / 2 * (number + 1) / self.passes) if number + 1 < self.passes else 0.0
            masked = masked & _least(confidence.flatten(1), masked.flatten(1), (count * share).floor()).view_as(masked)
        return codes

    def _guess(
        self, codes: Tensor, masked: Tensor, noise: Tensor, contexts: Sequence[Context], sampling: SamplingOptions
    ) -> tuple[Tensor, Tensor]:
        """A sample of every code, and its log probability, ``(n, depth, *grid)``; guidance has a second context."""
        n, guesses, confidences = len(codes), [], []
        parts = [self._logits(codes, masked, context) for context in contexts]
        for depth, branches in enumerate(zip(*parts, strict=True)):
            probs = filtered_probs(guided(torch.cat(branches), n, sampling.guidance), sampling)
            guess = inverse_cdf(probs, noise[:, depth].view(n, *codes.shape[2:]))
            guesses.append(guess)
            confidences.append((probs.gather(-1, guess.unsqueeze(-1)).squeeze(-1) / probs.sum(-1)).log())
        return torch.stack(guesses, 1), torch.stack(confidences, 1)

    def _context(
        self, conditions: Mapping[str, Tensor], n: int, grid: Sequence[int], keep: Tensor | None = None
    ) -> Context | None:
        """What is known of n examples besides their codes, for any number of passes."""
        if self.embedding is None:
            return None
        everywhere = over_grid(self.embedding(conditions, n, keep), grid)
        return with_texts(everywhere, self.embedding.tokens(conditions, n, keep))

    def _logits(self, codes: Tensor, masked: Tensor, context: Context | None) -> list[Tensor]:
        """For each depth ``(batch, *grid, size)``, from the codes ``(batch, depth, *grid)`` that are not masked."""
        grid = codes.shape[2:]
        x = codes.new_zeros((), dtype=self.norm.weight.dtype)
        if self.positions is not None:
            x = self.positions(tuple(grid))
        for depth, (table, size) in enumerate(zip(self.tables, self.code_spec.codebook_sizes, strict=True)):
            x = x + table(codes[:, depth].masked_fill(masked[:, depth], size)).flatten(1, -2)
        everywhere, tokens = apart(context)
        if everywhere is not None:
            x = x + everywhere.expand(-1, -1, *grid).flatten(2).transpose(1, 2)
        rotation = None if self.rotary is None else self.rotary(tuple(grid))
        for number, block in enumerate(self.blocks):
            x = x if tokens is None else self.texts[number](x, tokens)
            x = block(x, causal=False, rotation=rotation)
        x = self.norm(x).unflatten(1, grid)
        return [head(x) for head in self.heads]

    def _masks(self, codes: Tensor) -> Tensor:
        """Which codes training masks: at least one per example."""
        count = codes[0].numel()
        u = torch.rand(len(codes), 1, device=codes.device)
        masked = ((u * (pi / 2)).cos() * count).ceil().clamp(min=1)
        ranks = torch.rand(len(codes), count, device=codes.device).argsort(1).argsort(1)
        return (ranks < masked).view(codes.shape)


def _passes(noise: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two sets of uniforms of every pass, ``(n, depth, positions)`` each."""
    return [(one[:, 0], one[:, 1]) for one in noise.unbind(1)]


def _least(confidence: Tensor, masked: Tensor, count: Tensor) -> Tensor:
    """The ``count`` ``(n, 1)`` least confident of the masked codes, ``(n, codes)`` bool."""
    ranks = confidence.where(masked, torch.inf).argsort(1).argsort(1)
    return ranks < count
