"""Which parts take examples of unequal lengths, padded to one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.config import RunConfig
from toolkit.dataset import SPLITS, Examples
from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.errors import ToolkitError
from toolkit.fit import device_of, fakes, title
from toolkit.folding import FoldedDistribution
from toolkit.lengths.known import has_padding, is_of_one_length, lengths_of
from toolkit.lengths.padded import looks_ahead
from toolkit.likelihood import Distribution
from toolkit.objective import Objective
from toolkit.options import TrainerOptions
from toolkit.prior import Prior
from toolkit.spec import Condition

CURE = "choose dataset.lengths=grouped or equal, or another"


def check_stage(examples: Examples, objective: Objective, autoencoder: Autoencoder) -> None:
    """ToolkitError where examples of unequal lengths meet a part that does not take padding."""
    if not check_codes(examples, autoencoder):
        return
    quantizer = autoencoder.quantizer
    _check_network("decoder", autoencoder.decoder, autoencoder.data.rank)
    if any(getattr(part, "dropout", 0) for part in quantizer.modules()):
        _refuse(title(quantizer), "its dropout is of whole examples: choose dropout=0 or dataset.lengths=grouped")
    if not objective.takes_padding:
        _refuse(title(objective), f"its loss would count padding: {CURE} objective")
    if _distribution(autoencoder).log_prob_by_position is Distribution.log_prob_by_position:
        _refuse(title(autoencoder.decoder), f"it has no probability position by position: {CURE} decoder or likelihood")


def check_codes(examples: Examples, autoencoder: Autoencoder) -> bool:
    """Whether examples may be padded; ToolkitError where they may, and cannot be encoded so."""
    lengths = [of for split in SPLITS if (of := lengths_of(examples, split))]
    if not lengths:
        return False
    autoencoder.code_spec.refuse_parts("dataset.lengths", "choose dataset.lengths=equal, or another quantizer")
    _check_lengths(lengths, autoencoder.data.axes[0], autoencoder.grid[0])
    _check_steps(lengths, autoencoder.data.conditions)
    if is_of_one_length(examples):
        return False
    _check_network("encoder", autoencoder.encoder, autoencoder.data.rank)
    if not autoencoder.quantizer.local:
        _refuse(title(autoencoder.quantizer), f"it quantizes positions together: {CURE} quantizer")
    return True


def check_prior(examples: Examples, prior: Prior) -> None:
    """ToolkitError where examples of unequal lengths meet a prior that does not take padding."""
    if has_padding(examples) and not prior.takes_padding:
        _refuse(title(prior), f"a code's probability depends on padding behind it: {CURE} prior, such as wavenet")


def check_trainers(examples: Examples, config: RunConfig) -> None:
    """``check_trainer`` of the stages that are trained."""
    for stage, name in (("autoencoder", "trainer"), ("prior", "prior_trainer")):
        if config.stage in ("all", stage):
            check_trainer(examples, getattr(config, name), name)


def check_trainer(examples: Examples, options: TrainerOptions, trainer: str) -> None:
    """ToolkitError where a step is compiled or captured for shapes that no two batches share."""
    for name in ("graph", "compile"):
        if lengths_of(examples, "train") is not None and getattr(options, name):
            raise ToolkitError(
                f"{trainer}.{name}={getattr(options, name)}: a step is made for one shape, and batches of unequal"
                " lengths have many: leave it out, or choose dataset.lengths=equal"
            )


def _check_network(kind: str, part: Encoder | Decoder, rank: int) -> None:
    along = part.rank is None or part.rank == rank
    if along and (part.lead or (looks_ahead(part) and not part.takes_padding)):
        _refuse(title(part), f"what it gives of an example depends on padding behind it: {CURE} {kind}")


def _check_lengths(lengths: Sequence[Sequence[int]], axis: int, positions: int) -> None:
    stride, rest = divmod(axis, positions)
    odd = next((length for of_split in lengths for length in of_split if length < 1 or length % stride), None)
    if rest or odd is not None:
        length = axis if odd is None else odd
        raise ToolkitError(
            f"dataset.lengths: an example of {length} positions is no whole number of codes of {stride} positions:"
            f" choose a dataset.grain that {stride} divides"
        )


def _check_steps(lengths: Sequence[Sequence[int]], conditions: Sequence[Condition]) -> None:
    """A step that is cut in two would move all later ones along the codes."""
    for condition in conditions:
        if condition.per_step and any(length % condition.stride for of_split in lengths for length in of_split):
            raise ToolkitError(
                f"dataset.lengths: condition.{condition.name} has steps of {condition.stride} positions, which do not"
                " divide all lengths: choose a dataset.grain that they divide"
            )


def _distribution(autoencoder: Autoencoder) -> type[Distribution]:
    """What the decoder gives."""
    with fakes(autoencoder.decoder), torch.no_grad():
        device = device_of(autoencoder.decoder)
        z = torch.zeros(2, autoencoder.quantizer.dim, *autoencoder.grid, device=device)
        given = autoencoder.decode(z, {})
    return type(given.base if isinstance(given, FoldedDistribution) else given)


def _refuse(part: str, why: str) -> None:
    raise ToolkitError(f"{part} does not take examples of unequal lengths, {why}")
