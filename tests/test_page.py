"""A run as a page: what it shows is what the folder holds, nothing leaves it, and nothing in it is run."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from messages import assert_names
from PIL import Image
from toys import PIXELCNN, TILES, TOY, VQ, trainers

from toolkit import compose
from toolkit.__main__ import run as command
from toolkit.cli import watch
from toolkit.cli.watch import server_of, state_of
from toolkit.page.configuration import changes, settings
from toolkit.page.contents import contents_of
from toolkit.page.curves import HEIGHT, POINTS, WIDTH, Series, chart, shown, stages_of
from toolkit.page.media import media_of
from toolkit.page.render import page_of
from toolkit.runs.best import Best, write_best
from toolkit.runs.folder import Run, write_config
from toolkit.runs.plain import write_yaml

EVERY = ["batch_size=4", "workers=0", "log_every=2", "checkpoint_every=3", "validate_every=3", "pictures_every=3"]
WORDS = [*TILES, *VQ, *PIXELCNN, *trainers("steps=6", *EVERY), "prior_trainer.allow_collapsed=true"]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))
        folder = tmp_path_factory.mktemp("page") / "run <b>&"
        assert command(["train", *WORDS, "logger=[report]", f"hydra.run.dir='{folder}'"]) == 0
    return folder


class Reader(HTMLParser):
    """Collects what a page refers to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.long
def test_the_page_shows_what_the_run_holds(trained: Path) -> None:
    assert command(["report", f"run={trained}"]) == 0
    page = Reader((trained / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == len(list(trained.glob("samples/*.png")))
    for word in ("run <b>&", "bits_per_dim", "trainer.steps", "prior-pixelcnn", "toy_tiles"):
        assert word in page.text, word
    lines = [line for line in Run(trained).log if line["stage"] == "autoencoder" and "loss" in line]
    assert shown(lines[-1]["loss"]) in page.text


@pytest.mark.long
def test_nothing_leaves_the_page(trained: Path) -> None:
    text = page_of(contents_of(Run(trained)))
    page = Reader(text)
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_a_page_is_written_when_training_ends(trained: Path) -> None:
    assert (trained / "report.html").is_file()


def test_what_a_validation_warns_of_stands_at_the_top(tmp_path: Path) -> None:
    few = ["quantizer.codebook_size=4096", "stage=autoencoder"]
    assert command(["train", *WORDS, *few, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    (warning,) = contents_of(Run(tmp_path / "run")).warnings
    assert warning.startswith("at step 3 few codes were counted")


def test_notes_that_differ_in_their_step_alone_are_one(tmp_path: Path) -> None:
    """Such as those of a validation before and after a run was stopped: the newest is kept."""
    write_config(tmp_path, compose(*WORDS))
    said = ["at step 3 few: a", "at step 3 few: b", "plain", "at step 1,200 few: a", "plain", "lies at step 3 few: a"]
    (tmp_path / "log.txt").write_text("".join(f"2026-01-01 00:00:00 note: {text}\n" for text in said))
    kept = ["at step 1,200 few: a", "at step 3 few: b", "plain", "lies at step 3 few: a"]
    assert contents_of(Run(tmp_path)).warnings == kept


def test_an_option_that_must_be_given_has_no_default() -> None:
    (_, root) = settings({"dataset": {"name": "image_folder", "root": "photos"}})
    assert (root.key, root.value, root.default) == ("dataset.root", "photos", "")


def test_a_strangers_text_stays_text(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    line = {"stage": evil, "split": evil, "step": 1, evil: 2.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "log.txt").write_text(f"2026-01-01 00:00:00 note: {evil}\n")
    (folder / "evaluation.json").write_text(json.dumps({"split": evil, evil: 1.0, "priors": {evil: {evil: 1}}}))
    config = Run(folder).config_values() | {"name": evil}
    began = {"experiment": {"name": f"began {evil}", "instead_of": {f"key {evil}": f"own {evil}", "name": "mine"}}}
    (folder / "config.yaml").write_text(write_yaml(config | began))
    page = Reader(page_of(contents_of(Run(folder))))
    assert page.tags.count("script") == 1
    assert "x" not in page.links
    for text in (evil, f"began {evil}", f"key {evil}", f"own {evil}"):
        assert text in page.text


def test_files_that_are_not_what_they_are_called_are_left_out(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    (folder / "samples" / "film.webm").write_bytes(b"<script>")
    (folder / "samples" / "draw").mkdir()
    (folder / "samples" / "draw" / "sample-0000.wav").write_bytes(b"RIFF and so on")
    (folder / "samples" / "notes.txt").write_text("no medium")
    media = media_of(Run(folder))
    assert [item.kind for item in media.draws["draw"]] == ["sound"]
    assert [line.partition(":")[0] for line in media.left_out] == ["film.webm"]


def test_a_page_is_no_larger_than_its_budget(trained: Path, tmp_path: Path) -> None:
    """The newest pictures stay, and what is left out is named."""
    folder = copied(trained, tmp_path)
    for step in range(100, 200):
        Image.effect_noise((64, 64), 50).save(folder / "samples" / f"autoencoder-{step:08d}.png")
    whole = media_of(Run(folder))
    steps = [picture.step for picture in whole.stages["autoencoder"]]
    assert (len(steps), steps[-1]) == (40, 199)
    small = media_of(Run(folder), 30000)
    kept = [picture.step for picture in small.stages["autoencoder"]]
    assert 199 in kept
    assert len(kept) < 12
    assert sum(len(picture.uri) for picture in small.stages["autoencoder"]) <= 30000 * 4 / 3 + 200
    assert any(line.startswith("autoencoder-00000003.png") for line in small.left_out)


def test_several_runs_share_a_page(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copied(trained, tmp_path)
    out = tmp_path / "both.html"
    assert command(["report", str(trained), str(other), f"out={out}"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = Reader(out.read_text(encoding="utf-8"))
    assert page.text.count("Configuration") == 2
    assert "Side by side" in page.text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["report"], "toolkit report: no run … run=DIR"),
        (["report", "run=nowhere"], "toolkit report: run=nowhere … no such folder"),
        (["watch", "run=nowhere"], "toolkit watch: run=nowhere … no such folder"),
        (["watch", "run=x", "port=70000"], "toolkit watch: port=70000 … 65535"),
    ],
)
def test_wrong_words(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words) == 2
    assert_names(capsys.readouterr().err, named)


def test_watching_comes_after_the_training(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = SimpleNamespace(server_address=("127.0.0.1", 1), serve_forever=lambda: asked.append("served"))
    asked: list[object] = []
    monkeypatch.setattr(watch, "server_of", lambda *_: nullcontext(served))
    monkeypatch.setattr("os.nice", asked.append, raising=False)
    assert command(["watch", f"run={trained}"]) == 0
    assert asked == [19, "served"]


def test_watching_serves_the_page_to_this_machine_alone(trained: Path, tmp_path: Path) -> None:
    run = Run(copied(trained, tmp_path))
    with server_of(run, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert server.server_address[0] == "127.0.0.1"
        before = fetched(f"{address}/state")
        assert 'data-live="1"' in fetched(f"{address}/")
        run.log.append("autoencoder", "train", 8, {"loss": 1.25})
        assert fetched(f"{address}/state") != before
        assert "1.25" in fetched(f"{address}/")
        for path, host in (("/config.yaml", "127.0.0.1"), ("/../log.txt", "127.0.0.1"), ("/", "evil.example")):
            request = urllib.request.Request(address + path, headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request)
        server.shutdown()
    assert state_of(run) == state_of(run)


def test_a_chart_lies_within_its_picture() -> None:
    points = [(float(x), 1000.0 / (x + 1)) for x in range(5000)]
    drawn = chart("loss", [Series("train", 0, False, points), Series("val", 1, False, [(4.0, 3.0)])])
    places = [tuple(map(float, place.split(","))) for place in drawn.lines[0][1:].split("L")]
    assert len(places) <= POINTS + 1
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert [y for _, y in places] == sorted(y for _, y in places), "a falling line falls"
    assert drawn.series[0].points[-1] == points[-1]
    assert len(drawn.dots[1]) == 1
    assert len(drawn.y_ticks) >= 2


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-1.0, 1.0], [1e-9, 1e9], [3.0, 3.0000001]])
def test_any_values_have_axes(values: list[float]) -> None:
    drawn = chart("x", [Series("train", 0, False, [(float(i), value) for i, value in enumerate(values)])])
    assert all(0 <= tick.at <= HEIGHT for tick in drawn.y_ticks)


def test_values_that_are_not_finite_are_no_points() -> None:
    lines = [{"stage": "a", "split": "train", "step": i, "loss": v} for i, v in enumerate([1.0, float("nan"), 2.0])]
    (one,) = stages_of({"run": lines})["a"]
    assert one.series[0].points == [(0.0, 1.0), (2.0, 2.0)]


def test_the_best_checkpoint_is_marked(trained: Path, tmp_path: Path) -> None:
    """In each chart of its stage at its step, with a dot on the figure that it was chosen by, and among those kept."""
    folder = copied(trained, tmp_path)
    assert all(one.best is None for charts in contents_of(Run(folder)).stages.values() for one in charts)
    (line,) = [one for one in Run(folder).log if (one["stage"], one["split"], one["step"]) == ("autoencoder", "val", 3)]
    write_best(folder / "autoencoder", Best("val/nmse", "min", 3, line["nmse"]))
    contents = contents_of(Run(folder))
    nmse, *others = sorted(contents.stages["autoencoder"], key=lambda one: one.title != "nmse")
    (val,) = [index for index, series in enumerate(nmse.series) if series.label == "val"]
    places = [tuple(map(float, place.split(","))) for place in nmse.lines[val][1:].split("L")]
    assert nmse.best is not None
    assert nmse.best.dot == places[0]
    assert {(one.best.step, one.best.dot) for one in others if one.best} == {(3, None)}
    assert all(one.best is None for one in contents.stages["prior-pixelcnn"])
    (kept,) = [table.rows for table in contents.tables if table.title == "Checkpoints"]
    assert [row for row in kept if row[0] == "autoencoder"] == [
        ("autoencoder", "6", "last"),
        ("autoencoder", "3", f"best: val/nmse {shown(line['nmse'])}"),
    ]
    assert Reader(page_of(contents)).text.count("best at 3") == 1


def test_a_best_that_is_not_of_the_curves_is_no_mark() -> None:
    """Such as one of a log that was cut, or of a file that is not ours."""
    points = [(float(step), 1.0 / step) for step in range(1, 9)]
    for best in (Best("val/loss", "min", 20, 0.1), Best("val/loss", "min", 0, 1.0)):
        assert chart("loss", [Series("val", 0, False, points)], best=best).best is None
    far = chart("loss", [Series("val", 0, False, points)], best=Best("val/loss", "min", 4, float("inf"))).best
    assert far is not None
    assert far.dot is None


def test_what_was_changed_of_an_experiment_is_listed() -> None:
    """As the run has it now, with the experiment's own values, where it has any; what was changed back is not."""
    own = {"quantizer": "ema", "trainer.steps": 2000, "seed": 0, "logger.csv": None, "metric.strict": "strict"}
    own |= {"dataset.root": None, "trainer.critic_betas": None}
    config = {"seed": 0, "quantizer": {"name": "fsq", "levels": [8]}, "metric": {}, "logger": {"csv": {"name": "csv"}}}
    config |= {"dataset": {"name": "image_folder", "root": "photos"}}
    config["trainer"] = {"steps": 5, "critic_betas": [0.5, 0.9]}
    found = changes({**config, "experiment": {"name": "image_shapes", "instead_of": own}})
    assert found is not None
    assert found.experiment == "image_shapes"
    assert found.settings == [
        ("quantizer", "fsq", "ema"),
        ("trainer.steps", "5", "2000"),
        ("logger.csv", "csv", ""),
        ("metric.strict", "null", "strict"),
        ("dataset.root", "photos", ""),
        ("trainer.critic_betas", "[0.5,0.9]", "null"),
    ]
    assert changes(config) is None
    assert changes({**config, "experiment": "<b>"}) is None
    assert not any(one.key.startswith("experiment") for one in settings({**config, "experiment": {"name": "x"}}))


def test_settings_are_choices_and_what_is_not_default(trained: Path) -> None:
    listed = {one.key: (one.value, one.default) for one in settings(Run(trained).config_values())}
    assert listed["trainer.steps"] == ("6", "10000")
    assert listed["quantizer"][0] == "vq"
    assert "trainer.learning_rate_factors" not in listed


def copied(run: Path, to: Path) -> Path:
    import shutil

    folder = to / "copy"
    shutil.copytree(run, folder)
    (folder / "report.html").unlink(missing_ok=True)
    return folder


def fetched(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        text: str = answer.read().decode("utf-8")
        return text
