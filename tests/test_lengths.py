"""Examples of unequal lengths: an example in padding costs, codes and teaches what it does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from math import log
from typing import Any
from unittest.mock import patch

import pytest
import torch
from messages import assert_names
from sounds import DATA, DIM, STRIDE, Sounds, model
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches, split_batches
from toolkit.errors import ToolkitError
from toolkit.evaluation import evaluate_parts
from toolkit.lengths import measured, padded
from toolkit.lengths.checks import check_prior, check_stage, check_trainer
from toolkit.lengths.known import by_length, lengths_of
from toolkit.lengths.mask import mask_of, own, shortest
from toolkit.metrics.codebook import CodebookMetric
from toolkit.metrics.reconstruction import ReconstructionMetric
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.vimco import VIMCO
from toolkit.options import TrainerOptions
from toolkit.order import ByLength, OfOneLength
from toolkit.prior import Prior
from toolkit.priors.maskgit import MaskGITPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.priors.wavenet import WaveNetPrior
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.runs.codes import CachedCodes, encode_batches
from toolkit.spec import Condition
from toolkit.training import PriorStage, Stage

CPU = torch.device("cpu")


def read(indices: range | list[int], split: str = "train") -> Batch:
    """Some examples in one batch."""
    return next(split_batches(Sounds(), split, CPU, batch_size=len(indices), places=indices, workers=0))


def each_alone() -> Iterator[tuple[int, Batch]]:
    return ((index, read([index])) for index in range(7))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


def test_a_batch_is_padded_to_its_longest_and_says_with_what() -> None:
    batch = read([0, 1, 2])
    assert batch.x.shape == (3, 1, 28)
    assert batch.mask is not None
    assert batch.mask.sum(1).tolist() == [4, 16, 28]
    assert batch.positions == 16
    assert batch.conditions["pitch"].shape == (3, 7)
    assert torch.equal(batch.x[1, :, :16], Sounds().example("train", 1, None)["x"])
    assert not batch.x[1, :, 16:].any()
    assert read([0, 8]).mask is None  # both as long as the other


def test_what_is_shown_is_cut_to_the_shortest() -> None:
    batch = read([1, 2])
    cut = shortest({"x": batch.x, "mask": batch.mask, **batch.conditions})  # type: ignore[dict-item]
    assert (cut["x"].shape, cut["pitch"].shape, set(cut)) == ((2, 1, 16), (2, 4), {"x", "pitch"})


@pytest.mark.parametrize(("size", "batch_size", "ranks"), [(20, 4, 1), (23, 4, 1), (37, 3, 2), (5, 4, 2), (3, 2, 3)])
def test_an_epoch_has_each_example_once_however_many_ranks(size: int, batch_size: int, ranks: int) -> None:
    lengths = Sounds(size).lengths("train")
    parts = [iter(ByLength(lengths, batch_size, 0, 0, rank, ranks)) for rank in range(ranks)]
    together = ([key for row in rows for key in row] for rows in zip(*parts, strict=True))
    one = iter(ByLength(lengths, batch_size * ranks, 0, 0, 0, 1))
    keys = list(islice(together, 4 * size))
    assert keys == list(islice(one, 4 * size))
    flat = [key for rows in keys for key in rows]
    for number in range(3):
        assert sorted(index for of, index in flat if of == number) == list(range(size))


def test_batches_are_of_about_one_length_and_another_in_each_epoch() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 1000, (500,), generator=generator).tolist()
    batches = list(islice(iter(ByLength(lengths, 10, 0, 0, 0, 1)), 100))
    own_positions, taken = sum(lengths) * 2, 0
    for batch in batches:
        taken += 10 * max(lengths[index] for _, index in batch)
    assert taken < 1.15 * own_positions
    first, second = (
        {frozenset(index for _, index in batch) for batch in part} for part in (batches[:50], batches[50:])
    )
    assert len(first & second) < 5


@pytest.mark.parametrize("start", [1, 3, 7])
def test_batches_go_on_from_anywhere(start: int) -> None:
    whole = TrainBatches(Sounds(), CPU, batch_size=3, seed=0, workers=0)
    rest = TrainBatches(Sounds(), CPU, batch_size=3, seed=0, workers=0, start=start)
    for batch, other in zip(islice(whole, start, start + 9), rest, strict=False):
        assert torch.equal(batch.x, other.x)
        assert torch.equal(batch.conditions["pitch"], other.conditions["pitch"])


@pytest.mark.long
def test_workers_load_the_same_batches() -> None:
    own_process, others = (
        list(islice(TrainBatches(Sounds(), CPU, batch_size=3, seed=0, workers=workers), 6)) for workers in (0, 2)
    )
    for a, b in zip(own_process, others, strict=True):
        assert torch.equal(a.x, b.x)
        assert a.mask is not None
        assert b.mask is not None
        assert torch.equal(a.mask, b.mask)


def test_in_training_a_batch_without_padding_has_a_mask_all_the_same() -> None:
    """One rank's may have some where another's has none, and they wait for each other where it is counted."""
    batches = list(islice(TrainBatches(Sounds(), CPU, batch_size=2, seed=0, workers=0), 20))
    masks = [batch.mask for batch in batches if batch.mask is not None]
    assert len(masks) == 20
    assert any(bool(mask.all()) for mask in masks)


def in_groups(
    size: int, batch_size: int, rank: int = 0, ranks: int = 1, start: int = 0
) -> Iterator[list[tuple[int, int]]]:
    return iter(OfOneLength(Sounds(size).lengths("train"), batch_size, 0, start, rank, ranks))


@pytest.mark.parametrize(("size", "batch_size", "ranks"), [(40, 4, 1), (37, 3, 2), (5, 2, 2)])
def test_batches_of_one_length_leave_no_example_out(size: int, batch_size: int, ranks: int) -> None:
    """Over as many epochs as a batch has examples, each is seen as often, whatever the ranks."""
    lengths, whole = Sounds(size).lengths("train"), batch_size * ranks
    parts = [in_groups(size, batch_size, rank, ranks) for rank in range(ranks)]
    one = in_groups(size, whole)
    seen = [0] * size
    for _ in range(size):
        keys = [key for part in parts for key in next(part)]
        assert keys == next(one)
        assert len({lengths[index] for _, index in keys}) == 1
        for _, index in keys:
            seen[index] += 1
    assert seen == [whole] * size  # size batches are as many epochs
    rest = in_groups(size, batch_size, start=5)
    assert list(islice(in_groups(size, batch_size), 5, 15)) == list(islice(rest, 10))


class Grouped(Sounds):
    one_length = True


def test_batches_of_one_length_have_no_padding() -> None:
    batches = TrainBatches(Grouped(40), CPU, batch_size=4, seed=0, workers=0)
    assert all(batch.mask is None for batch in islice(batches, 12))
    evaluated = list(
        split_batches(Grouped(), "val", CPU, batch_size=3, places=by_length(Sounds().lengths("val")), workers=0)
    )
    assert all(batch.mask is None for batch in evaluated)
    assert sum(len(batch.x) for batch in evaluated) == 7


FAULTS: dict[str, Any] = {
    "": nullcontext(),
    "convolutions see the padding": patch.object(padded, "looks_ahead", lambda part: False),
    "the likelihood counts the padding": patch.object(
        padded.PaddedDistribution, "log_prob", lambda self, x: self.base.log_prob(x)
    ),
    "the quantizer counts the padding": patch.object(
        padded.Ends, "quantize", lambda self, quantizer, z, training: quantizer(z)
    ),
}


def costs(parts: Autoencoder, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each example codes, its nats, and those of the codes, and the quantizer's loss."""
    bound = ELBO().bound(parts.masked(batch.mask), batch.x, batch.conditions)
    return bound.quantized.codes, bound.data_nats, bound.code_nats, bound.quantized.loss


@torch.no_grad()
def law(quantizer: str, likelihood: str) -> None:
    parts = model(quantizer, likelihood)
    codes, *whole = costs(parts, read(range(7)))
    for index, batch in each_alone():
        alone_codes, *of_one = costs(parts, batch)
        length = alone_codes.shape[2]
        assert torch.equal(codes[index, :, :length], alone_codes[0])
        assert not codes[index, :, length:].any()
        for together, one in zip(whole, of_one, strict=True):
            close(together[index], one[0])


@pytest.mark.parametrize(
    ("quantizer", "likelihood"),
    [
        ("ema", "categorical"),
        *(pytest.param(name, "categorical", marks=pytest.mark.long) for name in ("vq", "residual", "projected", "fsq")),
        *(pytest.param("ema", name, marks=pytest.mark.long) for name in ("logistic", "normal", "wavenet")),
    ],
)
def test_an_example_in_padding_costs_and_codes_what_it_does_alone(quantizer: str, likelihood: str) -> None:
    law(quantizer, likelihood)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name])
def test_the_law_sees(fault: str) -> None:
    with FAULTS[fault], pytest.raises(AssertionError):
        law("ema", "categorical")


def learned(quantizer: str, padding: bool) -> dict[str, Tensor]:
    """A quantizer's state after a training step on the same latents, padded or without anything between them."""
    parts = model(quantizer).train()
    batch = read(range(20))
    with torch.no_grad():
        z = parts.masked(batch.mask).encode(batch.x)
    assert batch.mask is not None
    ends = padded.Ends(batch.mask, STRIDE)
    torch.manual_seed(1)
    if padding:
        ends.quantize(parts.quantizer, z, training=True)
    else:
        parts.quantizer(own(z, ends.codes))
    return {name: value.clone() for name, value in parts.quantizer.state_dict().items()}


def same_statistics(quantizer: str) -> None:
    one, other = learned(quantizer, True), learned(quantizer, False)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    "quantizer", ["ema", *(pytest.param(name, marks=pytest.mark.long) for name in ("vq", "residual"))]
)
def test_a_quantizer_learns_from_the_examples_own_positions_alone(quantizer: str) -> None:
    same_statistics(quantizer)


def test_statistics_that_count_the_padding_are_seen() -> None:
    with FAULTS["the quantizer counts the padding"], pytest.raises(AssertionError):
        same_statistics("ema")


def test_training_reports_and_minimizes_what_the_examples_cost_alone() -> None:
    """The loss, its gradient, and the error where the mean is free."""
    parts = model(likelihood="normal")
    stage = Stage(ELBO(), parts).eval()
    batch = read(range(7))
    assert batch.mask is not None
    output = stage(batch.x, batch.conditions, batch.mask)
    output.loss.backward()
    gradient = {name: p.grad.clone() for name, p in parts.named_parameters() if p.grad is not None}
    stage.zero_grad()
    alone_losses, errors = [], []
    for _, one in each_alone():
        of_one = stage(one.x, one.conditions)
        (of_one.loss / 7).backward()
        alone_losses.append(of_one.loss)
        errors.append((DATA.scale(one.x) - of_one.likelihood.mean).square().flatten())
    close(output.loss, torch.stack(alone_losses).mean())
    for name, p in parts.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(gradient[name], p.grad, atol=1e-4, rtol=1e-4)
    metrics = stage.metrics(output, batch.x, batch.mask)
    close(metrics["mse"], torch.cat(errors).mean())
    counted = padded.Ends(batch.mask, STRIDE)
    used = own(output.quantized.codes, counted.codes).unique().numel()
    assert float(metrics["batch_usage"]) == pytest.approx(used / 6)


def evaluated(batch_size: int, sort: bool = True) -> dict[str, float]:
    parts = model(likelihood="normal")
    sounds = Sounds()
    places = by_length(sounds.lengths("val")) if sort else None
    batches = split_batches(sounds, "val", CPU, batch_size=batch_size, places=places, workers=0)
    metrics = [ReconstructionMetric(DATA), CodebookMetric(parts.code_spec, parts.quantizer)]
    torch.manual_seed(0)
    prior = WaveNetPrior(parts.code_spec, (), hidden=8, layers=2, skip=8, head=8)
    evaluation = evaluate_parts(ELBO(), parts, batches, metrics, {"wavenet": prior})
    return {name: v for name, v in evaluation.metrics_by_name().items() if isinstance(v, float)} | {
        "wavenet": evaluation.code_nats["wavenet"]
    }


def figures(batch_size: int) -> None:
    together, one_by_one = evaluated(batch_size), evaluated(1, sort=False)
    assert together.keys() == one_by_one.keys()
    for name, value in together.items():
        assert value == pytest.approx(one_by_one[name], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("batch_size", [3, pytest.param(7, marks=pytest.mark.long)])
def test_figures_are_those_of_one_by_one(batch_size: int) -> None:
    figures(batch_size)


def whole(batch: Batch, bound: object) -> Iterator[tuple[Tensor, object, Mapping[str, Tensor]]]:
    yield batch.x, bound, batch.conditions


@pytest.mark.parametrize("fault", ["metrics", "prior", "likelihood"])
def test_figures_that_count_the_padding_are_seen(fault: str) -> None:
    faults: dict[str, Any] = {
        "metrics": patch("toolkit.evaluation.apart", whole),
        "prior": patch.object(measured, "without_padding", lambda nats, mask: nats),
        "likelihood": FAULTS["the likelihood counts the padding"],
    }
    with faults[fault], pytest.raises(AssertionError):
        figures(7)


def test_bits_are_per_number_of_the_examples_own() -> None:
    torch.manual_seed(0)
    parts = model()
    batches = split_batches(Sounds(), "val", CPU, batch_size=7, workers=0)
    evaluation = evaluate_parts(ELBO(), parts, batches)
    numbers = sum(Sounds().lengths("val")) / 7
    assert evaluation.dims == pytest.approx(numbers)
    assert evaluation.rate == pytest.approx(numbers / STRIDE * log(6, 2))
    metrics = evaluation.metrics_by_name()
    assert metrics["data_bits_per_dim"] == pytest.approx(evaluation.nll / numbers / log(2))
    assert metrics["dims"] == pytest.approx(numbers)


PRIORS: dict[str, Callable[[Autoencoder], Prior]] = {
    "wavenet": lambda parts: WaveNetPrior(parts.code_spec, DATA.conditions, hidden=8, layers=2, skip=8, head=8),
    "transformer": lambda parts: TransformerPrior(
        parts.code_spec, DATA.conditions, hidden=8, layers=1, heads=2, head=8
    ),
}


def codes_of(parts: Autoencoder) -> CachedCodes:
    batches = split_batches(Sounds(), "train", CPU, batch_size=6, workers=0)
    rows = list(encode_batches(parts, batches, parts.code_spec.grid[0]))
    return CachedCodes({"train": {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}})


def prior_law(name: str) -> None:
    parts = model()
    codes = codes_of(parts)
    torch.manual_seed(0)
    stage = PriorStage(PRIORS[name](parts)).eval()
    batch = next(split_batches(codes, "train", CPU, batch_size=7, workers=0))
    assert batch.mask is not None
    losses = stage.losses(batch.x, batch.conditions, batch.mask)
    for index in range(7):
        row = codes.example("train", index, None)
        of_one = stage.losses(row["x"].unsqueeze(0), {"pitch": row["pitch"].unsqueeze(0)})
        close(losses[index], of_one[0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["wavenet", pytest.param("transformer", marks=pytest.mark.long)])
def test_codes_cost_a_prior_what_they_do_alone(name: str) -> None:
    prior_law(name)


@torch.no_grad()
def test_a_prior_that_counts_the_padding_is_seen() -> None:
    fault = patch("toolkit.training.without_padding", lambda nats, mask: nats)
    with fault, pytest.raises(AssertionError):
        prior_law("wavenet")


@torch.no_grad()
def test_codes_are_kept_with_their_lengths() -> None:
    parts = model()
    codes = codes_of(parts)
    assert lengths_of(codes, "train") == [length // STRIDE for length in Sounds().lengths("train")]
    for index, batch in each_alone():
        row = codes.example("train", index, None)
        assert torch.equal(row["x"], parts.quantize(batch.x).codes[0])
        assert torch.equal(row["pitch"], batch.conditions["pitch"][0])
    (joined,) = codes.stretches("train")
    assert joined.shape == (1, 1, sum(codes.lengths("train") or ()))
    assert codes.table("train") is None


def refusal(act: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(ToolkitError) as error:
        act(*arguments)
    return str(error.value)


def test_parts_that_do_not_take_padding_are_refused() -> None:
    """In a sentence with the part and what to do."""
    sounds, parts = Sounds(), model()
    check_stage(sounds, ELBO(), parts)
    assert_names(refusal(check_stage, sounds, VIMCO(), parts), "VIMCO … unequal … dataset.lengths=grouped … objective")
    dropped = Autoencoder(DATA, parts.encoder, ResidualQuantizer(DIM, depth=2, dropout=0.5), parts.decoder)
    assert_names(refusal(check_stage, sounds, ELBO(), dropped), "ResidualQuantizer … dropout=0")
    masked = MaskGITPrior(parts.code_spec, (), hidden=8, layers=1, heads=2)
    assert_names(refusal(check_prior, sounds, masked), "MaskGITPrior … dataset.lengths=grouped … wavenet")
    for name in ("compile", "graph"):
        told = refusal(check_trainer, sounds, TrainerOptions(**{name: True}), "trainer")
        assert_names(told, f"trainer.{name}=True … unequal lengths … leave it out … dataset.lengths=equal")
    for part, kind in ((parts.decoder, "decoder"), (parts.encoder, "encoder")):
        part.takes_padding = False
        assert_names(refusal(check_stage, sounds, ELBO(), parts), f"{type(part).__name__} … {kind}")


def test_lengths_that_are_no_whole_number_of_codes_are_refused() -> None:
    parts = model()
    with patch.object(Sounds, "lengths", lambda self, split: [6] * 20):
        text = refusal(check_stage, Sounds(), ELBO(), parts)
    assert_names(text, "dataset.lengths … 6 … grain … 4")


def test_a_step_of_a_condition_is_not_cut() -> None:
    parts = model()
    parts.data = replace(DATA, conditions=(Condition("phone", 3, per_step=True, stride=3),))
    text = refusal(check_stage, Sounds(), ELBO(), parts)
    assert_names(text, "dataset.lengths: … condition.phone … 3 positions … dataset.grain")


def test_padding_that_nobody_declared_is_refused() -> None:
    class Undeclared:
        def size(self, split: str) -> int:
            return 20

        def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
            return Sounds().example(split, index, generator)

    with pytest.raises(ToolkitError, match=r"train .* differ in length.*Dataset\.lengths"):
        next(split_batches(Undeclared(), "train", CPU, batch_size=2, workers=0))


def test_a_text_is_of_the_whole_example() -> None:
    texts = torch.randint(1, 128, (2, 8), dtype=torch.uint8)
    batch = {"x": torch.zeros(2, 1, 6), "mask": mask_of(torch.tensor([3, 6]), 6), "caption": texts}
    assert torch.equal(shortest(batch)["caption"], texts)


def test_a_mask_is_of_lengths() -> None:
    assert mask_of(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]
