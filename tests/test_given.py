"""What is given to a model in Python: its own form is taken, anything else is refused with what is wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from messages import assert_names
from torch import Tensor

import toolkit
from toolkit.dataset import check_first
from toolkit.datasets.waves import WavesDataset
from toolkit.errors import ToolkitError
from toolkit.given import check_data, codes_of, known_conditions
from toolkit.model import Model
from toolkit.spec import CodeSpec, Condition, DataSpec

LEVELS = DataSpec(2, (8, 8), 8)
FLOATS = DataSpec(1, (16,))
CODES = CodeSpec((2, 2), (16, 4))


@pytest.fixture(scope="module")
def model(toys: None, toy_run: Path) -> Model:
    return toolkit.load(toy_run, "cpu")


def batch(spec: DataSpec = LEVELS) -> Tensor:
    return torch.randint(8, (3, *spec.shape)) if spec.levels else torch.rand(3, *spec.shape) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64])
def test_levels_of_any_type_are_taken(model: Model, dtype: torch.dtype) -> None:
    x = batch(model.spec)
    assert torch.equal(model.encode(x.to(dtype)), model.encode(x))
    assert torch.equal(model.reconstruct(x.to(dtype)), model.reconstruct(x))


@pytest.mark.parametrize(
    ("x", "spec", "words"),
    [
        (lambda x: x / 7, LEVELS, ["scaled to [0, 1]", "0..7"]),
        (lambda x: x / 3.5 - 1, LEVELS, ["scaled to [-1, 1]", "0..7"]),
        (lambda x: x + 0.5, LEVELS, ["whole", "0..7"]),
        (lambda x: x + 200, LEVELS, ["200..", "0..7"]),
        (lambda x: x - 1, LEVELS, ["-1..", "0..7"]),
        (lambda x: x.float() * float("nan"), LEVELS, ["nan", "0..7"]),
        (lambda x: x > 3, LEVELS, ["bool", "0..7"]),
        (lambda x: x[:, :1], LEVELS, ["(3, 1, 8, 8)", "(n, *(2, 8, 8))"]),
        (lambda x: x[0], LEVELS, ["(2, 8, 8)", "(n, *(2, 8, 8))"]),
        (lambda x: x[:0], LEVELS, ["(0, 2, 8, 8)"]),
        (lambda x: x.tolist(), LEVELS, ["list", "tensor"]),
        (lambda x: (x * 100).long(), FLOATS, ["int64", "[-1, 1]"]),
        (lambda x: x * 255, FLOATS, ["[-1, 1]"]),
        (lambda x: x / 0, FLOATS, ["[-1, 1]"]),
    ],
)
def test_data_in_another_form_is_refused(x: object, spec: DataSpec, words: list[str]) -> None:
    check_data(batch(spec), spec)
    with pytest.raises(ValueError, match="x ") as caught:
        check_data(x(batch(spec)), spec)  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_model_refuses_scaled_data(model: Model) -> None:
    x = batch(model.spec).float() / 7
    for call in (model.encode, model.reconstruct):
        with pytest.raises(ValueError, match="look scaled"):
            call(x)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (lambda c: c.float(), ["float32", "integers (n, *(2, 2, 2))", "below 16, 4"]),
        (lambda c: c.bool(), ["bool", "integers"]),
        (lambda c: c[0], ["(2, 2, 2)", "(n, *(2, 2, 2))"]),
        (lambda c: c + 4, ["depth 1", "0..3"]),
        (lambda c: c.tolist(), ["list"]),
    ],
)
def test_codes_say_what_they_are(codes: object, words: list[str]) -> None:
    whole = torch.arange(16).reshape(2, 2, 2, 2) % 4
    for dtype in (torch.uint8, torch.uint16, torch.int32):
        assert torch.equal(codes_of(whole.to(dtype), CODES), whole)
    assert codes_of(whole[:, :1], CODES).shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match="codes") as caught:
        codes_of(codes(whole), CODES)  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words), caught.value


PHONE = Condition("phone", 40, per_step=True, stride=2)
CAPTION = Condition("caption", 512, per_step=True, real=True)
POOLED = Condition("pooled", 512, real=True)


@pytest.mark.parametrize(
    ("condition", "shape", "steps"),
    [(PHONE, (3, 7), "16 positions … 8"), (CAPTION, (3, 7, 512), "16 positions … 16"), (POOLED, (3, 7, 512), "")],
)
def test_tokens_are_not_taken_for_steps(condition: Condition, shape: tuple[int, ...], steps: str) -> None:
    """They would be averaged along the data's first axis; a vector for the whole example goes through."""
    data = replace(FLOATS, conditions=(condition,))
    whole = torch.zeros(3, *shape[2:]) if condition.real else torch.zeros(3).long()
    per_step = torch.zeros(3, condition.steps(16), *shape[2:])
    right = [whole, per_step] if condition.per_step else [whole]
    for value in right:
        assert known_conditions({condition.name: value}, data, {condition.name}, 3)
    with pytest.raises(ToolkitError) as caught:
        known_conditions({condition.name: torch.zeros(shape)}, data, {condition.name}, 3)
    assert_names(str(caught.value), f"condition.{condition.name} has shape {shape} … {steps} … pool it")


TEXT = Condition("caption", 12, text=True)


@pytest.mark.parametrize("given", ["a red star", ["a red star"], ("a red star",)])
def test_a_text_is_given_as_it_is(given: str | list[str]) -> None:
    known = known_conditions({"caption": given}, replace(FLOATS, conditions=(TEXT,)), {"caption"}, 2)
    assert [TEXT.decoded(value) for value in known["caption"]] == ["a red star"] * 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a blue ring", "a red star indeed"], "condition.caption=a red star indeed … 17 bytes … 12"),
        ([], "condition.caption=[] … give one text"),
        ([3], "condition.caption=[3] … give one text"),
        (torch.zeros(2, 7, 64), "condition.caption has shape (2, 7, 64) … (batch, 12)"),
        ("nul\0", "condition.caption='nul\\x00' … character 0"),
    ],
)
def test_what_is_no_text_is_refused(given: object, words: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        known_conditions({"caption": given}, replace(FLOATS, conditions=(TEXT,)), {"caption"}, 2)  # type: ignore[dict-item]
    assert_names(str(caught.value), words)


class Captioned(WavesDataset):  # type: ignore[misc]
    """Each example has a caption of seven tokens, declared as one per step."""

    def __init__(self) -> None:
        super().__init__(axes=(16,), train_size=2)
        self.spec = replace(self.spec, conditions=(replace(CAPTION, size=4),))

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": super().example(split, index, generator)["x"], "caption": torch.zeros(7, 4)}


def test_training_asks_a_dataset_for_its_steps_first() -> None:
    check_first(WavesDataset(axes=(16,), train_size=2))
    with pytest.raises(ToolkitError) as caught:
        check_first(Captioned())
    assert_names(str(caught.value), "condition.caption … (1, 7, 4) … 16 positions … 16 … pool it")


def test_samples_take_labels(model: Model) -> None:
    (condition,) = model.spec.conditions
    name, text = condition.name, ",".join(condition.labels[:2])
    with pytest.raises(ToolkitError, match=rf"condition\.{name}: nothing here was trained to see it"):
        model.sample(2, {name: text})
    with pytest.raises(ToolkitError, match="no such condition"):
        model.sample(2, {"nope": text})
    with pytest.raises(ToolkitError, match="no such condition"):
        model.decode(torch.zeros(1, *model.code_spec.shape, dtype=torch.long), {"nope": torch.zeros(1)})
    with pytest.raises(ToolkitError, match="as text, or a tensor"):
        model.sample(2, {name: 1})  # type: ignore[dict-item]


def test_a_model_says_what_it_is(model: Model) -> None:
    text = repr(model)
    for word in (
        "encoder=toy_conv",
        "quantizer=vq",
        "pixelcnn",
        "(2, 8, 8)",
        "8 levels",
        "16 entries",
        "bits per example",
    ):
        assert word in text, text
