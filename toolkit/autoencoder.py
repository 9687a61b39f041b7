"""The composition of encoder, quantizer and decoder, and the check that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial
from math import prod
from typing import final

import torch
from torch import Tensor, nn

from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.fit import (
    BrokenPartError,
    MisfitError,
    as_misfit,
    check_numbers,
    check_returned,
    device_of,
    example,
    fakes,
    title,
    where_provable,
)
from toolkit.folding import FoldedDistribution, fold, unfold
from toolkit.lengths.padded import Ends, PaddedDistribution
from toolkit.likelihood import Distribution, check_distribution
from toolkit.proofs import proved
from toolkit.quantizer import Posterior, Quantized, Quantizer, check_quantizer
from toolkit.spec import CodeSpec, Condition, DataSpec


@final
class Autoencoder(nn.Module):
    """x → encoder → z → quantizer → codes → embed → z_q → decoder → p(x | z_q).

    A part sees exactly as many axes as its ``rank``: extra leading axes are folded into the batch, for encoder and
    decoder alike, and the distributions of the folded examples are joined to one of the whole example. So a part of
    rank 2 works on video frame by frame without any code for it.

    Building the model runs a fake example through the parts, which proves that they fit and gives ``code_spec``.
    MisfitError where they do not. ``grid`` is that of the latents, before and after the quantizer.
    """

    ends: Ends | None = None
    """Where the examples of a batch end; None: all where x does."""

    def __init__(
        self,
        data: DataSpec,
        encoder: Encoder,
        quantizer: Quantizer,
        decoder: Decoder,
        *,
        decoder_conditions: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        check_quantizer(quantizer)
        self.data, self.decoder_conditions = data, decoder_conditions
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.grid = encoded_grid(encoder, data, quantizer)
        self.code_spec = code_spec_on(quantizer, self.grid)
        proved(("fit", data, decoder_conditions, self.grid), (encoder, quantizer, decoder), self._fit)

    def masked(self, mask: Tensor | None) -> Autoencoder:
        """The same parts, for a batch of examples of unequal lengths: whose positions are true in ``mask``
        ``(batch, positions)``, along the first axis of x.

        Each example costs and codes what it does alone; codes and latents of the padding are 0. Lengths are whole
        numbers of codes, and the parts are such as take padding: see ``toolkit.lengths.checks``.
        """
        if mask is None:
            return self
        other = copy(self)
        other.ends = Ends(mask, self.data.axes[0] // self.grid[0])
        return other

    @property
    def lead(self) -> int:
        """How many positions the first code has fewer than the others along the first axis; see ``Encoder.lead``."""
        rank = self.encoder.rank
        return self.encoder.lead if rank is None or rank == self.data.rank else 0

    def positions(self, codes: int) -> int:
        """Of so many codes from the first on, along the first axis; exactly where all others stand for as many."""
        return max(0, codes * (self.data.axes[0] + self.lead) // self.grid[0] - self.lead)

    def encode(self, x: Tensor) -> Tensor:
        """Continuous latents ``(batch, dim, *grid)``."""
        folded, extra = fold(x, self.encoder.rank)
        with self._ended(self.encoder, extra):
            return unfold(self.encoder(folded), extra)

    def quantize(self, x: Tensor) -> Quantized:
        """Encoder and quantizer."""
        return self._quantized(self.quantizer, self.encode(x))

    def sample(self, x: Tensor) -> Quantized:
        """A sample from the code posterior, with its exact kl."""
        return self._quantized(self.quantizer.sample, self._checked(x))

    def _quantized(self, quantizer: Callable[[Tensor], Quantized], z: Tensor) -> Quantized:
        return quantizer(z) if self.ends is None else self.ends.quantize(quantizer, z, self.quantizer.training)

    def posterior(self, x: Tensor) -> Posterior:
        """q(codes given x), where the quantizer has one."""
        return self.quantizer.posterior(self._checked(x))

    def embed(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, d, *code_spec.grid)``, of the first d depths, to the decoder's latents.

        These are ``(batch, dim, *grid)``.
        """
        return self.quantizer.embed(codes)

    def decode(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """p(x | z); the decoder sees only the conditions named in ``decoder_conditions``."""
        seen = {name: conditions[name] for name in self.decoder_conditions if name in conditions}
        folded, extra = fold(z, self.decoder.rank)
        with self._ended(self.decoder, extra):
            distribution = self._decoded(folded, extra, seen)
        return distribution if self.ends is None else PaddedDistribution(distribution, self.ends.mask)

    def _decoded(self, folded: Tensor, extra: tuple[int, ...], seen: Mapping[str, Tensor]) -> Distribution:
        if not extra:
            return self.decoder(folded, seen)
        known = {condition.name: condition for condition in self.data.conditions}
        per_part = {name: _fold_condition(value, known[name], extra) for name, value in seen.items()}
        return FoldedDistribution(self.decoder(folded, per_part), self.decoder.rank, extra)

    def _ended(self, part: Encoder | Decoder, extra: tuple[int, ...]) -> AbstractContextManager[None]:
        """Padding is as if it were not there for what looks along the first axis; slices of it do not."""
        return nullcontext() if self.ends is None or extra else self.ends.in_zeros(part)

    def _checked(self, x: Tensor) -> Tensor:
        """Latents, checked as ``Quantizer.__call__`` checks them."""
        z = self.encode(x)
        self.quantizer.check(z)
        return z

    def _fit(self) -> None:
        grid = self.grid
        latents = (self.quantizer.channels, *grid)
        with fakes(self.quantizer, self.decoder):
            with as_misfit(self.quantizer, f"on latents {latents}"):
                quantized = self.quantizer(torch.zeros(2, *latents, device=device_of(self.quantizer)))
            codes = (2, self.quantizer.depth, *self.code_spec.grid)
            if tuple(quantized.codes.shape) != codes:
                raise BrokenPartError(
                    self.quantizer,
                    f"gives codes {tuple(quantized.codes.shape)}, not {codes}: its code_grid says where codes lie",
                )
            if quantized.codes.dtype != torch.int64:
                raise BrokenPartError(self.quantizer, f"gives codes of type {quantized.codes.dtype}, not int64")
            check_returned(self.quantizer, "latents", quantized.z, (2, self.quantizer.dim, *grid))
            for name in ("loss", "kl"):
                check_returned(self.quantizer, f"a {name}", getattr(quantized, name), (2,), "one for each example")
            check_numbers(self.quantizer, "metrics", quantized.metrics)
            if self.quantizer.depth:
                with where_provable(self.quantizer, f"in embed of codes {codes[1:]}"):
                    self._fit_embed(quantized.codes, grid)
            self._fit_decoder(quantized.z, grid)

    def _fit_embed(self, codes: Tensor, grid: tuple[int, ...]) -> None:
        latents, dim = self.quantizer.embed(codes), self.quantizer.dim
        if latents.dim() > 1 and latents.shape[1] != dim:
            raise BrokenPartError(self.quantizer, f"has an embed that gives {latents.shape[1]} channels, dim is {dim}")
        check_returned(self.quantizer, "embedded codes", latents, (2, dim, *grid))

    def _fit_decoder(self, z: Tensor, grid: tuple[int, ...]) -> None:
        source = f"{title(self.encoder)} makes a grid of {grid}"
        none = {condition.name: _none(condition, self.data, z.device) for condition in self.data.conditions}
        with as_misfit(self.decoder, f"on latents {tuple(z.shape[1:])} ({source})"):
            likelihood = self.decode(z, none)
        if isinstance(likelihood, Distribution) and likelihood.shape != self.data.shape:
            raise MisfitError(
                f"{title(self.decoder)} gives {likelihood.shape}, the data is {self.data.shape}: {source}; "
                "change the encoder's or the decoder's strides, or the data's size"
            )
        with as_misfit(self.decoder, f"in log_prob of data {self.data.shape}"):
            check_distribution(self.decoder, likelihood, self.data)


def encoded_grid(encoder: Encoder, data: DataSpec, quantizer: Quantizer) -> tuple[int, ...]:
    """The grid of an encoder's latents, from a fake example; MisfitError where it cannot encode the data."""
    what = ("grid", data, quantizer.channels)
    return proved(what, (encoder,), partial(_encoded_grid, encoder, data, quantizer))


def _encoded_grid(encoder: Encoder, data: DataSpec, quantizer: Quantizer) -> tuple[int, ...]:
    with fakes(encoder), as_misfit(encoder, f"on data {data.shape}"):
        x, extra = fold(example(data, encoder), encoder.rank)
        z = unfold(encoder(x), extra)
    if z.dim() != 2 + data.rank or 0 in z.shape:
        raise BrokenPartError(
            encoder, f"on data {data.shape} gives latents {tuple(z.shape[1:])}: expected (dim, *grid)"
        )
    if not z.is_floating_point():
        raise BrokenPartError(encoder, f"gives latents of type {z.dtype}, not floats")
    if z.shape[1] != quantizer.channels:
        raise MisfitError(
            f"{title(encoder)} gives {z.shape[1]} channels, {title(quantizer)} takes {quantizer.channels}"
        )
    return tuple(z.shape[2:])


def code_spec_on(quantizer: Quantizer, grid: tuple[int, ...]) -> CodeSpec:
    """The codes of latents on a grid; MisfitError where the quantizer does not take it, or says what cannot be."""
    with as_misfit(quantizer, f"on latents of a grid of {grid}"):
        code_grid = quantizer.code_grid(grid)
    try:
        code_spec = CodeSpec.on(code_grid, quantizer.codebook_sizes)
        along = isinstance(code_grid, tuple) and len(code_grid) == len(grid) and min(code_spec.grid) > 0
        fits = bool(code_spec.parts) or along
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise BrokenPartError(
            quantizer,
            f"has a code_grid of {code_grid!r} for latents on {grid}: give a grid of as many axes, or the parts of a"
            " flat one, such as ((1, 1), (2, 2))",
        )
    return code_spec


def _fold_condition(value: Tensor, condition: Condition, extra: tuple[int, ...]) -> Tensor:
    """A value of the whole example holds for all its slices; a value per step, for the slices of that step."""
    per_step = condition.per_step and value.dim() > (2 if condition.real else 1)
    if per_step:
        value = value.repeat_interleave(condition.stride, 1)
    else:
        value = value.unsqueeze(1).expand(value.shape[0], extra[0], *value.shape[1:])
    return value.repeat_interleave(prod(extra[1:]), 1).flatten(0, 1)


def _none(condition: Condition, data: DataSpec, device: torch.device) -> Tensor:
    """The value "none" of a condition, for two examples."""
    if condition.text:
        return torch.zeros(2, condition.size, dtype=torch.uint8, device=device)
    steps = (condition.steps(data.axes[0]),) if condition.per_step else ()
    if condition.real:
        return torch.zeros(2, *steps, condition.size, device=device)
    return torch.full((2, *steps), condition.size, device=device)
