"""Run folders of strangers: damaged, malformed, or made to hurt who opens them.

Every variant is a copy of one run, changed, and opened by a command. It may end in one of three ways: refused (exit 2,
one to three lines that name what is wrong), fallen back to the checkpoint before (with a notice, and that one's very
numbers), or opened as if nothing had happened, where what was changed is not needed. In all of them no code of the
folder runs, nothing outside the folder is written or read, memory stays bounded, and nothing waits for ever.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hostile_variants import (
    AE,
    FOREIGN,
    GIB,
    NEW,
    OLD,
    PRIOR,
    REPRESENTATIVES,
    Mutation,
    at,
    config,
    cut,
    edit,
    entry,
    folder,
    hashed,
    moved_out,
    places,
    raw,
    spec,
    variants,
    write,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import PIXELCNN, PIXELCNN_DECODER, TILES, TOY, VQ, trainers

from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.runs.checkpoint import MODEL
from toolkit.stages.run import train

WORDS = [*TILES, *VQ, *PIXELCNN, "conditions.prior=[kind]", "prior_trainer.allow_collapsed=true"]
STACKED = [
    *("dataset=codes", "encoder=pool", "encoder.hidden=8", "quantizer=vq", "quantizer.codebook_size=8", "dim=4"),
    *(*PIXELCNN_DECODER, "prior=uniform", "stage=autoencoder"),
    *("trainer.steps=2", "trainer.batch_size=4", "trainer.workers=0"),
]
TRAINER = ["steps=4", "batch_size=4", "checkpoint_every=2", "log_every=1", "workers=0", "ema=0.1", "learning_rate=0.1"]

pytestmark = pytest.mark.usefixtures("toys")


class Runs(NamedTuple):
    """What is copied and changed, and what it gives when it is not."""

    run: Path
    stacked: Path
    x: Path
    codes: dict[str, Tensor]
    """Of x, from the newest checkpoint and from the one before; of a sample likewise."""


@pytest.fixture(scope="module")
def runs(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    home = tmp_path_factory.mktemp("runs")
    words = [*WORDS, *trainers(*TRAINER)]
    train(compose([*words, "prior_trainer.learning_rate=0.5"]).config, home / "run")
    train(compose([*STACKED, f"dataset.run={home / 'run'}"]).config, home / "stacked")
    assert command.run(["evaluate", f"run={home / 'run'}", "examples=4"]) == 0
    x = home / "x.json"
    x.write_text(json.dumps(torch.randint(8, (2, 8, 8), generator=torch.Generator().manual_seed(0)).tolist()))
    codes = {}
    for step in (NEW, OLD):
        before = home / f"at-{step}"
        shutil.copytree(home / "run", before)
        if step == OLD:
            shutil.rmtree(before / AE)
        codes[f"encode {step}"] = outcome(before, x, "encode")
        if step == OLD:  # the prior is of the newest autoencoder
            shutil.copytree(home / "run" / AE, before / AE)
            shutil.rmtree(before / PRIOR)
        codes[f"sample {step}"] = outcome(before, x, "sample")
    assert not torch.equal(codes[f"encode {OLD}"], codes[f"encode {NEW}"])
    assert not torch.equal(codes[f"sample {OLD}"], codes[f"sample {NEW}"])
    return Runs(home / "run", home / "stacked", x, codes)


def words(run: Path, x: Path, verb: str) -> list[str]:
    out = run.parent / "out"
    return {
        "encode": ["encode", f"run={run}", str(x), f"out={out / 'samples.safetensors'}"],
        "sample": ["sample", f"run={run}", "n=4", f"out={out}"],
        "samples": ["sample", f"run={run}", "n=4"],
        "evaluate": ["evaluate", f"run={run}", "examples=4"],
        "compare": ["compare", str(run), f"out={out}"],
        "train": ["train", f"run={run}"],
        "longer": ["train", f"run={run}", "trainer.steps=5", "stage=autoencoder"],
        "decode": ["decode", f"run={run}", str(run.parent / "f.safetensors"), f"out={out}"],
    }[verb]


def outcome(run: Path, x: Path, verb: str) -> Tensor:
    assert command.run(words(run, x, verb)) == 0
    return load_file(run.parent / "out" / "samples.safetensors")["codes"].long()


# -- what is watched


class Watched:
    """What may not happen while a stranger's run is open; an audit hook cannot be taken off, so there is one."""

    outside = ""
    seen: list[str]

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.outside:
            return
        if event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"):
            self.seen.append(f"{event} {args}")
        if event == "open" and str(args[0]).startswith(self.outside):
            self.seen.append(f"open {args}")
        if event == "import" and "evil" in str(args[0]):
            self.seen.append(f"import {args}")


WATCHED = Watched()
sys.addaudithook(WATCHED)


@contextmanager
def guarded(outside: Path) -> Iterator[None]:
    """A GiB of further memory, 30 seconds, and nothing of the folder outside."""

    def late(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before, alarm = snapshot(outside), signal.signal(signal.SIGALRM, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    WATCHED.outside, WATCHED.seen = str(outside), []
    signal.setitimer(signal.ITIMER_REAL, 30)
    resource.setrlimit(resource.RLIMIT_AS, (held + GIB, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        WATCHED.outside = ""
    assert WATCHED.seen == []
    assert snapshot(outside) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


VARIANTS = dict(variants())


def named(names: Iterable[str], default_lane: Collection[str]) -> list[Any]:
    """Every name, of which those that are not of the default lane are slow."""
    return [name if name in default_lane else pytest.param(name, marks=pytest.mark.slow) for name in names]


def test_there_are_enough() -> None:
    assert len(VARIANTS) > 200
    assert VARIANTS.keys() >= REPRESENTATIVES


@pytest.mark.parametrize("name", named(VARIANTS, REPRESENTATIVES))
def test_a_strangers_run(
    name: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = VARIANTS[name]
    run, outside = copied(runs.run, tmp_path, monkeypatch)
    variant.change(run, outside)
    with guarded(outside):
        status = command.run(words(run, runs.x, variant.verb))
    told = capsys.readouterr().err
    if variant.ending == "refused":
        assert_refused(status, told, variant.says)
        return
    assert status == 0, told
    assert ("falling back" in told) == (variant.ending == "back"), told
    if variant.verb in ("encode", "sample"):
        step = OLD if variant.ending == "back" else NEW
        assert torch.equal(
            load_file(tmp_path / "out" / "samples.safetensors")["codes"].long(), runs.codes[f"{variant.verb} {step}"]
        )
    if variant.ending == "back":
        assert variant.says.rpartition("/")[2] in told


def copied(run: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A copy of a run, and beside it what is none of its business."""
    shutil.copytree(run, home / "run")
    outside = home / "outside"
    outside.mkdir()
    (outside / "secret").write_text('{"step": 1}')
    (outside / "evil_module.py").write_text(f"open({str(outside / 'canary')!r}, 'w')\nclass Payload: ...\n")
    (home / "out").mkdir()
    (home / "here").mkdir()
    monkeypatch.chdir(home / "here")
    monkeypatch.syspath_prepend(str(outside))
    return home / "run", outside


def assert_refused(status: int, told: str, says: str) -> None:
    lines = told.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("toolkit ")), -1)
    assert status == 2, told
    assert 1 <= len(lines) - first <= 3, told
    assert first >= 0, told
    assert "allocate" not in told, told
    assert "MemoryError" not in told, told
    assert "Traceback" not in told
    assert says in told, told


# -- a run over another's


BASES: dict[str, tuple[Mutation, str]] = {
    "without its base": (at("base", lambda p, _: shutil.rmtree(p)), "base: no such folder"),
    "over another size": (spec(data__axes=[5, 5], codes__grid=[1, 1]), ""),
    "over other levels": (spec(data__levels=10**6), ""),
    "over another base's codes": (edit("base/spec.json", codes__codebook_sizes=[10**6]), "base"),
    "over a huge base": (edit("base/config.yaml", quantizer__codebook_size=10**9), ""),
    "over a pickle": (
        lambda run, out: hashed(write(FOREIGN["a pickle 4"]))(next(run.glob("base/autoencoder/*")) / MODEL, out),
        f"{MODEL} is not a safetensors",
    ),
    "over itself": (at("base", lambda p, _: [shutil.rmtree(p), p.symlink_to(".")]), "base is a link"),
    "over a base outside": (moved_out("base"), "base is a link"),
    "over many bases": (lambda run, _: towers(run), "nested at most"),
}


def towers(run: Path) -> None:
    """The run on a copy of itself, and so on."""
    shutil.rmtree(run / "base")
    at_ = run
    for _ in range(40):
        made = at_ / "base"
        made.mkdir()
        for name in ("config.yaml", "spec.json"):
            shutil.copy(run / name, made / name)
        at_ = made


@pytest.mark.parametrize(
    "name",
    named(BASES, ("without its base", "over another size", "over a pickle", "over a base outside", "over many bases")),
)
def test_a_strangers_run_over_a_run(
    name: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, says = BASES[name]
    run, outside = copied(runs.stacked, tmp_path, monkeypatch)
    change(run, outside)
    with guarded(outside):
        status = command.run(words(run, runs.x, "encode"))
    assert_refused(status, capsys.readouterr().err, says)


# -- a stranger's file of codes


def with_axes(axes: Tensor) -> Mutation:
    return lambda p, _: save_file({"codes": torch.zeros(1, 1, 4, 4, dtype=torch.long), "axes": axes}, p)


def sparse(path: Path, size: int) -> None:
    """A file whose header tells the truth, and that takes no room."""
    path.write_bytes(raw({"codes": entry([size // 16, 1, 4, 4], size, "U8")}, 0))
    os.truncate(path, path.stat().st_size + size)


CODES: dict[str, tuple[Mutation, str]] = {
    **{name: (write(content), "f.safetensors") for name, content in FOREIGN.items()},
    **{name: (change, "f.safetensors") for name, change in places().items() if name in ("a pipe", "a socket")},
    "a folder": (lambda p, _: folder(p), "f.safetensors"),
    "cut": (cut(0.9), "cut short"),
    "floats": (lambda p, _: save_file({"codes": torch.zeros(2, 1, 4, 4)}, p), "holds no codes"),
    "bools": (lambda p, _: save_file({"codes": torch.zeros(2, 1, 4, 4) > 1}, p), "holds no codes"),
    "a number": (lambda p, _: save_file({"codes": torch.tensor(3)}, p), "holds no codes"),
    "none": (lambda p, _: save_file({"codes": torch.zeros(0, 1, 4, 4, dtype=torch.long)}, p), "holds no examples"),
    "too many axes": (lambda p, _: save_file({"codes": torch.zeros(1, 1, 4, 4, 4, dtype=torch.long)}, p), "shape"),
    "too deep": (lambda p, _: save_file({"codes": torch.zeros(1, 5, 4, 4, dtype=torch.long)}, p), "shape"),
    "too large": (lambda p, _: save_file({"codes": torch.full((1, 1, 4, 4), 16)}, p), "range"),
    "negative": (lambda p, _: save_file({"codes": torch.full((1, 1, 4, 4), -1)}, p), "range"),
    "2**28 of them": (lambda p, _: sparse(p, 1 << 28), "at most"),
    "axes of floats": (with_axes(torch.zeros(1, 2)), "axes"),
    "axes below 1": (with_axes(torch.tensor([[-4, 4]])), "axes"),
    "axes of 10**12": (with_axes(torch.tensor([[10**12, 4]])), "axes"),
    "axes of another": (with_axes(torch.ones(9, 2, dtype=torch.long)), "axes"),
}


CODES_IN_SHORT = (
    "a pickle 4",
    "a tensor of 4 TB",
    "a pipe",
    "cut",
    "floats",
    "too deep",
    "too large",
    "2**28 of them",
    "axes of 10**12",
)


@pytest.mark.parametrize("name", named(CODES, CODES_IN_SHORT))
def test_a_strangers_codes(
    name: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, says = CODES[name]
    run, outside = copied(runs.run, tmp_path, monkeypatch)
    held = tmp_path / "f.safetensors"
    save_file({"codes": runs.codes[f"encode {NEW}"]}, held)
    change(held, outside)
    with guarded(outside):
        status = command.run(words(run, runs.x, "decode"))
    assert_refused(status, capsys.readouterr().err, says)
    assert list((tmp_path / "out").iterdir()) == []


# -- parts that are gone or have changed


def test_a_missing_package_is_named(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.run, run)
    config(encoder__name="image_gone")(run, tmp_path)
    edit("components.json", encoder__name="image_gone", encoder__distribution="discrete-toolkit-gone")(run, tmp_path)
    for verb in ("encode", "train"):
        assert command.run(words(run, runs.x, verb)) == 2
        assert capsys.readouterr().err == (
            f"toolkit {verb}: this run's encoder=image_gone comes from discrete-toolkit-gone 0.1.0, which is not"
            " installed: pip install discrete-toolkit-gone==0.1.0\n"
        )
    edit("components.json", encoder__distribution="toy-plugin", encoder__version="0.0.9")(run, tmp_path)
    assert command.run(words(run, runs.x, "encode")) == 2
    told = capsys.readouterr().err
    assert "toy-plugin 0.0.9, and 0.1.0 is installed, which has no encoder=image_gone: pip install" in told
    for spoilt in ("--index-url=http://evil", "a b", "x\x1b[2J", 7):
        edit("components.json", encoder__distribution=spoilt)(run, tmp_path)
        assert command.run(words(run, runs.x, "encode")) == 2
        told = capsys.readouterr().err
        assert "encoder=image_gone is not installed" in told
        assert "does not say which package provides it" in told
        assert "pip" not in told


def test_an_option_that_is_gone_is_told(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the weights still fit, the run opens."""
    (tmp_path / "out").mkdir()
    run = tmp_path / "run"
    shutil.copytree(runs.run, run)
    config(encoder__width=7)(run, tmp_path)
    assert torch.equal(outcome(run, runs.x, "encode"), runs.codes[f"encode {NEW}"])
    told = capsys.readouterr().err
    assert "encoder=toy_conv (toy-plugin 0.1.0; toy_plugin:ConvEncoder) has no width=7: ignored" in told


def test_weights_that_no_longer_fit_name_the_version_that_they_fit(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.run, run)
    config(quantizer__codebook_size=32)(run, tmp_path)
    edit("components.json", encoder__version="0.0.9")(run, tmp_path)
    for verb in ("encode", "train"):
        assert command.run(words(run, runs.x, verb)) == 2
        told = capsys.readouterr().err
        assert "quantizer" in told or "codes are" in told
        assert len(told.splitlines()) <= 3
        assert "trained with toy-plugin 0.0.9, installed is 0.1.0: pip install toy-plugin==0.0.9" in told


def test_nothing_of_a_run_moves_the_terminal(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.run, run)
    config(encoder={"name": "\x1b[2J\x07evil"})(run, tmp_path)
    assert command.run(words(run, runs.x, "encode")) == 2
    told = capsys.readouterr().err
    assert r"encoder=\x1b[2J\x07evil is not installed" in told


def test_a_saved_text_is_never_an_interpolation() -> None:
    saved = compose(WORDS).values
    for text in ("${oc.env:HOME}", r"\${oc.env:HOME}", r"a\\${b}\\"):
        assert reopen(saved | {"init": text}, []).config.init == text


# -- as commands, with little memory

LITTLE = ("bash", "-c", f'ulimit -v {4 * GIB // 1024}; exec "$@"', "bash")
"""Torch alone maps three GiB of libraries."""


COMMANDS = (
    "autoencoder/step-00000004/model.safetensors a header of 90 MB",
    "config.yaml apply",
    "autoencoder/step-00000004/model.safetensors a pickle 4",
    "config.yaml merged aliases",
    "a config with an encoder of 10**9 channels",
)


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("name", named(COMMANDS, COMMANDS[:2]))
def test_a_command_on_a_strangers_run(name: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS[name]
    run, outside = copied(runs.run, tmp_path, monkeypatch)
    variant.change(run, outside)
    before = snapshot(outside)
    done = subprocess.run(
        [*LITTLE, sys.executable, "-m", "toolkit", *words(run, runs.x, variant.verb)],
        env={**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_refused(done.returncode, done.stderr, variant.says)
    assert snapshot(outside) == before
