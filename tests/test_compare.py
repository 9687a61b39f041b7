"""The figures of several runs side by side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from messages import assert_names
from toys import PIXELCNN, TILES, TOY, plugged_in, trainers

from toolkit import ToolkitError
from toolkit import __main__ as command
from toolkit.cli.compare import run_folders
from toolkit.cli.config.compose import compose
from toolkit.cli.differences import differences, labels
from toolkit.cli.report import number
from toolkit.plots.comparison import PANELS, Point, plot_comparison
from toolkit.runs.folder import Run
from toolkit.stages import second
from toolkit.stages.run import train

pytestmark = pytest.mark.long

PARTS = [
    *(*TILES, *PIXELCNN, *trainers("batch_size=4", "workers=0")),
    *("trainer.steps=3", "prior_trainer.steps=2", "stage=autoencoder"),
]
RUNS = {
    "0": ["quantizer=vq", "quantizer.codebook_size=16"],
    "2": ["quantizer=ema", "quantizer.codebook_size=16"],
    "10": ["quantizer=ema", "quantizer.codebook_size=8"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three runs, not evaluated yet."""
    folder = tmp_path_factory.mktemp("made")
    with plugged_in():
        for name, words in RUNS.items():
            train(compose([*PARTS, *words]).config, folder / name)
    return folder


@pytest.fixture
def sweep(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, as the folder ``sweep`` of where it works."""
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "sweep")
    return Path("sweep")


def told(out: str | Path) -> list[dict[str, Any]]:
    """The rows of compare.json."""
    rows: list[dict[str, Any]] = json.loads((Path(out) / "compare.json").read_text())["runs"]
    return rows


# -- the command


@pytest.mark.slow
def test_a_sweep_is_compared(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs are evaluated, told apart by what differs, sorted, and written down into its folder."""
    assert command.run(["compare", str(sweep)]) == 0
    captured = capsys.readouterr()
    rows = told(sweep)
    assert {row["run"]: row["label"] for row in rows} == {
        "sweep/0": "quantizer=vq codebook_size=16",
        "sweep/2": "quantizer=ema codebook_size=16",
        "sweep/10": "quantizer=ema codebook_size=8",
    }
    bits = [row["metrics"]["bits_per_dim"] for row in rows]
    assert bits == sorted(bits)
    assert len(set(bits)) == 3
    names = [str(sweep / f"compare.{kind}") for kind in ("json", "md", "png")]
    assert captured.out.splitlines()[-3:] == names
    assert all(Path(name).stat().st_size for name in names)
    assert "again" not in captured.err


def test_figures_are_those_of_evaluation_json(sweep: Path) -> None:
    assert command.run(["evaluate", f"run={sweep}/2", "examples=5"]) == 0
    held = (sweep / "2" / "evaluation.json").read_bytes()
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/2", "out=there"]) == 0
    assert (sweep / "2" / "evaluation.json").read_bytes() == held
    for row in told("there"):
        assert row["metrics"] == json.loads((Path(row["run"]) / "evaluation.json").read_text())
    counts = {row["run"]: row["metrics"]["examples"] for row in told("there")}
    assert counts == {"sweep/0": 8, "sweep/2": 5}


def test_a_comparison_evaluates_as_evaluate_does(sweep: Path) -> None:
    assert command.run(["compare", f"{sweep}/0", "examples=3"]) == 0
    (row,) = told("outputs/compare")
    assert command.run(["evaluate", f"run={sweep}/0", "examples=3"]) == 0
    assert row["metrics"] == json.loads((sweep / "0" / "evaluation.json").read_text())


@pytest.mark.slow
def test_different_numbers_of_examples_are_told(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(["evaluate", f"run={sweep}/2", "examples=5"])
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/2"]) == 0
    assert "evaluated on different numbers of examples, 5, 8: examples=N" in capsys.readouterr().err
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/2", "examples=8"]) == 0
    told = capsys.readouterr()
    assert "evaluation.json is of split=test, 5 examples" in told.err
    assert "test split, 8 examples" in told.out


@pytest.mark.few(1)
@pytest.mark.parametrize("change", ["split", "step", "prior", "damaged"])
def test_figures_of_something_else_are_measured_again(
    sweep: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    path = sweep / "2" / "evaluation.json"
    command.run(["evaluate", f"run={sweep}/2"])
    good = path.read_text()
    if change == "split":
        command.run(["evaluate", f"run={sweep}/2", "split=val"])
    elif change == "step":
        path.write_text(json.dumps({**json.loads(good), "step": 2}))
    elif change == "prior":
        assert command.run(["train", f"run={sweep}/2", "stage=prior", "prior_trainer.allow_collapsed=true"]) == 0
    else:
        path.write_text("{")
    capsys.readouterr()
    assert command.run(["compare", f"{sweep}/2"]) == 0
    assert capsys.readouterr().err.count("evaluating again") == 1
    assert command.run(["compare", f"{sweep}/2"]) == 0
    assert "again" not in capsys.readouterr().err
    if change == "prior":
        assert "pixelcnn" in json.loads(path.read_text())["priors"]
    else:
        assert json.loads(path.read_text()) == json.loads(good)


def test_a_broken_run_is_left_out(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(sweep / "0" / "autoencoder")
    (sweep / "2" / "config.yaml").write_text("quantizer: 3")
    assert command.run(["compare", str(sweep), "nowhere"]) == 0
    err = capsys.readouterr().err
    for name in ("sweep/0", "sweep/2", "nowhere"):
        assert f"note: {name} is left out: " in err
    assert [row["run"] for row in told("outputs/compare")] == ["sweep/10"]
    shutil.rmtree(sweep / "10")
    assert command.run(["compare", str(sweep)]) == 2
    assert capsys.readouterr().err.endswith("toolkit compare: none of these runs can be compared\n")


def test_no_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["compare"]) == 2
    assert "no runs: toolkit compare RUNS…" in capsys.readouterr().err
    assert command.run(["compare", "splt=val"]) == 2
    assert "did you mean split?" in capsys.readouterr().err


def test_continuous_bottlenecks_and_densities_beside_the_others(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run has no figure for is a dash; what none has is no column."""
    train(compose([*PARTS, "quantizer=gaussian"]).config, sweep / "11")
    train(compose([*PARTS, "quantizer=vq", "likelihood=normal"]).config, sweep / "12")
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/11", f"{sweep}/12", "out=all"]) == 0
    header, _, *lines = Path("all/compare.md").read_text().splitlines()
    heads = [cell.strip() for cell in header.strip("|").split("|")]
    rows = {row["run"]: line for row, line in zip(told("all"), lines, strict=True)}
    cells = {run: [c.strip() for c in line.strip("|").split("|")] for run, line in rows.items()}
    none = "\N{EN DASH}"
    assert [head for head, cell in zip(heads, cells["sweep/11"], strict=True) if cell == none] == [
        "rate",
        "usage",
        "perplexity",
    ]
    assert [head for head, cell in zip(heads, cells["sweep/12"], strict=True) if cell == none] == [
        "bits/dim",
        "data bits/dim",
    ]
    assert told("all")[-1]["run"] == "sweep/12"
    assert command.run(["compare", f"{sweep}/11", "out=alone"]) == 0
    assert "rate" not in Path("alone/compare.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.1250"), (12.0, "12"), (3, "3"), (99.51, "99.5100"), (123.456, "123.5"), (12345.0, "12,345")],
)
def test_numbers_in_tables(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.slow
def test_runs_of_other_rates_or_data_are_told(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/2"]) == 0
    assert "not " not in capsys.readouterr().err
    assert command.run(["compare", str(sweep)]) == 0
    told = capsys.readouterr().err
    assert_names(told, "note: the runs are not at one rate, 48 to 64 bits per example … toolkit check")
    train(compose([*PARTS, "quantizer=vq", "quantizer.codebook_size=4", "dataset.size=16"]).config, sweep / "11")
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/11", "out=other"]) == 0
    told = capsys.readouterr().err
    assert_names(told, "note: the runs are not of one dataset (dataset.size=16; dataset.size=8)")


def test_a_run_has_a_row_for_each_of_its_priors(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stage=prior", "prior=categorical,pixelcnn", "prior_trainer.allow_collapsed=true", "-m"]
    assert command.run(["train", f"run={sweep}/0", *words]) == 0
    assert command.run(["compare", f"{sweep}/0", f"{sweep}/2"]) == 0
    rows = {row["label"]: row["metrics"] for row in told("outputs/compare")}
    evaluation = json.loads((sweep / "0" / "evaluation.json").read_text())
    assert len(rows) == 3
    for name in ("categorical", "pixelcnn"):
        (row,) = [metrics for label, metrics in rows.items() if f"prior={name}" in label and "quantizer=vq" in label]
        assert row == {**evaluation, "prior": name, **evaluation["priors"][name]}
    assert command.run(["compare", f"{sweep}/0", "out=alone"]) == 0
    assert {row["label"] for row in told("alone")} == {"prior=categorical", "prior=pixelcnn"}


# -- several priors over one autoencoder


def test_priors_are_swept_over_one_autoencoder(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, allowed = sweep / "0", "prior_trainer.allow_collapsed=true"
    before = fingerprint_of(run / "autoencoder")
    words = ["train", f"run={run}", "stage=prior", allowed]
    assert command.run([*words, "prior=categorical,pixelcnn", "-m"]) == 0
    out = capsys.readouterr().out
    assert out.index("prior=categorical\n") < out.index("prior-categorical: from 0 to 2")
    assert out.index("prior-categorical: from 0 to 2") < out.index("prior=pixelcnn\n")
    assert Run(run).priors() == ["categorical", "pixelcnn"]
    assert fingerprint_of(run / "autoencoder") == before
    swept = fingerprint_of(run / "priors" / "categorical" / "step-00000002")
    shutil.rmtree(run / "priors")
    assert command.run([*words, "prior=categorical"]) == 0
    assert fingerprint_of(run / "priors" / "categorical" / "step-00000002") == swept


def fingerprint_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prior=pixelcnn"], "toolkit train: -m … prior=NAME,NAME"),
        (["prior=pixelcnn,categorical", "prior_trainer.steps=1,2"], "toolkit train: prior_trainer.steps=1,2: … prior="),
        (["prior=pixelcnn,nonesuch"], "toolkit train: "),
        (["prior=pixelcnn,categorical", "--cfg", "job"], "toolkit train: --cfg: … -m"),
    ],
)
def test_what_cannot_be_swept_over_a_run(
    sweep: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert command.run(["train", f"run={sweep}/0", "stage=prior", "-m", *words]) == 2
    assert_names(capsys.readouterr().err, message)
    assert not (sweep / "0" / "priors").exists()


def test_a_prior_that_fails_does_not_stop_the_others(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of codes that have collapsed no prior is trained; one without parameters has nothing to train."""
    words = ["stage=prior", "prior=pixelcnn,uniform", "prior.hidden=8", "-m"]
    assert command.run(["train", f"run={sweep}/0", *words]) == 2
    assert "uniform" in capsys.readouterr().err
    words = ["stage=prior", "prior=maskgit,categorical", "prior_trainer.allow_collapsed=true", "-m"]
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        built = second.build_prior

        def build_prior(config: Any, *given: Any) -> Any:
            if config.prior.name == "maskgit":
                raise ToolkitError("no such luck")
            return built(config, *given)

        patch.setattr(second, "build_prior", build_prior)
        assert command.run(["train", f"run={sweep}/0", *words]) == 2
    captured = capsys.readouterr()
    assert "prior=maskgit failed: no such luck" in captured.out
    assert captured.err.endswith("toolkit train: no such luck\n")
    assert Run(sweep / "0").priors() == ["categorical"]


# -- which runs


def test_folders_are_found_in_natural_order_and_once(sweep: Path) -> None:
    names = [str(folder) for folder in run_folders(["sweep/2", "sweep"])]
    assert sorted(names) == ["sweep/0", "sweep/10", "sweep/2"]
    assert [folder.name for folder in run_folders(["sweep"])] == ["0", "2", "10"]
    hidden = Path("failed/.hydra")
    hidden.mkdir(parents=True)
    (hidden / "config.yaml").write_text("")
    assert run_folders(["failed"]) == [Path("failed")]


# -- labels


def config(**parts: Any) -> dict[str, Any]:
    return {"dim": 64, "quantizer": {"name": "vq"}, "trainer": {"steps": 5}, "prior_trainer": {"steps": 5}, **parts}


def test_labels_say_what_differs() -> None:
    small, large = ({"quantizer": {"name": "ema", "codebook_size": size}} for size in (16, 32))
    assert labels([config(**small), config(**large)], ["a", "b"]) == ["codebook_size=16", "codebook_size=32"]
    assert labels([config(), config()], ["a", "b"]) == ["a", "b"]
    assert labels([config()], ["a"]) == ["a"]


def test_parts_stand_first() -> None:
    other = config(dim=32, quantizer={"name": "fsq"})
    assert labels([config(), other], ["a", "b"]) == ["quantizer=vq dim=64", "quantizer=fsq dim=32"]


def test_a_name_that_two_options_share_is_told_whole() -> None:
    other = config(trainer={"steps": 6}, prior_trainer={"steps": 7})
    assert labels([config(), other], ["a", "b"])[1] == "trainer.steps=6 prior_trainer.steps=7"


def test_what_a_part_has_by_default_is_not_told() -> None:
    """vq and ema restart differently by default: their names say so."""
    ema, vq = (
        {"name": name, "codebook_size": 512, "dead_code_threshold": r} for name, r in (("ema", 0.1), ("vq", 0.0))
    )
    configs = [config(quantizer=ema), config(quantizer=vq)]
    assert labels(configs, ["a", "b"]) == ["quantizer=ema", "quantizer=vq"]
    ema["dead_code_threshold"] = 0.3
    assert labels(configs, ["a", "b"]) == [
        "quantizer=ema dead_code_threshold=0.3",
        "quantizer=vq dead_code_threshold=0.0",
    ]


def test_nested_parts_are_told_by_name() -> None:
    inner = ({"name": "product", "inner": {"name": name, "codebook_size": 512}} for name in ("vq", "ema"))
    made = labels([config(quantizer=quantizer) for quantizer in inner], ["a", "b"])
    assert made == ["inner=vq", "inner=ema"]


def test_nested_parts_stand_before_options() -> None:
    inner = ({"name": "residual", "depth": d, "inner": {"name": n, "levels": [d]}} for n, d in (("fsq", 2), ("vq", 3)))
    made = labels([config(quantizer=quantizer) for quantizer in inner], ["a", "b"])
    assert [label.split()[:2] for label in made] == [["inner=fsq", "depth=2"], ["inner=vq", "depth=3"]]


def test_what_changes_nothing_learned_is_not_told() -> None:
    other = config(trainer={"steps": 5, "device": "cpu", "workers": 3}, logger={"a": {"name": "a"}})
    assert differences([config(trainer={"steps": 5, "device": "cuda", "workers": 0}, logger={}), other]) == [
        {},
        {},
    ]


def test_a_name_of_the_users_own_is_no_part() -> None:
    configs = [config(extra={"cat": {"name": name, "age": age}}) for name, age in (("a", 1), ("b", 2))]
    assert differences(configs)[1] == {"extra.cat.name": "b", "extra.cat.age": 2}


def test_no_two_labels_are_alike() -> None:
    configs = [config(dim=1), config(dim=1), config(dim=2)]
    assert labels(configs, ["x", "y", "z"]) == ["dim=1 (x)", "dim=1 (y)", "dim=2"]
    assert len(set(labels(configs, ["run", "run", "run"]))) == 3


def test_values_are_written_as_on_the_command_line() -> None:
    configs = [config(a=[1, 2], b=True, c=None), config(a=[3], b=False, c="한글")]
    assert labels(configs, ["x", "y"]) == ["a=[1,2] b=true c=null", "a=[3] b=false c=한글"]


def test_a_number_that_a_search_drew_is_rounded() -> None:
    rates = (0.006048300365895528, 0.0003, 1e-05, 0.006048300365895529)
    made = labels([config(rate=rate) for rate in rates], ["0", "1", "2", "3"])
    assert made == ["rate=0.006048 (0)", "rate=0.0003", "rate=1e-05", "rate=0.006048 (3)"]


def test_a_long_label_is_cut() -> None:
    configs = [config(**{f"o{i}": k for i in range(9)}) for k in range(2)]
    assert labels(configs, ["x", "y"])[1] == "o0=1 o1=1 o2=1 o3=1 …"


# -- the picture


def point(label: str = "", group: str = "vq", data_bits: float | None = 3.0, psnr: float | None = 20.0) -> Point:
    return Point(label, group, 0.2, data_bits, psnr)


@pytest.mark.parametrize(
    ("points", "panels"),
    [
        ([point("한글 $x_{$", "a|b"), point("n=2", data_bits=2.5)], ["data_bits", "psnr"]),
        ([point(data_bits=None), point(data_bits=None)], ["psnr"]),
        ([point(psnr=None), point(psnr=float("inf"))], ["data_bits"]),
        ([point(data_bits=None, psnr=None)], []),
    ],
)
def test_panels_are_those_that_some_run_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[Point], panels: list[str]
) -> None:
    from matplotlib.axes import Axes

    heights: list[str] = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda axes, text, **_: heights.append(text))
    assert plot_comparison(tmp_path / "c.png", points) is bool(panels)
    assert (tmp_path / "c.png").is_file() is bool(panels)
    assert heights == [PANELS[name] for name in panels]


def test_labels_cover_neither_each_other_nor_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs so near one another that labels right beside their points would."""
    from toolkit.plots import comparison

    boxes: list[Any] = []
    points_and_legend: list[Any] = []
    place = comparison._place

    def watched(axes: Any, spot: Any, taken: list[Any]) -> Any:
        points_and_legend[:] = points_and_legend or taken
        boxes.append(place(axes, spot, taken))
        return boxes[-1]

    monkeypatch.setattr(comparison, "_place", watched)
    runs = [Point(f"codebook_size={i}", "vq", 0.2, 3 + 0.3 * (i // 3) + 0.004 * (i % 3), None) for i in range(9)]
    assert plot_comparison(tmp_path / "c.png", runs)
    assert (len(boxes), len(points_and_legend)) == (9, 10)
    for i, box in enumerate(boxes):
        assert all(comparison._overlap(box, other) == 0 for other in (*boxes[:i], *points_and_legend))


# -- what is never imported


def test_what_only_asks_imports_neither_torch_nor_matplotlib() -> None:
    asking = [["compare", "--help"], ["evaluate", "--help"], ["completion", "query", "toolkit compare "]]
    code = (
        f"import sys\nfrom toolkit.__main__ import run\nfor words in {[*asking, ['plugins', 'metric']]!r}:\n"
        "    try: run(words)\n    except SystemExit: pass\n"
        "    imported = {'torch', 'matplotlib'} & set(sys.modules)\n"
        "    if imported: sys.exit(f'{words} imports {imported}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_imports_no_matplotlib() -> None:
    code = "import sys, toolkit.stages.run, toolkit.metrics.codebook; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
