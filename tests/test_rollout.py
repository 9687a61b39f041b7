"""Samples as long as a person wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import PIXELCNN, TWO_STEPS, VQ

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.errors import ToolkitError
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.rollout import kept, roll_out, within
from toolkit.spec import CodeSpec, Condition
from toolkit.stages.run import train

pytestmark = pytest.mark.long

MOVE = Condition("move", 3, ("left", "right", "stay"), per_step=True)
PARTS = [
    *("dataset=toy_moves", "encoder=toy_conv", "decoder=toy_conv", "likelihood=categorical", "dim=4", *VQ),
    *("conditions.prior=[move]", "conditions.decoder=[move]", *PIXELCNN, *TWO_STEPS),
]


class Recorder(Prior):
    """Counts up from the last code of the prefix, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.code_spec = CodeSpec((4, 2), (1000,))
        self.asked: list[tuple[Tensor | None, dict[str, Tensor]]] = []

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError

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
        self.asked.append((prefix, dict(conditions)))
        held = torch.zeros(n, 1, 0, dtype=torch.int64) if prefix is None else prefix
        last = held[0, 0, -1] if held.numel() else -1
        new = torch.arange(8 - held.shape[2]) + last + 1
        if progress is not None:
            progress(8)
        return torch.cat((held, new.expand(n, 1, -1)), 2).unflatten(2, (4, 2))


@pytest.mark.parametrize(
    ("slabs", "keep", "windows"), [(3, 2, 1), (4, 2, 1), (5, 2, 2), (9, 2, 4), (6, 3, 3), (10, 1, 3)]
)
def test_a_window_begins_with_what_the_one_before_ended_with(slabs: int, keep: int, windows: int) -> None:
    prior, told = Recorder(), list[int]()
    codes = roll_out(
        prior, 2, lambda start: {"start": torch.tensor(start)}, PLAIN, slabs=slabs, keep=keep, progress=told.append
    )
    assert codes.shape == (2, 1, max(4, slabs), 2)
    assert codes[0].flatten().tolist() == list(range(2 * max(4, slabs)))
    assert len(prior.asked) == windows
    for number, (prefix, conditions) in enumerate(prior.asked):
        start = number * (4 - keep)
        assert conditions["start"] == start
        assert told[number] == 2 * (start + 4)
        assert (prefix is None) == (number == 0)
        if prefix is not None:
            assert prefix[0, 0].tolist() == list(range(2 * start, 2 * (start + keep)))


def test_the_first_prefix_stays() -> None:
    prior = Recorder()
    codes = roll_out(prior, 1, lambda _: {}, PLAIN, slabs=6, keep=2, prefix=torch.full((1, 1, 4), 50))
    assert codes[0, 0].flatten().tolist() == [50, 50, 50, 50, *range(51, 59)]


def test_a_window_has_its_own_conditions_and_the_last_step_goes_on() -> None:
    phone, kind = Condition("phone", 9, per_step=True, stride=2), Condition("kind", 2)
    force = Condition("force", 1, per_step=True, real=True)
    given = {
        "move": torch.arange(6)[None],
        "phone": torch.arange(3)[None],
        "kind": torch.tensor([1]),
        "force": torch.arange(6.0).view(1, 6, 1),
    }
    made = within(given, (MOVE, phone, kind, force), 2, 6)
    assert made["move"].tolist() == [[2, 3, 4, 5, 5, 5]]
    assert made["phone"].tolist() == [[1, 2, 2]]
    assert made["kind"].tolist() == [1]
    assert made["force"].flatten().tolist() == [2, 3, 4, 5, 5, 5]
    assert within({"move": torch.tensor([1])}, (MOVE,), 2, 6)["move"].tolist() == [1]


def test_by_default_half_of_a_window_stays() -> None:
    assert kept(8, 2, (MOVE,), None) == 4
    assert kept(5, 1, (), None) == 3
    assert kept(2, 1, (), None) == 1
    assert kept(8, 2, (Condition("phone", 9, per_step=True, stride=6),), None) == 5
    assert kept(8, 2, (MOVE,), 6) == 3


@pytest.mark.parametrize("overlap", [0, 1, 16, 20, 7])
def test_an_overlap_is_whole_codes_of_a_window(overlap: int) -> None:
    with pytest.raises(ToolkitError, match=f"overlap={overlap}: give 16 less a multiple of 2, from 2 to 14"):
        kept(8, 2, (MOVE,), overlap)


def test_global_codes_cannot_go_on() -> None:
    with pytest.raises(ToolkitError, match="trained on 16 at once"):
        kept(1, 16, (), None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Eight positions along the first axis, two of them a code, a move for each."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_PLUGIN_PATH", str(Path(__file__).parent / "toy"))
        train(compose(PARTS).config, run)
        assert command(["train", f"run={run}", "stage=prior", "prior=transformer", "prior.heads=2"]) == 0
        yield run


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "prior", ["pixelcnn", *(pytest.param(p, marks=pytest.mark.slow) for p in ("transformer", "maskgit"))]
)
def test_lengths_agree(trained: Path, prior: str) -> None:
    """Within what was trained: exactly the beginning. Beyond it: the first window's codes, and longer ones go on."""
    if prior == "maskgit":
        words = ["prior=maskgit", "prior.hidden=8", "prior.layers=1"]
        assert command(["train", f"run={trained}", "stage=prior", *words]) == 0
    model = toolkit.load(trained)
    draw: Any = lambda **more: model.sample(3, {"move": torch.tensor([0, 1, 2])}, prior=prior, seed=3, **more)  # noqa: E731
    plain = draw()
    assert torch.equal(plain.x, draw(length=8).x)
    for length, slabs in ((1, 1), (5, 3), (6, 3)):
        short = draw(length=length)
        assert torch.equal(short.x, plain.x[:, :, :length])
        assert torch.equal(short.codes, plain.codes[:, :, :slabs])
    long, longer = draw(length=13), draw(length=22)
    assert (long.x.shape[2], long.codes.shape[2], longer.x.shape[2], longer.codes.shape[2]) == (13, 7, 22, 11)
    assert torch.equal(long.codes[:, :, :4], plain.codes)
    assert torch.equal(longer.codes[:, :, :7], long.codes)
    assert torch.equal(draw(length=22).x, longer.x)
    assert torch.equal(draw(length=22, overlap=2).codes[:, :, :4], plain.codes)
    other = model.sample(3, {"move": torch.tensor([0, 1, 2])}, prior=prior, seed=4, length=22)
    assert not torch.equal(other.codes, longer.codes)


def test_moves_reach_their_own_codes_and_no_earlier_ones(trained: Path) -> None:
    """In whichever window: 16 samples of the same random numbers differ from that code on."""
    model, moves = toolkit.load(trained), torch.zeros(16, 24, dtype=torch.int64)
    plain = model.sample(16, {"move": moves}, seed=1, length=24).codes
    for step in (2, 13, 20):
        given = moves.clone()
        given[:, step:] = 1
        codes = model.sample(16, {"move": given}, seed=1, length=24).codes
        assert torch.equal(codes[:, :, : step // 2], plain[:, :, : step // 2])
        assert not torch.equal(codes[:, :, step // 2], plain[:, :, step // 2])


def sampled(run: Path, out: Path, *words: str) -> tuple[Tensor, Tensor]:
    assert command(["sample", f"run={run}", f"out={out}", *words]) == 0
    files = sorted(out.glob("sample-*.json"))
    spec = toolkit.load(run).spec
    x = [torch.tensor(json.loads(path.read_text())) for path in files]
    assert all(each.shape[0] == spec.channels for each in x)
    return torch.stack(x), load_file(out / "samples.safetensors")["codes"].long()


def test_the_command_rolls_out(trained: Path, tmp_path: Path) -> None:
    _, codes = sampled(trained, tmp_path / "a", "n=1", "seed=5")
    file = tmp_path / "a" / "sample-0000.json"
    words = ["n=4", f"prefix.file={file}", "prefix.frames=4", "frames=12"]
    moves = tmp_path / "moves.txt"
    moves.write_text("left\nright\n" * 8)
    x, long = sampled(trained, tmp_path / "b", *words, f"condition.move=left,[{','.join(['stay'] * 12)}],{moves},right")
    assert x.shape[2] == 12
    model = toolkit.load(trained)
    assert torch.equal(
        long[:, :, :2], model.encode(model.files.read(file, model.spec)[None, :, :4]).expand(4, -1, -1, -1)
    )
    again, same = sampled(trained, tmp_path / "c", *words, f"condition.move=left,stay,{moves},right")
    assert torch.equal(same, long)
    assert torch.equal(x, again)
    assert codes.shape[2] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["condition.move=[left,left]"], "condition.move=[left,left]: 2 labels for 8 steps: give one for each"),
        (["frames=10", "condition.move=[left,left]"], "2 labels for 10 steps"),
        (
            ["condition.move=[left,left,lift,left,left,left,left,left]"],
            "condition.move=lift: no such label, did you mean left?",
        ),
        (["condition.move=lfet"], "condition.move=lfet: no such label, did you mean left?"),
        (["condition.mvoe=left"], "condition.mvoe: no such condition (did you mean move?)"),
    ],
)
def test_mistakes(
    trained: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["sample", f"run={trained}", f"out={tmp_path / 'out'}", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
