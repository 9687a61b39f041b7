"""Names, classes and blame, over plugins written for the purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import registry
from toolkit.modules import locate
from toolkit.registry import RegistryError

METRIC = """
from toolkit.metric import Metric

class {name}(Metric):
    def update(self, x, output, conditions): ...
    def compute(self): return {{}}
"""


def write_plugin(folder: Path, package: str, points: dict[str, dict[str, str]], source: str) -> Path:
    home = folder / package
    (home / package).mkdir(parents=True)
    lines = ["[project]", f'name = "{package}-plugin"', 'version = "1.2"']
    for group, names in points.items():
        lines += [f'[project.entry-points."toolkit.{group}"]', *(f'{k} = "{v}"' for k, v in names.items())]
    (home / "pyproject.toml").write_text("\n".join(lines))
    (home / package / "__init__.py").write_text("raise RuntimeError('nobody should import me')")
    (home / package / "parts.py").write_text(source)
    return home


def write_module(home: Path, package: str, source: str) -> None:
    """A package that may be imported."""
    (home / package / "__init__.py").write_text("")
    (home / package / "parts.py").write_text(source)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(registry.PLUGIN_PATH, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_every_kind_has_an_interface_of_its_name() -> None:
    for kind, target in registry.REGISTERED.items():
        module, _, name = target.partition(":")
        assert module == f"toolkit.{kind}"
        assert getattr(__import__(module, fromlist=[name]), name).__name__.lower() == kind


def test_the_cores_own_parts_are_registered_like_a_strangers() -> None:
    assert {"vq", "ema", "product"} <= set(registry.names("quantizer"))
    assert registry.find("quantizer", "vq").distribution == "discrete-toolkit"
    assert issubclass(registry.load("metric", "codebook"), object)


def test_a_folder_of_plugins_and_a_plugin_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = write_plugin(tmp_path, "one", {"metric": {"count": "one.parts:Count"}}, "")
    for path in (tmp_path, home):
        monkeypatch.setenv(registry.PLUGIN_PATH, str(path))
        found = registry.find("metric", "count")
        assert (found.target, found.distribution, found.version) == ("one.parts:Count", "one-plugin", "1.2")
        assert found.folder == home


def test_several_folders_are_joined_as_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [write_plugin(tmp_path / name, name, {"prior": {name: f"{name}.parts:P"}}, "") for name in ("aa", "bb")]
    monkeypatch.setenv(registry.PLUGIN_PATH, os.pathsep.join(map(str, homes)))
    assert {"aa", "bb"} <= set(registry.names("prior"))


def test_load_imports_the_one_class_that_is_asked_for(plugins: Path) -> None:
    home = write_plugin(plugins, "two", {"metric": {"count": "two.parts:Count"}}, "")
    assert "count" in registry.names("metric")  # two/__init__.py raises where it is imported
    write_module(home, "two", METRIC.format(name="Count"))
    assert registry.load("metric", "count").__name__ == "Count"


def test_sources_below_src_are_found(plugins: Path) -> None:
    home = write_plugin(plugins, "three", {"metric": {"srced": "three.parts:Count"}}, "")
    write_module(home, "three", METRIC.format(name="Count"))
    (home / "src").mkdir()
    (home / "three").rename(home / "src" / "three")
    assert registry.load("metric", "srced").__name__ == "Count"


def test_a_name_that_is_not_installed_gets_its_neighbours() -> None:
    with pytest.raises(RegistryError) as error:
        registry.find("quantizer", "emma")
    assert "quantizer=emma is not installed (did you mean ema?)" in str(error.value)
    assert "installed: bsq, categorical, ema, " in str(error.value)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(RegistryError, match=r"encodr \(did you mean encoder"):
        registry.names("encodr")


def test_a_family_is_registered_like_a_part_and_is_none(plugins: Path) -> None:
    """A group that is nearly its name is told of, as those of parts are."""
    points = {"family": {"zeta_kin": "kin.parts:Mine"}, "familly": {"lost": "kin.parts:Mine"}}
    home = write_plugin(plugins, "kin", points, "")
    write_module(home, "kin", "from toolkit.family import Family\n\nclass Mine(Family): ...")
    assert registry.FAMILY not in registry.KINDS
    assert "zeta_kin" in registry.names("family")
    with pytest.raises(RegistryError, match="is incomplete: Family also needs data, entries, settings, "):
        registry.load("family", "zeta_kin")
    with pytest.raises(RegistryError, match=r"family zeta_kim is not installed \(did you mean zeta_kin\?\)"):
        registry.find("family", "zeta_kim")
    [problem] = registry.problems()
    assert "toolkit.familly are of no kind (did you mean toolkit.family" in problem


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n\nraise SystemExit('gone')", "SystemExit: gone"),
        ("def f(:\n  pass", "SyntaxError"),
        ("x = 1", "AttributeError"),
    ],
)
def test_a_class_that_does_not_import_is_blamed(plugins: Path, source: str, cause: str) -> None:
    package = f"broken{abs(hash(source))}"
    home = write_plugin(plugins, package, {"metric": {"bad": f"{package}.parts:Bad"}}, "")
    write_module(home, package, source)
    assert "bad" in registry.names("metric")
    with pytest.raises(RegistryError) as error:
        registry.load("metric", "bad")
    text = str(error.value)
    assert text.startswith(f"metric=bad ({package}-plugin 1.2; {package}.parts:Bad) does not import: {cause}")
    if cause != "AttributeError":
        assert f"parts.py:{3 if 'SystemExit' in cause else 1}" in text


def test_a_target_that_names_no_class_is_blamed(plugins: Path) -> None:
    write_plugin(plugins, "spelt", {"metric": {"bad": "spelt.parts"}}, "")
    with pytest.raises(RegistryError, match="is not written module:Class"):
        registry.load("metric", "bad")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("class Wrong: ...", "does not subclass toolkit.metric:Metric"),
        ("def Wrong(): ...", "does not subclass toolkit.metric:Metric"),
        (METRIC.format(name="Wrong").replace("compute", "other"), "is incomplete: Metric also needs compute"),
    ],
)
def test_a_class_that_keeps_no_interface_is_refused(plugins: Path, source: str, what: str) -> None:
    package = f"wrong{abs(hash(source))}"
    home = write_plugin(plugins, package, {"metric": {"wrong": f"{package}.parts:Wrong"}}, "")
    write_module(home, package, source)
    with pytest.raises(RegistryError) as error:
        registry.load("metric", "wrong")
    assert what in str(error.value)


def test_a_name_claimed_twice_hurts_only_who_selects_it(plugins: Path) -> None:
    for package in ("left", "right"):
        home = write_plugin(plugins, package, {"metric": {"shared": f"{package}.parts:M"}}, "")
        write_module(home, package, METRIC.format(name="M"))
    assert registry.names("metric").count("shared") == 1
    assert registry.load("metric", "codebook")
    with pytest.raises(RegistryError, match=r"claimed by left-plugin 1\.2 .*and right-plugin 1\.2"):
        registry.find("metric", "shared")


def test_a_plugin_folder_stands_before_an_installation_of_the_same_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write_plugin(tmp_path, "mine", {"quantizer": {"vq": "mine.parts:Q"}}, "")
    project = home / "pyproject.toml"
    project.write_text(project.read_text().replace("mine-plugin", "discrete_toolkit"))
    monkeypatch.setenv(registry.PLUGIN_PATH, str(home))
    assert registry.find("quantizer", "vq").target == "mine.parts:Q"


@pytest.mark.parametrize("text", ["[project", "project = 3", '[project.entry-points]\n"toolkit.metric" = "x"', "\xff"])
def test_a_project_that_cannot_be_read_is_a_problem_and_stops_nothing(plugins: Path, text: str) -> None:
    home = write_plugin(plugins, f"torn{abs(hash(text))}", {}, "")
    (home / "pyproject.toml").write_bytes(text.encode("latin-1"))
    assert "vq" in registry.names("quantizer")
    [problem] = registry.problems()
    assert str(home / "pyproject.toml") in problem


def test_a_folder_without_plugins_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.PLUGIN_PATH, str(tmp_path / "nowhere"))
    assert "nowhere holds no pyproject.toml" in registry.problems()[0]
    with pytest.raises(RegistryError, match=r"note: .*nowhere"):
        registry.find("metric", "nope")


@pytest.mark.parametrize("packaged", [True, False])
def test_conf_folders_are_found_without_importing(plugins: Path, packaged: bool) -> None:
    package = f"yaml{packaged}".lower()
    home = write_plugin(plugins, package, {"conf": {package: f"{package}.conf"}}, "")
    (home / package / "conf").mkdir()
    if packaged:
        (home / package / "conf" / "__init__.py").write_text("raise RuntimeError")
    assert (f"{package}-plugin", home / package / "conf") in registry.conf_folders()


def test_locate_imports_neither_the_module_nor_its_parents(plugins: Path) -> None:
    home = write_plugin(plugins, "asleep", {}, "raise RuntimeError")
    assert locate("asleep.parts", home) == home / "asleep" / "parts.py"
    assert locate("asleep.nothing", home) is None
    assert locate("asleep.parts") is None
    assert "asleep" not in sys.modules


def test_an_editable_installation_is_read_from_its_project(tmp_path: Path) -> None:
    home = write_plugin(tmp_path, "live", {"metric": {"fresh": "live.parts:M"}}, "")
    info = tmp_path / "site" / "live_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: live-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toolkit.metric]\nstale = live.parts:M\n")
    (info / "direct_url.json").write_text(f'{{"dir_info": {{"editable": true}}, "url": "{home.as_uri()}"}}')
    code = "from toolkit import registry; print(*registry.names('metric'))"
    env = {**os.environ, "PYTHONPATH": str(info.parent)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "fresh" in out.stdout.split()
    assert "stale" not in out.stdout.split()


def test_reading_names_imports_no_torch() -> None:
    code = (
        "import sys; from toolkit import registry\n"
        "for kind in registry.KINDS: registry.names(kind)\n"
        "registry.conf_folders(); print('torch' in sys.modules, 'toolkit_image' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
