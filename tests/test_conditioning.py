"""Conditions as features: labels, values, steps, and what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from messages import assert_names

from toolkit.build import build_autoencoder, build_prior
from toolkit.cli.config.compose import compose
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.errors import ToolkitError
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.spec import CodeSpec, Condition, DataSpec

CONDITIONS = (
    Condition("kind", 3),
    Condition("move", 2, per_step=True),
    Condition("force", 2, per_step=True, real=True),
)


def test_whole_conditions_give_one_feature_each() -> None:
    embedding = ConditionEmbedding(CONDITIONS[:1], 5)
    labels = torch.tensor([0, 3, 0])
    features = embedding({"kind": labels, "stranger": labels}, 3)
    assert features.shape == (3, 5)
    assert torch.equal(features[0], features[2])
    assert torch.equal(features[1], embedding({}, 1)[0])
    assert not torch.equal(features[0], features[1])


def test_conditions_per_step_give_a_feature_per_step() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    values = {
        "kind": torch.tensor([1, 2]),
        "move": torch.tensor([[0, 1, 2, 0]] * 2),
        "force": torch.randn(2, 4, 2),
    }
    features = embedding(values, 2)
    assert features.shape == (2, 5, 4)
    parts = [ConditionEmbedding.forward(embedding, {name: value}, 2) for name, value in values.items()]
    parts = [part.reshape(2, 5, -1) for part in parts]
    torch.testing.assert_close(features, sum(parts) - 2 * embedding({}, 2)[:, :, None])


def test_a_condition_that_does_not_change_is_the_same_at_every_step() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    whole = {"move": torch.tensor([0, 2]), "force": torch.randn(2, 2)}
    steps = {name: value[:, None].expand(2, 4, *value.shape[1:]) for name, value in whole.items()}
    features = embedding(whole, 2)
    assert features.shape == (2, 5)
    torch.testing.assert_close(embedding(steps, 2), features[:, :, None].expand(2, 5, 4))


def test_examples_that_are_not_kept_have_no_conditions() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    values = {"kind": torch.tensor([1, 2]), "move": torch.zeros(2, 4).long(), "force": torch.randn(2, 4, 2)}
    features = embedding(values, 2, keep=torch.tensor([True, False]))
    torch.testing.assert_close(features[0], embedding(values, 2)[0])
    torch.testing.assert_close(features[1], embedding({}, 1)[0, :, None].expand(5, 4))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("kind", (3,), r"\(3,\): expected \(2\)"),
        ("kind", (2, 4), r"expected \(2\)"),
        ("move", (3, 4), r"expected \(2, steps\)"),
        ("force", (3, 2), r"expected \(2, steps, 2\)"),
        ("force", (2, 4, 3), r"expected \(2, steps, 2\)"),
    ],
)
def test_a_condition_of_another_shape_is_refused(name: str, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ToolkitError, match=rf"condition\.{name} has shape .*{expected}"):
        ConditionEmbedding(CONDITIONS, 5)({name: torch.zeros(shape).long()}, 2)


def test_steps_are_averaged_over_a_coarser_grid() -> None:
    steps = torch.arange(6.0).expand(1, 2, 6)
    assert over_grid(steps, (3, 4))[0, 0].tolist() == [[0.5], [2.5], [4.5]]
    assert over_grid(steps[..., 0], (3, 4)).shape == (1, 2, 1, 1)


TOGETHER = (
    Condition("move", 2, per_step=True, steps_per_code=2),
    Condition("force", 2, per_step=True, real=True, steps_per_code=2),
)


def test_steps_that_are_told_together_keep_their_order() -> None:
    embedding = ConditionEmbedding(TOGETHER, 5)
    moves, forces = torch.tensor([[0, 1, 1, 0, 0, 0]]), torch.tensor([[1.0, 2.0, 2.0, 1.0, 0.0, 0.0]])
    for name, value in (("move", moves), ("force", forces.unsqueeze(2).repeat(1, 1, 2))):
        features = embedding({name: value}, 1)
        assert features.shape == (1, 5, 3)
        assert (features[..., 0] - features[..., 1]).abs().max() > 1e-3


def test_one_value_told_together_is_each_steps() -> None:
    embedding = ConditionEmbedding(TOGETHER, 5)
    whole = {"move": torch.tensor([0, 2]), "force": torch.randn(2, 2)}
    steps = {name: value[:, None].expand(2, 4, *value.shape[1:]) for name, value in whole.items()}
    torch.testing.assert_close(embedding(steps, 2), embedding(whole, 2)[:, :, None].expand(2, 5, 2))
    assert not embedding({"move": torch.tensor([2])}, 1).any()
    with pytest.raises(ToolkitError, match="a multiple of 2 steps"):
        embedding({"move": torch.zeros(1, 3).long()}, 1)


def test_along_codes_steps_are_dealt_out() -> None:
    move = Condition("move", 2, per_step=True)
    assert (move.resample(16, 4).steps_per_code, move.resample(16, 4).steps(4)) == (4, 16)
    assert (move.resample(16, 16), move.resample(16, 5)) == (move, move)
    phone = Condition("phone", 40, per_step=True, stride=160)
    assert phone.resample(16_000, 200) == Condition("phone", 40, per_step=True, stride=2)
    assert phone.resample(16_000, 200).resample(200, 25).steps_per_code == 4
    assert Condition("kind", 3).resample(16, 4) == Condition("kind", 3)


def test_a_prior_knows_the_order_of_the_steps_of_a_code() -> None:
    data = DataSpec(1, (4, 3), levels=4, conditions=(Condition("move", 2, per_step=True),))
    words = ["prior=pixelcnn", "prior.hidden=8", "prior.layers=2", "prior.head=8", "conditions.prior=[move]"]
    parts = ["dataset=waves", "encoder=patch", "quantizer=vq", "decoder=patch", "likelihood=categorical", "dim=4"]
    config = compose([*parts, *words]).config
    prior = build_prior(config, CodeSpec((2, 3), (4,)), data).eval()
    codes, moves = torch.zeros(2, 1, 2, 3).long(), torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]])
    with torch.no_grad():
        nats = prior.log_prob(codes, {"move": moves})
    assert (nats[0] - nats[1]).abs() > 1e-6


def test_a_value_for_the_whole_example_has_no_steps() -> None:
    """Not even where their number is that of the grid's positions."""
    style = ConditionEmbedding((Condition("style", 512, real=True),), 5)
    assert style({"style": torch.randn(2, 512)}, 2).shape == (2, 5)
    with pytest.raises(ToolkitError, match=r"condition\.style has shape \(2, 7, 512\): expected \(2, 512\)"):
        style({"style": torch.randn(2, 7, 512)}, 2)


CAPTION = Condition("caption", 8, text=True)
CAPTIONED = DataSpec(1, (16,), levels=8, conditions=(CAPTION,))
WAVES = ["dataset=waves", "dataset.axes=[16]", "encoder=patch", "decoder=patch", "likelihood=categorical", "dim=4"]


def read(condition: Condition) -> BytesConditioner:
    return BytesConditioner(condition, hidden=8, layers=1, heads=2)


def test_texts_are_read_beside_the_sum_and_dropped_with_it() -> None:
    embedding = ConditionEmbedding((CONDITIONS[0], CAPTION), 5, read)
    values = {"kind": torch.tensor([1, 2]), "caption": torch.stack([CAPTION.encoded("a star")] * 2)}
    tokens = embedding.tokens(values, 2, keep=torch.tensor([True, False]))
    whole, none = embedding.tokens(values, 2), embedding.tokens({}, 2)
    assert tokens is not None
    assert whole is not None
    assert none is not None
    assert tokens.vectors.shape == (2, 9, 5)
    assert tokens.mask.sum(1).tolist() == [7, 1]
    torch.testing.assert_close(tokens.vectors[0], whole.vectors[0])
    torch.testing.assert_close(tokens.vectors[1], none.vectors[1])
    torch.testing.assert_close(embedding(values, 2), ConditionEmbedding.forward(embedding, {"kind": values["kind"]}, 2))


def test_texts_of_several_conditions_are_one_sequence() -> None:
    embedding = ConditionEmbedding((CAPTION, Condition("title", 3, text=True)), 5, read)
    title = torch.tensor([[97, 98, 0]], dtype=torch.uint8)
    tokens = embedding.tokens({"title": title}, 1)
    assert tokens is not None
    assert tokens.vectors.shape == (1, 9 + 4, 5)
    assert tokens.mask[0].nonzero().flatten().tolist() == [0, 9, 10, 11]


def test_a_text_of_the_wrong_shape_or_type_is_refused() -> None:
    embedding = ConditionEmbedding((CAPTION,), 5, read)
    for value in (torch.zeros(2, 7, dtype=torch.uint8), torch.zeros(2, 8), torch.zeros(3, 8, dtype=torch.uint8)):
        with pytest.raises(ToolkitError, match=r"condition\.caption is"):
            embedding.tokens({"caption": value}, 2)


@pytest.mark.parametrize("prior", ["pixelcnn", "categorical", "uniform", "coarse_to_fine"])
def test_a_text_needs_a_prior_that_reads_it(prior: str) -> None:
    config = replace(compose([*WAVES, f"prior={prior}"]).config, prior_conditions=("caption",))
    with pytest.raises(ToolkitError) as caught:
        build_prior(config, CodeSpec((4,), (3,)), CAPTIONED)
    named = f"conditions.prior=[caption] … prior={prior} reads none … delay, maskgit, random_order, transformer"
    assert_names(str(caught.value), named)


@pytest.mark.parametrize(
    "words",
    [
        ["prior=transformer"],
        ["prior=maskgit"],
        ["prior=coarse_to_fine", "prior.inner=transformer"],
        ["prior=factored", "prior.inner=maskgit", "prior.largest=3"],
        ["prior=factored", "prior.inner=coarse_to_fine", "prior.inner.inner=delay", "prior.largest=3"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_text_goes_to_the_prior_that_reads_it(words: list[str]) -> None:
    config = replace(compose([*WAVES, *words]).config, prior_conditions=("caption",))
    prior = build_prior(config, CodeSpec((4,), (3,)), CAPTIONED)
    assert any(isinstance(module, BytesConditioner) for module in prior.modules())


def test_no_decoder_reads_a_text() -> None:
    config = replace(compose(WAVES).config, decoder_conditions=("caption",))
    with pytest.raises(ToolkitError) as caught:
        build_autoencoder(config, CAPTIONED)
    assert_names(str(caught.value), "conditions.decoder=[caption] … no decoder … conditions.prior=[caption]")


def test_a_network_without_a_conditioner_says_so() -> None:
    with pytest.raises(ValueError, match="caption, a text"):
        ConditionEmbedding((CAPTION,), 5)
