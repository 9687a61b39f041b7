"""Every logger of a package, in its own files or over a stand-in of its service."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from logged_runs import WORDS, Notes
from PIL import Image
from toys import TOY

from toolkit import DataSpec, Logger, ToolkitError
from toolkit.cli.config.compose import compose
from toolkit.loggers.csv import CSVLogger
from toolkit.loggers.mlflow import MLflowLogger
from toolkit.loggers.report import ReportLogger
from toolkit.loggers.tensorboard import TensorBoardLogger
from toolkit.loggers.trackio import TrackioLogger
from toolkit.loggers.wandb import WandbLogger
from toolkit.runs.folder import Run
from toolkit.runs.log import Log
from toolkit.stages.run import train
from toolkit.testing import LoggerSuite


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


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
    began = {"name": "small", "instead_of": {"seed": 3}}
    logger = MLflowLogger(tmp_path / "run", {"trainer": {"steps": 7}, "seed": 0, "experiment": began})
    logger.log("autoencoder", "val", 5, {"nll": 0.5})
    logger.picture("autoencoder", 6, tmp_path / "x.png")
    logger.close("stopped")
    parameters = [("trainer.steps", "7"), ("seed", "0"), ("experiment.name", "small")]
    assert [args[1:] for args, _ in service.given("log_param")] == parameters
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
def test_hyperparameters_are_the_runs_own_values(tmp_path: Path) -> None:
    """What its experiment had instead of them is none."""
    config = {"trainer": {"steps": 7}, "experiment": {"name": "small", "instead_of": {"trainer.steps": 3}}}
    logger = TensorBoardLogger(tmp_path, config)
    logger.log("autoencoder", "val", 1, {"loss": 0.5})
    logger.close("done")
    assert Writer.written[-1][1] == {"trainer.steps": 7, "experiment.name": "small"}


@pytest.mark.usefixtures("writer")
def test_tensorboard_has_metrics_and_pictures_under_their_tags(tmp_path: Path) -> None:
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
