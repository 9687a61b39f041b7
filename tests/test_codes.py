from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import one_hot

from toolkit.batches import Batch
from toolkit.dataset import collate
from toolkit.errors import ToolkitError
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.runs.codes import CachedCodes, cache_key, code_type, encode_batches, read_codes, write_codes
from toolkit.spec import CodeSpec, DataSpec
from toolkit.testing.parts import point_autoencoder, random_data

LATENT = CodeSpec((3, 4), (300, 20))
SIZE = 10


def tensors() -> dict[str, Tensor]:
    parts = [torch.randint(size, (SIZE, 3, 4)) for size in LATENT.codebook_sizes]
    codes = torch.stack(parts, 1)
    codes[0, 0, 0, 0] = 299
    return {"codes": codes, "label": torch.arange(SIZE), "force": torch.randn(SIZE, 3, 2)}


def in_batches(whole: dict[str, Tensor], size: int = 4) -> Iterator[dict[str, Tensor]]:
    for start in range(0, SIZE, size):
        yield {name: value[start : start + size] for name, value in whole.items()}


def written(path: Path, whole: dict[str, Tensor]) -> Path:
    write_codes(path, LATENT, in_batches(whole), SIZE, {"key": "abc"})
    return path


def test_codes_come_back_with_conditions_and_metadata(tmp_path: Path) -> None:
    whole, told = tensors(), list[int]()
    path = tmp_path / "new" / "train.safetensors"
    write_codes(path, LATENT, in_batches(whole), SIZE, {"key": "abc", "split": "학습"}, told.append)
    arrays, metadata = read_codes(path)
    assert metadata == {"key": "abc", "split": "학습"}
    assert told == [4, 8, 10]
    examples = CachedCodes({"train": arrays})
    assert examples.size("train") == SIZE
    for i in range(SIZE):
        example = examples.example("train", i, None)
        assert set(example) == {"x", "label", "force"}
        assert torch.equal(example["x"], whole["codes"][i])
        assert example["x"].dtype == torch.int64
        assert torch.equal(example["label"], whole["label"][i])
        assert example["label"].dtype == torch.int64
        assert torch.equal(example["force"], whole["force"][i])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_batch_of_codes_is_its_examples(tmp_path: Path) -> None:
    arrays, _ = read_codes(written(tmp_path / "codes", tensors()))
    examples = CachedCodes({"train": arrays})
    for indices in ([3, 0, 9, 3], range(2, 5)):
        batch, expected = (read("train", indices, None) for read in (examples.batch, partial(collate, examples)))
        assert list(batch) == list(expected)
        for name, value in batch.items():
            assert torch.equal(value, expected[name])
            assert value.dtype == expected[name].dtype


def test_the_file_is_a_safetensors_like_any_other(tmp_path: Path) -> None:
    whole = tensors()
    with safe_open(written(tmp_path / "codes", whole), "pt") as file:
        assert set(file.keys()) == set(whole)
        assert torch.equal(file.get_tensor("codes").long(), whole["codes"])
        assert {**file.metadata(), "sha256": ""} == {"format": "1", "key": "abc", "sha256": ""}


def test_arrays_stay_on_the_disk(tmp_path: Path) -> None:
    path = written(tmp_path / "codes", tensors())
    arrays, _ = read_codes(path)
    if (maps := Path("/proc/self/maps")).exists():
        assert str(path) in maps.read_text()
    with pytest.raises(ValueError, match="read-only"):
        arrays["codes"][0] = 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((2,), "u1"), ((256,), "u1"), ((257,), "u2"), ((3, 65536), "u2"), ((65537,), "i4"), ((2, 257, 2), "u2")],
)
def test_codes_take_the_smallest_type(sizes: tuple[int, ...], expected: str) -> None:
    assert code_type(CodeSpec((1,), sizes)) == np.dtype(expected)


def test_the_largest_code_survives(tmp_path: Path) -> None:
    for size in (256, 65536, 1 << 20):
        code_spec = CodeSpec((2,), (size,))
        codes = torch.tensor([[[0, size - 1]]])
        write_codes(tmp_path / "codes", code_spec, iter([{"codes": codes}]), 1, {})
        assert read_codes(tmp_path / "codes")[0]["codes"].tolist() == codes.tolist()


def test_a_key_is_of_everything_that_codes_depend_on() -> None:
    key = cache_key("hash", {"name": "shapes", "size": 32}, "train")
    assert key == cache_key("hash", {"size": 32, "name": "shapes"}, "train")
    others = [("other", {"name": "shapes", "size": 32}, "train"), ("hash", {"name": "shapes", "size": 33}, "train")]
    assert len({key, *(cache_key(*parts) for parts in others), cache_key("hash", {}, "val")}) == 4


def test_encoding_is_the_models() -> None:
    data = DataSpec(1, (6,), levels=5)
    autoencoder, x = point_autoencoder(data).train(), random_data(data, 5)
    batches = [Batch({"x": part, "label": torch.zeros(len(part))}, torch.device("cpu")) for part in x.split(2)]
    made = list(encode_batches(autoencoder, iter(batches)))
    assert torch.equal(torch.cat([each["codes"] for each in made]), autoencoder.eval().quantize(x).codes)
    assert set(made[0]) == {"codes", "label"}


def test_what_a_prior_learns_is_drawn_from_the_posterior() -> None:
    data = DataSpec(1, (2,), levels=5)
    autoencoder = point_autoencoder(data, quantizer=CategoricalQuantizer(4, codebook_size=3))
    x = random_data(data, 1).expand(4000, 1, 2)
    before = torch.get_rng_state()
    first, again = (
        next(encode_batches(autoencoder, [Batch({"x": x}, torch.device("cpu"))]))["codes"] for _ in range(2)
    )
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    shares = autoencoder.posterior(x[:1]).log_probs[0].exp()[0]  # (codebook_size, positions)
    torch.testing.assert_close(one_hot(first[:, 0], 3).float().mean(0).T, shares.detach(), atol=0.03, rtol=0)


# -- damaged and foreign files


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = written(tmp_path / "codes.safetensors", tensors())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ToolkitError, match=r"codes.safetensors"):
        read_codes(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"none.safetensors: .*No such file"):
        read_codes(tmp_path / "none.safetensors")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no codes, but some words")
    with pytest.raises(ToolkitError, match="is not a safetensors file"):
        read_codes(tmp_path / "text")


@pytest.mark.parametrize("held", [{"weight": torch.zeros(3)}, {"codes": torch.zeros(3, dtype=torch.bfloat16)}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, held: dict[str, Tensor]) -> None:
    save_file(held, tmp_path / "f")
    with pytest.raises(ToolkitError, match="holds no codes"):
        read_codes(tmp_path / "f")


# -- a write that fails


def fails_after(batches: Iterator[dict[str, Tensor]], error: BaseException) -> Iterator[dict[str, Tensor]]:
    yield next(batches)
    raise error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.EIO, "broken"), ToolkitError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("x"), ValueError),
    ],
)
def test_a_torn_write_leaves_what_there_was(tmp_path: Path, error: BaseException, raised: type[BaseException]) -> None:
    whole = tensors()
    path = written(tmp_path / "codes", whole)
    with pytest.raises(raised):
        write_codes(path, LATENT, fails_after(in_batches(tensors()), error), SIZE, {"key": "new"})
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]
    arrays, metadata = read_codes(path)
    assert metadata == {"key": "abc"}
    assert arrays["codes"].tolist() == whole["codes"].tolist()


def test_a_full_disk_is_told_before_anything_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ToolkitError, match=r"could not be written to .*No space left"):
        written(tmp_path / "codes", tensors())
    assert list(tmp_path.iterdir()) == []
