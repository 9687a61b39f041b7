"""Every experiment composes, trains both stages for two steps, is evaluated, sampled and rolled out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_clips import numbered, save
from on_stand_in import act, sampled_alike, train_quietly, used_alike
from tiny_video import TINY

import toolkit
import toolkit_video
from toolkit.__main__ import run
from toolkit.build import build_autoencoder, build_dataset
from toolkit.cli.config.compose import compose
from toolkit.testing.accelerator import stand_in
from toolkit_video.reading import read_timeline

CONF = Path(toolkit_video.__file__).parent / "conf" / "experiment"
SMALL = ["dataset.size=16", "dataset.frames=4"]
DATA = {
    "video_sprites": ["dataset.val_size=2", "dataset.test_size=2", "prior_dataset.train_size=8"],
    "video_maze_frames": ["dataset.size=16"],
    "video_maze_second_stage": ["decoder.layers=2", "decoder.head=8"],
    "video_maze_paper": SMALL,
    "video_gestures": ["dataset.size=16", "dataset.frames=8"],  # a code stands for four
    "video_vidtok": ["dataset.size=16", "dataset.frames=5", "dataset.rate=10", "prior.heads=2"],  # 1 + 4 frames
    "video_gpt": [*SMALL, "prior.heads=2", "dim=8", "quantizer.codebook_size=16"],
}
FIGURES = {"usage", "perplexity", "rate", "uniform_code_bits_per_dim"}


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    """Recordings of a name that no grammar likes, with an action for each frame."""
    root = tmp_path / "미로 [a], b=c (d)'s"
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for j in range(count):
            path = save(root / split / f"jump {j}.mp4", numbered(12, 96, 96, first=20 * j))
            path.with_suffix(".csv").write_text("action\n" + "forward\nleft\nright\n" * 4)
    return root


def words_of(name: str, plays: Path, tmp_path: Path) -> list[str]:
    """An experiment's options in small, and where its data is."""
    words = [*TINY, *DATA[name]]
    if name == "video_maze_second_stage":
        base = tmp_path / "base"
        first = [*TINY, *DATA["video_maze_frames"], f"dataset.root={plays}", "stage=autoencoder"]
        assert run(["train", "experiment=video_maze_frames", *first, f"hydra.run.dir={base}"]) == 0
        return [*words, f"dataset.run={base}"]
    return words if name == "video_sprites" else [*words, f"dataset.root={plays}"]


SMALLEST = "video_maze_paper"
"""That of the default lane."""
QUICK = ("video_sprites",)
"""What is trained on the stand-in for a GPU in the default lane: it takes a few seconds."""
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in DATA if name != SMALLEST]


def test_the_table_is_complete() -> None:
    assert {p.stem for p in CONF.glob("*.yaml")} == set(DATA)


@pytest.mark.long
@pytest.mark.parametrize("name", [SMALLEST, *OTHERS])
def test_experiment(name: str, plays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(name, plays, tmp_path)
    out = tmp_path / "run [1], a=b"
    assert run(["train", f"experiment={name}", *words, f"hydra.run.dir={out}"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert run(["evaluate", f"run={out}", "examples=2"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert set(told) >= FIGURES
    if name not in ("video_maze_frames", "video_maze_second_stage"):
        assert set(told) >= {"frame_psnr", "frame_ssim", "frame_psnr_decay", "temporal_error"}
    assert len(told["priors"]) == 2
    model = toolkit.load(out)
    frames = model.spec.axes[0]
    words = [f"run={out}", "n=2", f"out={tmp_path / 'samples'}"]
    longer = frames + 2 if frames > 1 else 1
    for seen in model.config.prior_conditions:
        (labels,) = (condition.labels for condition in model.spec.conditions if condition.name == seen)
        words += [f"condition.{seen}={labels[0]},{labels[-1]}"]
    assert run(["sample", *words, f"frames={longer}"]) == 0, capsys.readouterr().err
    files = sorted((tmp_path / "samples").glob("sample-*.mp4"))
    assert [len(read_timeline(path).ticks) for path in files] == [longer] * 2
    assert (tmp_path / "samples" / "samples.png").is_file()
    if frames > 1:
        # A beginning needs no more frames than are asked of it, however long the clips of the training were.
        each, begun = model.autoencoder.positions(1), tmp_path / "begun.mp4"
        model.files.write(model.files.read(files[0], model.spec)[:, :each], model.spec, begun)
        beginning = [f"prefix.file={begun}", f"prefix.frames={each}"]
        assert run(["sample", *words, *beginning, f"frames={longer}"]) == 0, capsys.readouterr().err
        assert run(["sample", *words, f"prefix.file={begun}", f"prefix.frames={frames}"]) == 2
        assert f"{begun}: {each} frames" in capsys.readouterr().err
    assert run(["reconstruct", f"run={out}", "examples=2"]) == 0
    assert (out / "samples" / "reconstructions.png").is_file()


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in DATA])
def test_no_step_on_a_gpu_waits(name: str, plays: Path, tmp_path: Path) -> None:
    train_quietly([f"experiment={name}", *words_of(name, plays, tmp_path)], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_on_a_gpu_it_does_what_it_does_on_a_cpu(name: str, plays: Path, tmp_path: Path) -> None:
    words, out = words_of(name, plays, tmp_path), tmp_path / "run"
    with stand_in():
        act("train", f"experiment={name}", *words, f"hydra.run.dir={out}")
    used_alike(out, 1)
    graphs = sampled_alike(out, 1).graphs
    assert graphs
    assert all(graph.replays >= 1 for graph in graphs)
    act("evaluate", f"run={out}", "examples=1")


GRIDS = {
    "video_maze_frames": ((1, 21, 21), 441 * 9),
    "video_maze_paper": ((16, 21, 21), 16 * 441 * 9),
    "video_gpt": ((8, 32, 32), 8192 * 10),
    "video_vidtok": ((5, 32, 32), 5120 * 15),
}


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("name", GRIDS)
def test_the_papers_grids(name: str, plays: Path) -> None:
    dataset = ["dataset.frames=8", "dataset.rate=10"] if name in ("video_gpt", "video_vidtok") else ["dataset.frames=1"]
    words = [f"experiment={name}", f"dataset.root={plays}", *dataset, "encoder.hidden=2", "decoder.hidden=2"]
    config = compose(words).config
    data = build_dataset(config).spec
    frames = compose([f"experiment={name}", "dataset.root=."]).config.dataset.options["frames"]
    data = toolkit.DataSpec(3, (frames, *data.axes[1:]), levels=256, variance=0.1, rates=data.rates)
    config = replace(config, prior_conditions=())
    code_spec = build_autoencoder(config, data).code_spec
    assert (code_spec.grid, code_spec.rate) == GRIDS[name]
