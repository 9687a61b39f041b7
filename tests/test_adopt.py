"""Published weights as runs: what is read, what is refused, and what is then done with them."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from published import SETTINGS, codes, publish, weights
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import plugged_in

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli import adopting
from toolkit.cli.adopting import compose_open
from toolkit.cli.completion import candidates
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.runs.folder import ADOPTED, Run
from toolkit.runs.signature import without_hash

pytestmark = pytest.mark.usefixtures("toys")


@cache
def composed(words: tuple[str, ...]) -> RunConfig:
    return compose_open(words)


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composing is half of what adopting so small a model takes."""
    monkeypatch.setattr(adopting, "compose_open", lambda words: composed(tuple(words)))


def adopt(source: Path, out: Path, **more: Any) -> Run:
    toolkit.adopt("toy_kin", source, out, **more)
    return Run(out)


def assert_names(message: str, *facts: str) -> None:
    for fact in facts:
        assert fact in message, f"{message!r} does not name {fact!r}"


def refused(source: Path, out: Path, *names: str, **more: Any) -> None:
    """Nothing is left of it."""
    with pytest.raises(ToolkitError) as error:
        adopt(source, out, **more)
    assert_names(str(error.value), *names)
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]


def test_an_adopted_model_gives_the_codes_that_it_gave(tmp_path: Path) -> None:
    tensors = weights()
    run = adopt(publish(tmp_path / "there"), tmp_path / "run", license="MIT")
    x = torch.randint(8, (20, 2, 8, 8))
    assert torch.equal(toolkit.load(run.path, "cpu").encode(x), codes(tensors, x))
    record = without_hash(json.loads((run.path / ADOPTED).read_text()))
    assert (record["family"], record["source"], record["license"]) == ("toy_kin", "there", "MIT")
    assert record["settings"] == {"width": 6, "dim": 4, "entries": 16}
    assert set(record["files"]) == {"model.safetensors"}
    assert (run.path / "LICENSE").read_text() == "Do as you like.\n"
    assert run.components()["encoder"]["distribution"] == "discrete-toolkit"
    assert "root" not in run.config().dataset.options


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that was adopted from a plain folder."""
    home = tmp_path_factory.mktemp("plain")
    with plugged_in():
        run = adopt(publish(home / "there"), home / "run")
    return next(run.autoencoder.glob("step-*/model.safetensors")).read_bytes()


def as_file(tensors: dict[str, Tensor], home: Path) -> Path:
    save_file(tensors, home / "weights.safetensors")
    return home / "weights.safetensors"


def as_saved(nested: str | None) -> Callable[[dict[str, Tensor], Path], Path]:
    def write(tensors: dict[str, Tensor], home: Path) -> Path:
        rest = {"epoch": 3, "optimizer": {"lr": 0.1}}
        torch.save({nested: tensors, **rest} if nested else tensors, home / "last.ckpt")
        return home / "last.ckpt"

    return write


def sharded(tensors: dict[str, Tensor], home: Path) -> Path:
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in files.items():
        save_file({name: tensors[name] for name in some}, home / file)
    index = {"weight_map": {name: file for file, some in files.items() for name in some}}
    (home / "model.safetensors.index.json").write_text(json.dumps(index))
    return home


def by_older_names(tensors: dict[str, Tensor], home: Path) -> Path:
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, tensor in tensors.items():
        end = next((end for end in names if name.endswith(end)), None)
        renamed[name.replace(end, names[end]) if end else name] = tensor
    return as_file(renamed, home)


def with_a_critic(tensors: dict[str, Tensor], home: Path) -> Path:
    return as_file({**tensors, "critic.main.0.weight": torch.randn(3)}, home)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "layout",
    [as_file, as_saved(None), as_saved("state_dict"), as_saved("ema"), sharded, by_older_names, with_a_critic],
    ids=["file", "saved", "state_dict", "ema", "sharded", "older", "critic"],
)
def test_layouts_of_files_give_the_same_run(layout: Callable[..., Path], plain: bytes, tmp_path: Path) -> None:
    source = layout(weights(), tmp_path)
    run = adopt(source, tmp_path / "run")
    assert next(run.autoencoder.glob("step-*/model.safetensors")).read_bytes() == plain


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"dec.last.bias": None, "enc.last.bias": None}, ["2 are missing", "dec.last.bias", "enc.last.bias"]),
        ({"dec.extra": torch.zeros(2)}, ["1 is unknown", "dec.extra"]),
        ({"dec.first.bias": torch.zeros(7)}, ["1 is of another shape", "dec.first.bias", "(7,)", "(6,)"]),
        ({"enc.first.parametrizations.weight.original1": torch.zeros(5, 2, 4, 4)}, ["of another shape", "enc.first"]),
        ({"enc.last.bias": torch.full((4,), torch.nan)}, ["1 is NaN or infinite", "encoder.out.bias"]),
    ],
)
def test_every_tensor_is_accounted_for(change: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    refused(publish(tmp_path / "there", tensors), tmp_path / "run", *names)


def test_settings_that_no_part_has_are_named(tmp_path: Path) -> None:
    refused(publish(tmp_path / "a", activation="elu"), tmp_path / "run", "activation='elu'")
    refused(publish(tmp_path / "b", width="${oc.env:HOME}"), tmp_path / "run", "oc.env:HOME", "no word")
    refused(publish(tmp_path / "c", width=10**9), tmp_path / "run", "larger than its weights")
    refused(publish(tmp_path / "d", width=[[3]]), tmp_path / "run", "encoder.hidden")
    apart = tmp_path / "settings.json"
    apart.write_text(json.dumps(SETTINGS | {"activation": "tanh"}))
    refused(publish(tmp_path / "e"), tmp_path / "run", "activation='tanh'", settings=apart)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_nothing_of_a_strangers_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": weights(), "callbacks": Evil()}, file)
    refused(file, tmp_path / "run", "more than tensors", "getattr")
    file.write_bytes(pickle.dumps(Evil()))
    refused(file, tmp_path / "run", "nothing else is read")
    assert not (tmp_path / "ran").exists()


def test_a_file_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, file)
    refused(file, tmp_path / "run", "larger than the file")
    torch.save(weights(), file)
    with zipfile.ZipFile(file) as stored, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    refused(tmp_path / "packed.pt", tmp_path / "run", "compressed")


@pytest.mark.parametrize("size", [0, 5, 200, 5000, -1])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_cut_file_is_refused(suffix: str, size: int, tmp_path: Path) -> None:
    file = tmp_path / f"weights.{suffix}"
    save_file(weights(), file) if suffix == "safetensors" else torch.save(weights(), file)
    file.write_bytes(file.read_bytes()[:size])
    refused(file, tmp_path / "run", file.name)


def test_an_index_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    index = tmp_path / "there" / "model.safetensors.index.json"
    save_file(weights(), tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", "gone.safetensors", 3):
        index.write_text(json.dumps({"weight_map": {"enc.last.bias": name}}))
        refused(tmp_path / "there", tmp_path / "run", str(name), "no file beside it")
    index.write_text("[]")
    refused(tmp_path / "there", tmp_path / "run", "cannot be read")


@pytest.mark.slow
def test_a_license_is_not_read_through_a_link(tmp_path: Path) -> None:
    there = publish(tmp_path / "there")
    (tmp_path / "secret").write_text("mine")
    (there / "LICENSE").unlink()
    (there / "LICENSE").symlink_to(tmp_path / "secret")
    assert not (adopt(there, tmp_path / "run").path / "LICENSE").exists()


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("mine")
    with pytest.raises(ToolkitError, match="something in this folder"):
        adopt(publish(tmp_path / "there"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_the_way_back_gives_the_files_that_were_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the direction under weight norm, of which many give the same weight."""
    run = adopt(publish(tmp_path / "there"), tmp_path / "run")
    assert command(["adopt", "toy_kin", f"run={run.path}", f"out={tmp_path / 'back'}"]) == 0
    there, back = weights(), load_file(tmp_path / "back" / "model.safetensors")
    assert sorted(back) == sorted(there)
    free = "enc.first.parametrizations.weight.original1"
    assert all(torch.allclose(back[name], there[name], rtol=1e-6) for name in there if name != free)
    x = torch.randint(8, (20, 2, 8, 8))
    assert torch.equal(codes(back, x), codes(there, x))
    assert (tmp_path / "back" / "LICENSE").is_file()


def test_a_run_that_is_not_of_the_family_is_not_given_back(toy_run: Path, tmp_path: Path) -> None:
    from toolkit.adopting.reverse import write_published

    with pytest.raises(ToolkitError, match="encoder=toy_conv"):
        write_published(toy_run, "toy_kin", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = publish(tmp_path / "there", {**weights(), "critic.weight": torch.zeros(1)})
    assert command(["adopt", "toy_kin", str(there), f"out={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr()
    assert_names(printed.out, "19 of 20, 1 of no use to a run", "(1, 4, 4) of 16 entries", str(tmp_path / "run"))
    assert_names(printed.err, "dataset.root=", "stage=prior")
    for words, names in (
        (["toy_kim", str(there), f"out={tmp_path / 'x'}"], ["toy_kin"]),
        ([f"out={tmp_path / 'x'}"], ["toolkit adopt NAME FILE out=RUN"]),
        (["toy_kin", f"out={tmp_path / 'x'}"], ["run=RUN"]),
        (["toy_kin", str(there), f"out={tmp_path / 'x'}", "licence=MIT"], ["license"]),
        (["toy_kin", str(tmp_path / "nowhere"), f"out={tmp_path / 'x'}"], ["nowhere", "no such file"]),
    ):
        assert command(["adopt", *words]) == 2
        assert_names(capsys.readouterr().err, *names)


def test_families_are_listed_described_and_completed(capsys: pytest.CaptureFixture[str]) -> None:
    assert candidates("toolkit adopt toy_k") == ["toy_kin "]
    assert candidates("toolkit plugins fam") == ["family "]
    assert command(["plugins", "family"]) == 0
    assert_names(capsys.readouterr().out, "toy_kin", "toy-plugin", "The toy's tokenizers")
    assert command(["plugins", "family", "toy_kin"]) == 0
    assert_names(capsys.readouterr().out, "family=toy_kin (toy-plugin", "The toy's tokenizers")
    assert command(["adopt", "--help"]) == 0
    assert_names(capsys.readouterr().out, "toolkit adopt NAME FILES… out=VALUE", "families: ", "toy_kin")
