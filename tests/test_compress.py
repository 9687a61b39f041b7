"""Examples as bytes: back as they were, at the prior's bits, and never wrong in silence."""

from __future__ import annotations

import json
import random
import shutil
from functools import partial
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from messages import assert_names
from torch import Tensor
from toys import PIXELCNN, PIXELCNN_DECODER, TILES, TWO_STEPS, VQ

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.coding import container, read, write
from toolkit.coding.codec import Row
from toolkit.coding.container import Example, UnreadableError, unpack
from toolkit.coding.windows import code_through
from toolkit.errors import ToolkitError
from toolkit.likelihoods import logistic
from toolkit.model import Model
from toolkit.priors.wavenet import WaveNetPrior
from toolkit.spec import CodeSpec, Condition, DataSpec
from toolkit.stages.run import train
from toolkit.testing.tape import Tape

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def trained(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of depth 2 on a grid of two axes, priors that see the kind."""
    run = tmp_path_factory.mktemp("runs") / "run"
    words = ["quantizer=residual_ema", "quantizer.depth=2", "quantizer.inner.codebook_size=16"]
    train(compose([*TILES, *words, *PIXELCNN, *TWO_STEPS, "conditions.prior=[kind]"]).config, run)
    for name in ("transformer", "categorical"):
        small = ["prior.hidden=8", "prior.layers=1", "prior.heads=1"] if name == "transformer" else []
        assert command(["train", f"run={run}", "stage=prior", f"prior={name}", *small]) == 0
    return run


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return toolkit.load(trained, "cpu")


def examples(model: Model, n: int = 8) -> tuple[Tensor, dict[str, Tensor]]:
    rows = [model.dataset.example("test", i, None) for i in range(n)]
    return torch.stack([row["x"] for row in rows]), {"kind": torch.stack([row["kind"] for row in rows])}


def nats(model: Model, x: Tensor, conditions: dict[str, Tensor], prior: str) -> float:
    with torch.no_grad():
        return -float(model.prior(prior).log_prob(model.encode(x), conditions).double().sum())


@pytest.mark.long
@pytest.mark.parametrize("prior", ["pixelcnn", "transformer", "categorical", "uniform"])
@pytest.mark.few(2)
def test_codes_come_back_at_the_bits_of_their_prior(model: Model, prior: str) -> None:
    x, conditions = examples(model)
    data = model.compress(x, conditions, prior=prior)
    assert torch.equal(model.decompress(data), model.reconstruct(x, conditions))
    header, stream = unpack(data)
    promised = nats(model, x, conditions, prior) / log(2)
    assert 8 * len(stream) < 1.003 * promised + 16
    assert 8 * len(stream) > 0.997 * promised - 16
    assert (header.environment is None) == (prior in ("categorical", "uniform"))


def test_the_conditions_that_the_prior_sees_are_in_the_file(model: Model) -> None:
    x, conditions = examples(model)
    other = {"kind": (conditions["kind"] + 1) % 3}
    assert (
        unpack(model.compress(x, conditions, prior="pixelcnn"))[1]
        != unpack(model.compress(x, other, prior="pixelcnn"))[1]
    )
    assert unpack(model.compress(x, {"kind": "a,b"}, prior="pixelcnn"))[0].conditions["kind"] == [0, 1] * 4


def test_the_first_codes_of_each_position(model: Model) -> None:
    x, conditions = examples(model)
    for prior in ("uniform", "categorical"):
        data = model.compress(x, conditions, prior=prior, depth=1)
        assert torch.equal(model.decompress(data), model.decode(model.encode(x)[:, :1]))
    with pytest.raises(ToolkitError) as caught:
        model.compress(x, conditions, prior="pixelcnn", depth=1)
    assert_names(str(caught.value), "prior=pixelcnn cannot code depth=1 … prior=uniform")
    with pytest.raises(ToolkitError) as caught:
        model.compress(x, depth=3)
    assert_names(str(caught.value), "depth=3 … 1 to 2")


def test_the_data_itself_comes_back(model: Model) -> None:
    x, conditions = examples(model)
    data = model.compress(x, conditions, prior="pixelcnn", lossless=True)
    assert torch.equal(model.decompress(data), x)
    with torch.no_grad():
        z = model.autoencoder.embed(model.encode(x))
        of_data = -float(model.autoencoder.decode(z, conditions).log_prob(x).double().sum())
    promised = (of_data + nats(model, x, conditions, "pixelcnn")) / log(2)
    assert abs(8 * len(unpack(data)[1]) - promised) < 0.003 * promised + 16


def test_files_of_one_example_each_are_read_in_any_company(model: Model, trained: Path, tmp_path: Path) -> None:
    assert command(["compress", f"run={trained}", "split=test", "prior=pixelcnn", f"out={tmp_path / 'each'}"]) == 0
    assert command(["compress", f"run={trained}", "split=test", "prior=pixelcnn", f"out={tmp_path / 'all.tkc'}"]) == 0
    files = sorted((tmp_path / "each").rglob("*.tkc"))
    assert len(files) == 8
    x, conditions = examples(model)
    expected = model.reconstruct(x, conditions)
    for name, words in (("all", [tmp_path / "all.tkc"]), ("each", files), ("some", files[2:4])):
        assert command(["decompress", f"run={trained}", *map(str, words), f"out={tmp_path / name}-x"]) == 0
        written = [json.loads(path.read_text()) for path in sorted((tmp_path / f"{name}-x").rglob("*.json"))]
        assert torch.equal(torch.tensor(written), expected[2:4] if name == "some" else expected)
    together = len(unpack((tmp_path / "all.tkc").read_bytes())[1])
    assert sum(len(unpack(file.read_bytes())[1]) for file in files) <= together + 8


def test_the_command_says_what_it_came_to(
    model: Model, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"run={trained}",
        "split=test",
        "examples=5",
        "lossless=true",
        "prior=pixelcnn",
        f"out={tmp_path / 'x.tkc'}",
    ]
    assert command(["compress", *words]) == 0
    shown = capsys.readouterr().out
    assert "examples: 5" in shown
    assert "bits per dim" in shown
    assert "by prior=pixelcnn" in shown
    assert command(["decompress", f"run={trained}", str(tmp_path / "x.tkc"), f"out={tmp_path / 'back'}"]) == 0
    back = [json.loads(path.read_text()) for path in sorted((tmp_path / "back").rglob("*.json"))]
    assert torch.equal(torch.tensor(back), examples(model, 5)[0])


def test_mistakes_are_told(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = f"run={trained}", f"out={tmp_path / 'x.tkc'}"
    (tmp_path / "a file").write_text("no container")
    for words, facts in (
        ([run, out], "toolkit compress: no files … out=F.tkc"),
        ([run, out, "split=test", "prior=wavenet"], "toolkit compress: prior=wavenet"),
        ([run, f"out={tmp_path}/a file/x", "split=test"], "toolkit compress: out="),
    ):
        assert command(["compress", *words]) == 2
        assert_names(capsys.readouterr().err, facts)
    for words, facts in (
        ([run, f"out={tmp_path / 'y'}"], "toolkit decompress: no files"),
        (
            [run, f"out={tmp_path / 'y'}", f"{tmp_path}/a file"],
            f"toolkit decompress: {tmp_path}/a file: not a file that",
        ),
    ):
        assert command(["decompress", *words]) == 2
        assert_names(capsys.readouterr().err, facts)
    assert not (tmp_path / "x.tkc").exists()


CLIPS = ["dataset=toy_clips", "encoder=toy_conv", "decoder=toy_conv", "likelihood=categorical", "dim=4"]
WAVENET = ["prior=wavenet", "prior.hidden=8", "prior.blocks=1", "prior.layers=2", "prior.skip=8", "prior.head=8"]
TRANSFORMER = ["prior=transformer", "prior.hidden=8", "prior.layers=1", "prior.heads=1", "prior.head=8"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "lossless"),
    [
        (
            ["dataset=toy_waves", "encoder=toy_conv", "decoder=toy_conv", "likelihood=normal", "dim=4", *VQ, *WAVENET],
            False,
        ),
        ([*CLIPS, *VQ, *TRANSFORMER], True),
        ([*TILES[:2], "dim=4", *VQ, *PIXELCNN, *PIXELCNN_DECODER], True),
        ([*TILES[:3], "dim=4", "likelihood=logistic", *VQ, *PIXELCNN], True),
    ],
    ids=["one axis", "three axes", "a decoder step by step", "logistics"],
)
@pytest.mark.few(2)
def test_any_grid_prior_and_likelihood(words: list[str], lossless: bool, tmp_path: Path) -> None:
    train(compose([*words, *TWO_STEPS]).config, tmp_path / "run")
    model = toolkit.load(tmp_path / "run", "cpu")
    x, _ = examples(model, 3)
    data = model.compress(x, lossless=lossless)
    assert torch.equal(model.decompress(data), x if lossless else model.reconstruct(x))
    bits = evaluated(model, x, lossless)
    assert abs(8 * len(unpack(data)[1]) - bits) < 0.003 * bits + 16


def test_a_likelihood_may_write_several_numbers_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the logistic does of many levels, which it writes by their digits: in one file, and in one each."""
    monkeypatch.setattr(logistic, "WHOLE", 4)
    monkeypatch.setattr(logistic, "DIGIT", 2)
    words = [*TILES[:3], "dim=4", "likelihood=logistic", *VQ, *TWO_STEPS, "stage=autoencoder"]
    train(compose(words).config, tmp_path / "run")
    model = toolkit.load(tmp_path / "run", "cpu")
    x, _ = examples(model, 3)
    assert torch.equal(model.decompress(model.compress(x, prior="uniform", lossless=True)), x)
    codec = model.codec("uniform", lossless=True)
    rows = [
        Row(Example("", model.spec.axes, model.code_spec.grid), *pair, {})
        for pair in zip(model.encode(x), x, strict=True)
    ]
    files = [unpack(packed.data) for packed in write.compress_each(codec, rows)]
    assert all(torch.equal(row.x, one) for row, one in zip(read.decompress_each(codec, files), x, strict=True))


def evaluated(model: Model, x: Tensor, lossless: bool) -> float:
    """Bits of codes and, where asked for, of data."""
    with torch.no_grad():
        codes = model.encode(x)
        costs = model.prior().log_prob(codes, {})
        if lossless:
            costs = costs + model.autoencoder.decode(model.autoencoder.embed(codes), {}).log_prob(x)
    return -float(costs.double().sum()) / log(2)


def test_a_prior_goes_on_where_its_own_length_ends() -> None:
    """Windows of four codes over examples of nine and six, each code given those before it in its window."""
    data = DataSpec(1, (8,), 4, conditions=(Condition("move", 2, per_step=True),))
    code_spec = CodeSpec((4,), (5, 3))
    prior = WaveNetPrior(code_spec, tuple(c.resample(8, 4) for c in data.conditions), hidden=8, layers=2, head=8).eval()
    autoencoder: Any = SimpleNamespace(data=data, code_spec=code_spec)
    codes = torch.stack([torch.randint(size, (2, 9)) for size in (5, 3)], 1)
    moves, tape = {"move": torch.randint(2, (2, 18))}, Tape()
    through = partial(code_through, prior, autoencoder, grids=[(9,), (6,)], conditions=moves, depth=None)
    assert torch.equal(through(coder=tape, codes=codes), codes)
    assert torch.equal(through(coder=tape.rewound(), codes=None), codes)
    assert len(tape.entries) == 18, "a code is written twice, or never"
    with torch.no_grad():
        first = prior.log_prob(codes[:, :, :4], {"move": moves["move"][:, :8]})
    torch.testing.assert_close(Tape(tape.entries[:8]).nats(), -first.double(), atol=1e-4, rtol=1e-4)


def test_damage_is_refused(model: Model) -> None:
    x, conditions = examples(model)
    data, rng = model.compress(x, conditions, prior="pixelcnn"), random.Random(0)
    for _ in range(200):
        broken = bytearray(data)
        if rng.random() < 0.5:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        else:
            del broken[rng.randrange(len(broken)) :]
        with pytest.raises(UnreadableError):
            model.decompress(bytes(broken))


def test_damage_under_a_right_checksum_is_refused(model: Model) -> None:
    """As by a program that mends checksums: what comes out is checked, too."""
    x, conditions = examples(model)
    header, stream = unpack(model.compress(x, conditions, prior="pixelcnn"))
    for i in range(0, len(stream), max(1, len(stream) // 20)):
        broken = bytearray(stream)
        broken[i] ^= 0x40
        with pytest.raises(UnreadableError):
            model.decompress(container.pack(header, bytes(broken)))


@pytest.mark.long
def test_another_runs_file_is_refused(model: Model, trained: Path, tmp_path: Path) -> None:
    x, conditions = examples(model)
    data = model.compress(x, conditions, prior="pixelcnn")
    other = tmp_path / "other"
    train(compose([*TILES, *VQ, *PIXELCNN, *TWO_STEPS, "seed=1"]).config, other)
    with pytest.raises(UnreadableError) as caught:
        toolkit.load(other, "cpu").decompress(data)
    assert_names(str(caught.value), "it was written by another run")
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    assert (
        command(["train", f"run={again}", "stage=prior", "prior=pixelcnn", *PIXELCNN[1:], "prior_trainer.steps=4"]) == 0
    )
    with pytest.raises(UnreadableError) as caught:
        toolkit.load(again, "cpu").decompress(data)
    assert_names(str(caught.value), "it was written by other weights of prior=pixelcnn")


def test_another_machines_file_is_refused_unless_its_probabilities_are_whole(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, conditions = examples(model)
    written = {name: model.compress(x, conditions, prior=name) for name in ("pixelcnn", "categorical", "uniform")}
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    with pytest.raises(UnreadableError) as caught:
        model.decompress(written["pixelcnn"])
    assert_names(str(caught.value), "its probabilities are those of device cpu … another … prior=uniform")
    for name in ("categorical", "uniform"):
        model.decompress(written[name])


def test_another_version_is_refused(model: Model) -> None:
    data = bytearray(model.compress(examples(model)[0]))
    data[len(container.MAGIC)] = 9
    with pytest.raises(UnreadableError) as caught:
        model.decompress(bytes(data))
    assert_names(str(caught.value), "its format is version 9 … version 1")
