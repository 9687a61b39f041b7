"""A run with loggers is the run without, bit for bit; they hear of all of it, and their failures cost nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest
import torch
from messages import assert_names
from PIL import Image
from toy.toy_loggers import CountingLogger
from toys import PIXELCNN, TILES, TOY, VQ, fingerprint, plugged_in, trainers

import toolkit
from toolkit import DataSpec, Logger, ToolkitError
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.logged import Logged
from toolkit.loggers.csv import CSVLogger
from toolkit.loggers.mlflow import MLflowLogger
from toolkit.loggers.report import ReportLogger
from toolkit.loggers.tensorboard import TensorBoardLogger
from toolkit.loggers.trackio import TrackioLogger
from toolkit.loggers.wandb import WandbLogger
from toolkit.runs.folder import Run
from toolkit.runs.log import Log
from toolkit.runs.plain import read_yaml, write_yaml
from toolkit.stages import train
from toolkit.testing import LoggerSuite

EVERY = ["batch_size=4", "workers=0", "log_every=2", "checkpoint_every=3", "validate_every=3", "pictures_every=3"]
WORDS = [*TILES, *VQ, *PIXELCNN, *trainers("steps=6", *EVERY), "prior_trainer.allow_collapsed=true"]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


class Notes:
    """A report that keeps the notes, and raises after a step of a stage."""

    def __init__(self, error: BaseException | None = None, stage: str = "", step: int = 0) -> None:
        self.notes: list[str] = []
        self.error, self.at, self.begun = error, (stage, step), ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self.begun = stage

    def step(self, done: int) -> None:
        if self.error and (self.begun, done) == self.at:
            raise self.error

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without loggers."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with plugged_in():
        train(compose(WORDS).config, folder, report=Notes())
    return folder


def calls(run: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (run / "counted.jsonl").read_text().splitlines()]


def heard(run: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """What the counting logger was told: lines, pictures, and how the trainings ended."""
    told = calls(run)
    lines, pictures, ends = ([what for call, what in told if call == name] for name in ("log", "picture", "close"))
    return lines, pictures, [status for status, _ in ends]


def assert_heard_all(run: Path) -> None:
    lines, pictures, ends = heard(run)
    assert lines == list(Run(run).log)
    assert sorted(name for *_, name in pictures) == sorted(path.name for path in run.glob("samples/*.png"))
    assert all(name == f"{stage}-{step:08d}.png" for stage, step, name in pictures)
    assert {stage for stage, *_ in pictures} == {"autoencoder", "prior-pixelcnn"}
    assert ends == ["done"]
    told = calls(run)
    assert told[-1] == ["close", ["done", "vq"]]
    assert [what[:2] for call, what in told if call == "examples"] == [[stage, step] for stage, step, _ in pictures]
    assert [what[:2] for call, what in told if call == "histograms"] == [["autoencoder", step] for step in (3, 6)]
    saved = [what for call, what in told if call == "checkpoint"]
    assert saved == [[stage, step, True] for stage in ("autoencoder", "prior-pixelcnn") for step in (3, 6)]


@pytest.mark.long
def test_one_that_counts(plain: Path, tmp_path: Path) -> None:
    report = Notes()
    train(compose([*WORDS, "logger=[toy_counting]"]).config, tmp_path / "run", report=report)
    assert_heard_all(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(plain)
    assert not [text for text in report.notes if "logger" in text]
    assert Run(tmp_path / "run").components()["logger.toy_counting"]["distribution"] == "toy-plugin"


@pytest.mark.parametrize("where", ["log", "picture", "close"])
@pytest.mark.few(1)
def test_one_that_raises(where: str, plain: Path, tmp_path: Path) -> None:
    """It draws random numbers first; the one after it hears of everything."""
    words = ["logger=[toy_raising,toy_counting]", f"logger.toy_raising.where={where}"]
    report = Notes()
    train(compose([*WORDS, *words]).config, tmp_path / "run", report=report)
    assert_heard_all(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(plain)
    (note,) = (text for text in report.notes if "logger" in text)
    assert_names(note, f"logger=toy_raising … no {where} today … toy_loggers.py")
    assert f"no {where} today" in (tmp_path / "run" / "log.txt").read_text()


def test_one_that_raises_everywhere_is_told_once() -> None:
    """After its first failure it is only closed."""
    heard = []

    class Broken(Logger):
        def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
            heard.append("log")
            raise OSError("gone")

        def picture(self, stage: str, step: int, path: Path) -> None:
            heard.append("picture")

        def close(self, status: str) -> None:
            heard.append(status)
            raise OSError("still gone")

    report = Notes()
    with Logged(report) as logged:
        logged.add([("broken", Broken())])
        for step in range(3):
            logged.metrics("train", step, {"loss": 1.0})
        logged.picture("autoencoder", 3, Path("a.png"))
    assert heard == ["log", "done"]
    (note,) = report.notes
    assert_names(note, "logger=broken … OSError: gone")


def test_one_that_cannot_be_built(tmp_path: Path) -> None:
    """Nothing is written yet, and those that are built are closed."""
    words = ["logger=[toy_counting,toy_raising]", "logger.toy_raising.where=new"]
    with pytest.raises(ToolkitError, match=r"^logger=toy_raising: no new today$"):
        train(compose([*WORDS, *words]).config, tmp_path / "run", report=Notes())
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "status", "stage", "step"),
    [
        (KeyboardInterrupt(), "stopped", "autoencoder", 5),
        (ToolkitError("a full disk"), "failed", "prior-pixelcnn", 4),
    ],
)
@pytest.mark.few(1)
def test_one_is_told_how_it_ended_and_goes_on(
    error: BaseException, status: str, stage: str, step: int, plain: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(type(error)):
        train(compose([*WORDS, "logger=[toy_counting]"]).config, run, report=Notes(error, stage, step))
    assert heard(run)[2] == [status]
    train(toolkit.compose(run=run), run, report=Notes())
    lines, _, ends = heard(run)
    assert ends == [status, "done"]
    again = {(line["stage"], line["split"], line["step"]): line for line in lines}
    assert [again[line["stage"], line["split"], line["step"]] for line in Run(run).log] == list(Run(run).log)
    assert fingerprint(run) == fingerprint(plain)


@pytest.mark.slow
def test_a_continuation_chooses_others(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    first = read_yaml(run / "config.yaml")
    assert not {"logger", "tensorboard"} & set(first), "a run without loggers says nothing of them"
    train(toolkit.compose("trainer.steps=6", run=run), run, report=Notes())
    assert not (run / "config-2.yaml").exists()
    longer = trainers("steps=7")
    train(toolkit.compose("logger=toy_counting", *longer, run=run), run, report=Notes())
    assert list(read_yaml(run / "config-2.yaml")["logger"]) == ["toy_counting"]
    lines = [line for line in Run(run).log if line["stage"] != "autoencoder" or line["step"] == 7]
    assert heard(run)[0] == lines
    train(toolkit.compose("logger=[]", run=run), run, report=Notes())
    assert "logger" not in read_yaml(run / "config-3.yaml")
    assert heard(run)[2] == ["done"]


# -- words


@pytest.mark.long
def test_loggers_are_a_list_of_parts_with_options() -> None:
    words = [*WORDS, "logger=[toy_raising,toy_counting]", "logger.toy_raising.where=close"]
    saved = compose(words).values
    assert saved["logger"] == {
        "toy_raising": {"name": "toy_raising", "where": "close"},
        "toy_counting": {"name": "toy_counting"},
    }
    assert reopen(saved, []).values == saved
    assert reopen(saved, ["logger=[]"]).values["logger"] == {}
    assert compose(WORDS).values["logger"] == {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("logger=tensorbord", "logger=tensorbord … tensorboard?"),
        ("logger.toy_raising.where=never", "logger.toy_raising.where: … log"),
        ("logger.toy_raising.were=log", "logger.toy_raising.were: logger=toy_raising … where?"),
        ("tensorboard=true", "tensorboard: … logger=tensorboard"),
    ],
)
def test_wrong_words_are_refused(word: str, text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        compose([*WORDS, "logger=[toy_raising]", word])
    assert_names(str(error.value), text)


def test_the_switch_is_refused_of_a_saved_run(plain: Path) -> None:
    with pytest.raises(ToolkitError, match="logger=tensorboard"):
        reopen(Run(plain).config_values(), ["tensorboard=true"])


def test_completion_knows_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = "toolkit train logger=[toy_raising] logger.toy_raising.where="
    assert command(["completion", "query", words]) == 0
    assert f"{words.rpartition(' ')[2]}picture " in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("switch", [True, False])
def test_the_switch_of_older_runs_is_a_logger(switch: bool, plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    (run / "config.yaml").write_text(write_yaml({**read_yaml(run / "config.yaml"), "tensorboard": switch}))
    assert list(Run(run).config().logger) == (["tensorboard"] if switch else [])
    assert list(reopen(Run(run).config_values(), []).values["logger"]) == (["tensorboard"] if switch else [])


# -- TensorBoard


class Writer:
    """Stands for TensorBoard's: keeps what it is given in a file of the folder."""

    written: list[tuple[Any, ...]] = []  # noqa: RUF012  # of all of them

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = Path(folder) / "events"

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.file.write_text(f"{tag} {float(value)} {step}")
        Writer.written.append((tag, value, step))

    def add_image(self, tag: str, pixels: Any, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        Writer.written.append((tag, pixels.shape, step))

    def add_audio(self, tag: str, sound: Any, step: int, sample_rate: int) -> None:
        Writer.written.append((tag, tuple(sound.shape), sample_rate, step))

    def add_histogram_raw(self, tag: str, *, global_step: int, **histogram: Any) -> None:
        Writer.written.append((tag, histogram, global_step))

    @property
    def file_writer(self) -> Writer:
        return self

    def add_summary(self, summary: Any) -> None:
        Writer.written.append(summary)

    def close(self) -> None: ...


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the package, which may not be installed."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    summary = ModuleType("torch.utils.tensorboard.summary")
    summary.hparams = lambda options, figures: [("hparams", options, figures)]  # type: ignore[attr-defined]
    for one in (module, summary):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    Writer.written.clear()


@pytest.mark.usefixtures("writer")
class TestTensorBoardLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return TensorBoardLogger(run, config)


class TestReportLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return ReportLogger(run)


class TestCSVLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return CSVLogger(run)


class Service:
    """In place of a tracker's package: the calls that its library takes, and what they were given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name == "info":
            return self

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            return [] if name == "search_runs" else self

        return call

    def given(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, options) for called, args, options in self.calls if called == name]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, service)  # type: ignore[arg-type]
    return service


@pytest.mark.usefixtures("service")
class TestWandbLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return WandbLogger(run, config)


@pytest.mark.usefixtures("service")
class TestMLflowLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return MLflowLogger(run, config)


@pytest.mark.usefixtures("service")
class TestTrackioLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return TrackioLogger(run, config)


def test_trackio_has_metrics_and_pictures_and_goes_on(service: Service, tmp_path: Path) -> None:
    for step in (5, 6):
        logger = TrackioLogger(tmp_path / "sweep" / "DAY" / "3_seed=1", {"seed": 1, "name": "try"})
        logger.log("autoencoder", "train", step, {"loss": 0.5})
        logger.picture("autoencoder", step, tmp_path / "a.png")
        logger.close("done")
    first, second = (options for _, options in service.given("init"))
    assert first == second
    assert (first["project"], first["group"], first["resume"]) == ("discrete-toolkit", "DAY", "allow")
    assert first["name"].startswith("try-")
    assert service.given("log")[0] == (({"autoencoder/train/loss": 0.5},), {"step": 5})
    assert service.given("Image")[0] == ((str(tmp_path / "a.png"),), {})
    assert len(service.given("finish")) == 2


def test_wandb_has_metrics_over_each_stages_steps(service: Service, tmp_path: Path) -> None:
    logger = WandbLogger(tmp_path / "3", {"seed": 1}, mode="offline", tags=("a",))
    logger.log("autoencoder", "train", 5, {"loss": 0.5})
    logger.picture("autoencoder", 6, tmp_path / "x.png")
    logger.log("prior-x", "val", 2, {"nll": 1.5})
    logger.close("failed")
    ((_, opened),) = service.given("init")
    assert (opened["name"], opened["group"], opened["resume"]) == ("3", tmp_path.name, "allow")
    assert (opened["mode"], opened["tags"], opened["config"]) == ("offline", ["a"], {"seed": 1})
    assert [args[0] for args, _ in service.given("define_metric")] == ["autoencoder/*", "prior-x/*"]
    values = [args[0] for args, _ in service.given("log")]
    assert values[0] == {"autoencoder/train/loss": 0.5, "autoencoder/step": 5}
    assert values[2] == {"prior-x/val/nll": 1.5, "prior-x/step": 2}
    assert set(values[1]) == {"autoencoder/samples", "autoencoder/step"}
    assert service.given("finish") == [((), {"exit_code": 1})]


def test_wandb_goes_on_in_the_same_run(service: Service, tmp_path: Path) -> None:
    for _ in range(2):
        WandbLogger(tmp_path / "run", {}).log("autoencoder", "train", 1, {"loss": 1.0})
    first, second = (options["id"] for _, options in service.given("init"))
    assert first == second


def test_mlflow_has_metrics_pictures_and_parameters(service: Service, tmp_path: Path) -> None:
    logger = MLflowLogger(tmp_path / "run", {"trainer": {"steps": 7}, "seed": 0})
    logger.log("autoencoder", "val", 5, {"nll": 0.5})
    logger.picture("autoencoder", 6, tmp_path / "x.png")
    logger.close("stopped")
    assert [args[1:] for args, _ in service.given("log_param")] == [("trainer.steps", "7"), ("seed", "0")]
    ((args, options),) = service.given("log_metric")
    assert (args[1:], options) == (("autoencoder/val/nll", 0.5), {"step": 5})
    assert [args[1:] for args, _ in service.given("log_artifact")] == [(str(tmp_path / "x.png"), "autoencoder")]
    assert [args[1] for args, _ in service.given("set_terminated")] == ["KILLED"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_without_its_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    loggers = {"wandb": WandbLogger, "mlflow": MLflowLogger}
    with pytest.raises(ValueError, match=rf"discrete-toolkit\[{name}\]"):
        loggers[name](Path("run"), {})
    assert loggers[name].missing_dependencies()


def test_a_table_has_a_row_for_each_line_of_the_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    log.append("autoencoder", "train", 1, {"loss": 1.5})
    log.append("autoencoder", "val", 1, {"nll": 2.5})
    CSVLogger(tmp_path).close("done")
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "stage,split,step,loss,nll",
        "autoencoder,train,1,1.5,",
        "autoencoder,val,1,,2.5",
    ]


class TestCountingLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return CountingLogger(run, config)


def last_validation(run: Path) -> dict[str, float]:
    lines = [line for line in Run(run).log if line["split"] == "val"]
    return {name: value for name, value in lines[-1].items() if name not in ("stage", "split", "step")}


@pytest.mark.usefixtures("writer")
def test_tensorboard_has_sound_where_the_data_is_sound(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, {})
    x = torch.randint(0, 8, (6, 2, 80))
    logger.examples("prior-x", 3, {"sample": x}, DataSpec(2, (80,), 8, rates=(8000.0,)))
    assert Writer.written == [(f"prior-x/sample/{i}", (80,), 8000, 3) for i in range(4)]
    Writer.written.clear()
    logger.examples("prior-x", 3, {"sample": x}, DataSpec(2, (80,), 8))
    logger.examples("prior-x", 3, {"sample": x}, DataSpec(2, (80,), 8, ordered=False, rates=(8000.0,)))
    assert Writer.written == []


@pytest.mark.usefixtures("writer")
def test_tensorboard_has_metrics_and_pictures_under_their_tags(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(compose([*WORDS, "logger=tensorboard", "stage=autoencoder"]).config, run, report=Notes())
    _, options, figures = Writer.written.pop()
    assert options["quantizer.codebook_size"] == 16
    assert figures == {f"autoencoder/val/{name}": value for name, value in last_validation(run).items()}
    counted = [entry for entry in Writer.written if "/codes_" in entry[0]]
    assert [(tag, step) for tag, _, step in counted] == [("autoencoder/codes_1", step) for step in (3, 6)]
    assert counted[0][1]["num"] == sum(counted[0][1]["bucket_counts"]) > 0
    assert len(counted[0][1]["bucket_limits"]) == 16
    scalars = [entry for entry in Writer.written if "/samples" not in entry[0] and entry not in counted]
    assert [(tag, step) for tag, _, step in scalars] == [
        (f"autoencoder/{line['split']}/{name}", line["step"])
        for line in Run(run).log
        for name in line
        if name not in ("stage", "split", "step")
    ]
    with Image.open(run / "samples" / "autoencoder-00000003.png") as image:
        shape = (image.height, image.width, 3)
    pictures = [entry for entry in Writer.written if "/samples" in entry[0]]
    assert pictures == [("autoencoder/samples", shape, step) for step in (3, 6)]
    assert (run / "tensorboard" / "events").is_file()


def test_without_its_package_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ToolkitError, match=r"^logger=tensorboard: needs .*pip install 'discrete-toolkit\[tensorboard\]'$"
    ):
        train(compose([*WORDS, "logger=tensorboard"]).config, tmp_path / "run", report=Notes())
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
def test_tensorboards_own_writer(tmp_path: Path) -> None:
    """Skipped where the package is not installed."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    logger = TensorBoardLogger(run, {"seed": 3, "quantizer": {"name": "vq", "levels": [1, 2]}})
    logger.log("autoencoder", "val", 1, {"loss": 0.5})
    Image.new("RGB", (6, 4)).save(tmp_path / "picture.png")
    logger.picture("autoencoder", 1, tmp_path / "picture.png")
    logger.examples("autoencoder", 1, {"original": torch.zeros(1, 1, 80)}, DataSpec(1, (80,), rates=(8000.0,)))
    film = torch.randint(0, 8, (2, 3, 5, 8, 6))
    logger.examples("autoencoder", 1, {"reconstruction": film}, DataSpec(3, (5, 8, 6), 8, rates=(10.0, None, None)))
    logger.histograms("autoencoder", 1, {"codes_1": torch.tensor([3.0, 0.0, 5.0])})
    logger.close("done")
    logger.close("done")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    assert tags["scalars"] == ["autoencoder/val/loss"]
    assert events.Scalars("autoencoder/val/loss")[0].value == 0.5
    assert tags["audio"] == ["autoencoder/original/0"]
    assert events.Audio("autoencoder/original/0")[0].sample_rate == 8000
    films = [f"autoencoder/reconstruction/{i}" for i in range(2)]
    assert tags["images"] == ["autoencoder/samples", *films]
    with Image.open(BytesIO(events.Images(films[0])[0].encoded_image_string)) as gif:
        assert (gif.format, gif.n_frames, gif.size) == ("GIF", 5, (6, 8))
    counted = events.Histograms("autoencoder/codes_1")[0].histogram_value
    assert (counted.num, counted.max, list(counted.bucket)) == (8.0, 2.0, [3.0, 0.0, 5.0])
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)


class HangingLogger(Logger):
    """Waits for ever from a call on, or when it is built."""

    def __init__(self, at: int = 0) -> None:
        self.calls, self.at = 0, at
        if not at:
            Event().wait()

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls == self.at:
            Event().wait()


def test_a_logger_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once; the other one hears of all the rest, and is closed."""
    monkeypatch.setattr("toolkit.logged.PATIENCE", 0.2)
    notes, other = Notes(), Recording()
    with Logged(notes) as logged:
        logged.add(iter({"stuck": HangingLogger(2), "other": other}.items()))
        for step in range(4):
            logged.metrics("train", step, {"loss": 1.0})
    (note,) = notes.notes
    assert_names(note, "logger=stuck … 0.2 s")
    assert other.heard == [0, 1, 2, 3, "done"]


def test_a_logger_that_hangs_while_it_is_built_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.logged.PATIENCE", 0.2)
    other = Recording()
    loggers = ((name, make()) for name, make in (("other", lambda: other), ("stuck", HangingLogger)))
    with pytest.raises(ToolkitError, match="after other has not answered"), Logged(Notes()) as logged:
        logged.add(loggers)
    assert other.heard == ["failed"]


class Recording(Logger):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.heard.append(step)

    def close(self, status: str) -> None:
        self.heard.append(status)
