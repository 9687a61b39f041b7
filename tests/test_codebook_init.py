"""Entries that start at the data and start again, on one rank and on several."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.nn import codebook as table
from toolkit.nn.kmeans import kmeans, sample_rows
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.vq import VectorQuantizer


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_the_first_batch_becomes_the_codebook_once(make: type[Quantizer]) -> None:
    options = {"dead_code_threshold": 0.0} if make is EMAQuantizer else {}
    quantizer = make(3, codebook_size=5, **options)  # type: ignore[call-arg]
    z = 50 + torch.randn(2, 3, 9)
    started = quantizer.eval()(z).z.detach()
    assert started.abs().max() < 1, "no data is drawn in eval mode"
    quantizer.train()(z)
    drawn = quantizer.codebook.detach().clone()  # type: ignore[operator, union-attr]
    near = torch.cdist(drawn, table.flatten(z)).amin(1)
    assert near.max() < 1 if make is EMAQuantizer else near.max() == 0
    again = make(3, codebook_size=5, **options)  # type: ignore[call-arg]
    again.load_state_dict(quantizer.state_dict())
    for each in (quantizer, again):
        each.train()(-z)
        # no gradient step was made, and of averages only that of the one entry that won moves
        moved = (each.codebook.detach() != drawn).any(1).sum()  # type: ignore[operator, union-attr]
        assert moved <= (1 if make is EMAQuantizer else 0)


LEARNED = [VectorQuantizer, EMAQuantizer]


@pytest.mark.parametrize("make", LEARNED)
@pytest.mark.parametrize("way", ["strict", "loose", "assign", "deepcopy", "pickle"])
def test_a_resumed_table_is_not_drawn_again(make: type[VectorQuantizer], way: str) -> None:
    trained, z = make(3, codebook_size=5), torch.randn(2, 3, 9)
    trained(z)
    copies = {"deepcopy": copy.deepcopy, "pickle": lambda module: pickle.loads(pickle.dumps(module))}
    resumed = copies[way](trained) if way in copies else make(3, codebook_size=5)
    if way not in copies:
        resumed.load_state_dict(trained.state_dict(), strict=way != "loose", assign=way == "assign")
    kept = resumed.codebook.detach().clone()
    resumed(100 + z)
    assert (resumed.codebook.detach() == kept).all(1).sum() >= 4, "of one entry's average at most"


@pytest.mark.parametrize("make", LEARNED)
def test_a_copy_that_loads_a_state_leaves_the_original_alone(make: type[VectorQuantizer]) -> None:
    trained, fresh = make(3, codebook_size=5), make(3, codebook_size=5)
    trained(torch.randn(2, 3, 9))
    loaded = copy.deepcopy(fresh)
    loaded.load_state_dict(trained.state_dict())
    z = 100 + torch.randn(2, 3, 9)
    for quantizer, starts in ((loaded, False), (fresh, True)):
        quantizer(z)
        assert ((quantizer.codebook > 90).all(1).sum() == 5) == starts


def test_a_fresh_state_is_drawn_again() -> None:
    quantizer = VectorQuantizer(3, codebook_size=5)
    fresh = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 3, 9))
    quantizer.load_state_dict(fresh)
    quantizer(100 + torch.randn(2, 3, 9))
    assert quantizer.codebook.mean() > 90


def test_a_fake_batch_is_no_first_batch() -> None:
    quantizer = VectorQuantizer(3, codebook_size=5)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        quantizer.eval()(torch.zeros(2, 3, 9))
    quantizer.train()(100 + torch.randn(2, 3, 9))
    assert quantizer.codebook.mean() > 90


def test_a_meta_quantizer_takes_a_state() -> None:
    trained = EMAQuantizer(3, codebook_size=5)
    trained(torch.randn(2, 3, 9))
    with torch.device("meta"):
        empty = EMAQuantizer(3, codebook_size=5)
    empty.load_state_dict(trained.state_dict(), assign=True)
    z = torch.randn(2, 3, 9)
    assert torch.equal(empty.eval()(z).codes, trained.eval()(z).codes)


@pytest.mark.parametrize("make", LEARNED)
def test_drawn_numbers_are_used(make: type[VectorQuantizer]) -> None:
    """A step that neither starts nor restarts an entry leaves the random numbers alone."""
    quantizer = make(3, codebook_size=5, dead_code_threshold=0.0)
    quantizer(torch.randn(2, 3, 9))
    before = torch.get_rng_state()
    quantizer(torch.ones(2, 3, 9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", LEARNED)
def test_random_entries_stay_where_they_are(make: type[VectorQuantizer]) -> None:
    quantizer = make(3, codebook_size=5, init="random", dead_code_threshold=0.0)
    before = quantizer.codebook.detach().clone()
    quantizer(torch.ones(2, 3, 9))
    assert (quantizer.codebook.detach() == before).all(1).sum() >= 4


def test_draws_are_one_from_each_stretch() -> None:
    rows = torch.arange(100.0).unsqueeze(1)
    assert torch.equal(sample_rows(rows, 10).squeeze(1).div(10, rounding_mode="floor"), torch.arange(10.0))
    assert sample_rows(rows[:3], 10).squeeze(1).unique().tolist() == [0, 1, 2]


def test_kmeans_lowers_the_error_to_a_fixed_point() -> None:
    middles = 10 * latents(6, 4)
    z = (middles[:, None] + 0.1 * latents(6, 50, 4)).flatten(0, 1)
    entries = kmeans(z, middles + latents(6, 4))
    torch.testing.assert_close(entries, z.view(6, 50, 4).mean(1))
    far = torch.cat([entries, torch.full((1, 4), 1e6, dtype=torch.float64)])
    torch.testing.assert_close(kmeans(z, far), far)


def test_kmeans_is_an_option() -> None:
    z = latents(4, 3, 50)
    errors = []
    for init in ("data", "kmeans"):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(3, codebook_size=8, init=init).double()  # type: ignore[arg-type]
        errors.append(quantizer(z).metrics["quantization_error"])
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 0}, "codebook_size=0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature=0.0"),
        ({"gradient": "none"}, "gradient=none: one of straight_through, rotation"),
        ({"init": "zeros"}, "init=zeros: one of data, kmeans, random"),
    ],
)
@pytest.mark.parametrize("make", LEARNED)
def test_what_cannot_be_is_refused(make: type[VectorQuantizer], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(4, **options)


# -- entries that start again


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("make", LEARNED)
def test_restarts_follow_a_moving_source(make: type[VectorQuantizer]) -> None:
    """64 drifting clusters, entries that start far from them: without restarts, about 50 of 256 are ever used."""
    source = torch.Generator().manual_seed(0)
    quantizer = make(8, codebook_size=256, init="random", dead_code_threshold=0.1)
    optimizer = torch.optim.Adam([*quantizer.parameters(), nn.Parameter(torch.zeros(()))], 1e-2)
    middles = 3 * torch.randn(64, 8, generator=source)
    for _ in range(500):
        middles += 0.02 * torch.randn(64, 8, generator=source)
        which = torch.randint(64, (1024,), generator=source)
        x = (middles[which] + 0.3 * torch.randn(1024, 8, generator=source)).T.unsqueeze(0)
        made = quantizer(x)
        if made.loss.requires_grad:
            optimizer.zero_grad()
            made.loss.sum().backward()
            optimizer.step()
    made = quantizer.eval()(x)
    assert len(made.codes.unique()) >= 100
    assert made.metrics["quantization_error"] / 8 <= 0.12


def test_vq_restarts_what_wins_too_little() -> None:
    quantizer = VectorQuantizer(2, codebook_size=4, dead_code_threshold=0.1).double()
    z = latents(1, 2, 80)
    quantizer(z)
    with torch.no_grad():
        quantizer.codebook[3] = 1e3
    counts = quantizer.counts.clone()
    counts[3] = 0.1 * 20 + 1e-6
    quantizer.counts.copy_(counts)
    made = quantizer(z)
    assert quantizer.codebook[3].tolist() == [1e3, 1e3], "not yet"
    won = made.codes.flatten().bincount(minlength=4)
    torch.testing.assert_close(quantizer.counts, 0.99 * counts + 0.01 * won)
    codes = quantizer(z).codes
    assert any(torch.equal(quantizer.codebook[3].detach(), row) for row in table.flatten(z))
    assert 3 in codes, "it is looked up in the step that moves it"
    torch.testing.assert_close(quantizer.counts[3], (0.99 * 20 + 0.01 * (codes == 3).sum()).double())


def test_restarts_can_be_turned_on_later() -> None:
    """A run that is told to try them still has its counts, and only what is late starts again."""
    plain, later = (
        VectorQuantizer(2, codebook_size=4, dead_code_threshold=dead_code_threshold).double()
        for dead_code_threshold in (0.0, 0.1)
    )
    z = latents(1, 2, 80)
    for _ in range(3):
        plain(z)
    before = plain.codebook.detach().clone()
    assert (plain.counts > 0.1 * 20).all()
    later.load_state_dict(plain.state_dict())
    later(z)
    assert torch.equal(later.codebook, before)


# -- many ranks


RANKS = """
import sys, torch, torch.distributed as dist
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.vq import VectorQuantizer

rank, ranks, file, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
if ranks > 1:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
states = {}
for make in (VectorQuantizer, EMAQuantizer):
    for options in ({"init": "kmeans", "dead_code_threshold": 0.3}, {"normalize": True, "entropy": 0.1}):
        torch.manual_seed(0)
        quantizer = make(3, codebook_size=16, **options).double()
        source = torch.Generator().manual_seed(1)
        torch.manual_seed(2 + rank)
        for step in range(50):
            z = torch.randn(2, 3, 24, generator=source, dtype=torch.float64)
            # one half of the batch has far fewer kinds of latents: its rank alone would miss entries
            z[1] = z[1, :, :1] + 0.01 * z[1]
            quantizer.zero_grad()
            made = quantizer(z.chunk(ranks)[rank])
            if made.loss.requires_grad:
                made.loss.mean().backward()
                for p in quantizer.parameters():
                    if ranks > 1:
                        dist.all_reduce(p.grad)
                    with torch.no_grad():
                        p.sub_(p.grad / ranks, alpha=0.2)
        quantizer.eval()
        if rank == 0:
            quantizer(z)  # alone: in eval mode ranks do not wait for one another
        states[f"{make.__name__} {options}"] = quantizer.state_dict()
torch.save(states, out)
if ranks > 1:
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_are_one_with_the_joined_batch(tmp_path: Path) -> None:
    def start(rank: int, ranks: int) -> subprocess.Popen[bytes]:
        words = [str(rank), str(ranks), str(tmp_path / "meet"), str(tmp_path / f"{rank}of{ranks}")]
        return subprocess.Popen([sys.executable, "-c", RANKS, *words])

    started = [start(0, 1), start(0, 2), start(1, 2)]
    try:
        assert [process.wait(120) for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()
    joined, first, second = (torch.load(tmp_path / name) for name in ("0of1", "0of2", "1of2"))
    for name, state in joined.items():
        for key, value in state.items():
            assert torch.equal(first[name][key], second[name][key]), f"{name} {key}: ranks differ"
            torch.testing.assert_close(first[name][key], value, atol=1e-5, rtol=0, msg=f"{name} {key}")
