"""Sampling as a person asks for it: continuations, decoders that draw, priors without a probability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from messages import assert_names
from safetensors.torch import load_file
from toys import TWO_STEPS, VQ

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.plots import captions
from toolkit.plots.captions import Captions
from toolkit.stages.run import train

PARTS = [
    *("dataset=toy_tiles", "encoder=toy_conv", "dim=4", *VQ),
    *(*TWO_STEPS, "prior.hidden=8", "prior.layers=2"),
]

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def trained(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose decoder draws the data number by number, with a prior of each sort."""
    run = tmp_path_factory.mktemp("runs") / "run"
    decoder = ["decoder=pixelcnn", "decoder.hidden=8", "decoder.layers=2", "decoder.head=8", "likelihood=normal"]
    train(compose([*PARTS, *decoder, "prior=pixelcnn", "prior.head=8"]).config, run)
    for words in (["prior=maskgit", "prior.hidden=8", "prior.layers=1"], ["prior=categorical"]):
        assert command(["train", f"run={run}", "stage=prior", *words]) == 0
    return run


def sampled(run: Path, out: Path, *words: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and codes that the command wrote."""
    assert command(["sample", f"run={run}", f"out={out}", *words]) == 0
    x = [json.loads(path.read_text()) for path in sorted(out.glob("sample-*.json"))]
    return torch.tensor(x), load_file(out / "samples.safetensors")["codes"].long()


@pytest.mark.slow
def test_a_likelihood_that_nobody_asks_for_is_ignored(trained: Path) -> None:
    composed = compose([*PARTS, "decoder=pixelcnn", "likelihood=normal", "prior=pixelcnn"])
    assert composed.config.likelihood is None
    assert any("decoder=pixelcnn models the data itself: likelihood=normal is ignored" in n for n in composed.notices)
    components = json.loads((trained / "components.json").read_text())
    assert components["decoder"]["name"] == "pixelcnn"
    assert "likelihood" not in components


@pytest.mark.long
def test_both_draws_are_told_with_their_speed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, codes = sampled(trained, tmp_path, "n=3")
    assert x.shape == (3, 2, 8, 8)
    assert codes.shape == (3, 1, 4, 4)
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("samples: 3, codes: 48 in ")
    assert ", data: 384 in " in said
    assert said.count("per second)") == 2


@pytest.mark.long
def test_a_seed_says_codes_and_data(trained: Path, tmp_path: Path) -> None:
    first, same, other = (sampled(trained, tmp_path / name, "n=2", f"seed={name[0]}") for name in ("1a", "1b", "2"))
    assert torch.equal(first[0], same[0])
    assert torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    model = toolkit.load(trained)
    assert torch.equal(model.sample(2, seed=1).x, first[0])
    assert torch.equal(model.decode(first[1], seed=5), model.decode(first[1], seed=5))
    assert not torch.equal(model.decode(first[1], seed=5), model.decode(first[1], seed=6))


def test_samples_go_on_from_a_file(trained: Path, tmp_path: Path) -> None:
    """The codes of its first rows are the samples', without a look at the rows after them; those are drawn."""
    sampled(trained, tmp_path / "a", "n=1")
    file = tmp_path / "a" / "sample-0000.json"
    model = toolkit.load(trained)
    x = model.files.read(file, model.spec)[None]
    codes = model.encode(x[:, :, :4])
    _, drawn = sampled(trained, tmp_path / "b", "n=6", f"prefix.file={file}", "prefix.frames=4")
    assert torch.equal(drawn[:, :, :2], codes.expand(6, -1, -1, -1))
    assert len(drawn[:, :, 2:].flatten(1).unique(dim=0)) > 1
    _, whole = sampled(trained, tmp_path / "c", "n=2", f"prefix.file={file}")
    assert torch.equal(whole, model.encode(x).expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prefix.frames=4"], "prefix.frames … prefix.file=FILE"),
        (["prefix.frames=3", "FILE"], "prefix.frames=3: … 2 … 8"),
        (["prefix.frames=0", "FILE"], "prefix.frames=0: … 2 … 8"),
        (["prefix.frames=10", "FILE"], "prefix.frames=10: … 2 … 8"),
        (["prefix.file=nowhere.json"], "nowhere.json: "),
        (["prefix.frames=4", "frames=2", "FILE"], "frames=2: … 4"),
        (["overlap=4"], "overlap … frames=N"),
        (["frames=0"], "frames=0: … 1"),
        (["frames=12", "overlap=3"], "overlap=3: … 8 … 2 … 6"),
        (["frames=12", "overlap=8"], "overlap=8: … 8 … 2 … 6"),
        (["frames=12"], "frames=12: … 8"),
        (["temperature=0"], "temperature=0.0: … 0"),
    ],
)
@pytest.mark.few(4)
def test_what_cannot_be_gone_on_from_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(torch.zeros(2, 8, 8).long().tolist()))
    words = [word if word != "FILE" else f"prefix.file={file}" for word in words]
    assert command(["sample", f"run={trained}", "n=1", f"out={tmp_path / 'out'}", *words]) == 2
    assert_names(capsys.readouterr().err, f"toolkit sample: … {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_evaluate_has_a_row_for_each_prior_and_says_why_one_is_empty(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["evaluate", f"run={trained}", "examples=8"]) == 0
    said = capsys.readouterr()
    told = json.loads((trained / "evaluation.json").read_text())
    assert set(told["priors"]) == {"uniform", "categorical", "pixelcnn", "maskgit"}
    assert told["priors"]["maskgit"] == {"code_bits_per_dim": None, "bits_per_dim": None}
    assert told["priors"]["categorical"]["code_bits_per_dim"] > 0
    assert "note: prior=maskgit has no code bits: maskgit predicts many codes at once" in said.err
    row = next(line for line in said.out.splitlines() if "maskgit" in line)
    assert row.count("\N{EN DASH}") == 2
    assert told["prior"] != "maskgit"


def test_every_prior_samples(trained: Path, tmp_path: Path) -> None:
    drawn = [
        sampled(trained, tmp_path / name, "n=4", f"prior={name}")[1] for name in ("pixelcnn", "maskgit", "categorical")
    ]
    assert all(codes.shape == (4, 1, 4, 4) for codes in drawn)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what torch has deprecated
def test_compiled_steps_give_samples(trained: Path, tmp_path: Path) -> None:
    plain = sampled(trained, tmp_path / "a", "n=2")
    compiled = sampled(trained, tmp_path / "b", "n=2", "compile=true")
    assert (plain[1] == compiled[1]).double().mean() > 0.9  # float32: a rounding may move a draw


def test_a_sweep_over_a_prior_without_a_probability_has_a_score(tmp_path: Path) -> None:
    """That of stage one: its loss is no cost of codes."""
    decoder = ["decoder=toy_conv", "likelihood=categorical"]
    words = [*PARTS, *decoder, "prior=maskgit", f"hydra.run.dir={tmp_path}"]
    score = train(compose(words).config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    stage_one = [line for line in lines if line["split"] == "val" and line["stage"] == "autoencoder"]
    assert score == stage_one[-1]["bits_per_dim"]


@pytest.mark.slow
def test_three_axes_sample_with_a_pixelcnn_and_a_transformer(tmp_path: Path) -> None:
    """A grid of time, height and width, from a folded encoder or one of its own."""
    words = [w for w in PARTS if w != "dataset=toy_tiles"]
    for prior in ("pixelcnn", "transformer"):
        run = tmp_path / prior
        given = ["dataset=toy_clips", "decoder=toy_conv", "likelihood=categorical", f"prior={prior}", "prior.head=8"]
        train(compose([*words, *given]).config, run)
        model = toolkit.load(run)
        assert model.code_spec.grid == (2, 8, 8)
        x, codes = model.sample(2)
        assert x.shape == (2, 3, 4, 16, 16)
        assert codes.shape == (2, 1, 2, 8, 8)


def test_long_draws_tell_how_far_they_are(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line now and then where there is no terminal."""
    monkeypatch.setattr("toolkit.cli.report.EVERY", 0.0)
    sampled(trained, tmp_path, "n=1", "prior=pixelcnn")
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("codes: 1 of 16, ") and line.endswith(" left") for line in said)
    assert "codes: 16 of 16" in said
    assert any(line.startswith("data: 2 of 128, ") for line in said)
    assert "data: 128 of 128" in said
    file = str(tmp_path / "sample-0000.json")
    assert command(["reconstruct", f"run={trained}", file, f"out={tmp_path / 'again'}"]) == 0
    assert "data: 128 of 128" in capsys.readouterr().err.splitlines()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_every_draw_has_a_folder_and_the_next_of_its_prior_and_seed_replaces_it(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("samples"))
    few = ["sample-0000.json", "sample-0001.json", "samples.png", "samples.safetensors"]
    draws = {
        "categorical-seed0": ["n=3"],
        "pixelcnn-seed0": ["n=2", "prior=pixelcnn"],
        "categorical-seed1": ["n=2", "seed=1"],
    }
    for words in draws.values():
        assert command(["sample", f"run={run}", *words]) == 0
    assert sorted(path.name for path in (run / "samples").iterdir()) == sorted(draws)
    assert files(run / "samples" / "pixelcnn-seed0") == few
    (run / "samples" / "categorical-seed0" / "notes.txt").write_text("of the old draw")
    assert command(["sample", f"run={run}", "n=2"]) == 0
    assert files(run / "samples" / "categorical-seed0") == few
    assert files(run / "samples" / "categorical-seed1") == few
    assert sorted(path.name for path in (run / "samples").iterdir()) == sorted(draws)


def test_in_a_folder_of_ones_own_only_files_of_a_draw_make_place(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "sample-0001.txt").write_text("mine")
    (tmp_path / "a folder").mkdir()
    sampled(trained, tmp_path, "n=3", "prior=categorical")
    sampled(trained, tmp_path, "n=1", "prior=categorical")
    assert files(tmp_path) == ["sample-0000.json", "sample-0001.txt", "samples.png", "samples.safetensors"]
    assert (tmp_path / "a folder").is_dir()


def test_a_draw_that_cannot_be_written_leaves_the_one_before(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("samples"))
    words = ["sample", f"run={run}", "prior=categorical"]
    assert command([*words, "n=2"]) == 0
    before = {path: path.read_bytes() for path in (run / "samples").rglob("*") if path.is_file()}

    written: list[Path] = []

    def write(x: torch.Tensor, spec: object, path: Path) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.write_text("[]")

    monkeypatch.setattr(toolkit.load(run).files, "write", write)
    assert command([*words, "n=4"]) == 2
    assert_names(capsys.readouterr().err, "toolkit sample: out= … No space left")
    assert {path: path.read_bytes() for path in (run / "samples").rglob("*") if path.is_file()} == before
    assert [path.name for path in (run / "samples").iterdir()] == ["categorical-seed0"]


def test_reconstructions_of_other_files_are_not_left_beside_the_new_ones(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(torch.zeros(2, 8, 8).long().tolist()))
    words = ["reconstruct", f"run={trained}", f"out={tmp_path / 'out'}"]
    assert command([*words, str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert command([*words, str(tmp_path / "b.json")]) == 0
    assert files(tmp_path / "out") == ["reconstruction-0000.json", "reconstructions.png"]


def test_a_sheet_says_what_it_was_sampled_with(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Captions] = []
    monkeypatch.setattr(captions, "plot_captioned", lambda *given: told.append(given[-1]))
    sampled(trained, tmp_path, "n=2", "prior=pixelcnn", "seed=3", "temperature=0.5", "top_k=4")
    assert told[0].title == "run: prior pixelcnn, seed 3, temperature 0.5, top_k 4"
    assert told[0].examples == [["", ""]]
