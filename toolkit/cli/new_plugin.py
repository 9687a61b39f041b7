"""``toolkit new-plugin``: a package with a small working part for each that is asked for, and its tests."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from toolkit import registry
from toolkit.cli.arguments import parse
from toolkit.errors import ToolkitError
from toolkit.registry import KINDS, did_you_mean

TEMPLATES = Path(__file__).with_name("template")
PRESETS = {
    "dataset": ("large", "size: 32"),
    "encoder": ("wide", "hidden: 128"),
    "quantizer": ("small", "codebook_size: 64"),
    "decoder": ("wide", "hidden: 128"),
    "likelihood": ("narrow", "scale: 0.1"),
    "objective": ("strong", "weight: 1.0"),
    "prior": ("slow", "speed: 4.0"),
    "metric": ("strict", "threshold: 0.1"),
}
"""By kind, what a preset is called behind the part's name, and what it says."""
MODEL = {
    "dataset": "waves",
    "encoder": "patch",
    "quantizer": "ema",
    "decoder": "patch",
    "likelihood": "categorical",
    "objective": "elbo",
    "prior": "pixelcnn",
}
"""The parts of the experiment that the new ones take their places in."""
METRICS = ("reconstruction", "codebook")
WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class NewPluginOptions:
    """Writes a package that is ready to be installed: a small working part for each component, in a file of its own
    with its test, a preset, an experiment that uses them, README, CHANGELOG and a workflow that runs the tests."""

    files: list[Path] = field(default_factory=list, metadata={"help": "one folder that is not there yet, or is empty"})
    component: list[str] = field(
        default_factory=list,
        metadata={"help": "KIND=NAME, such as quantizer=my_quantizer; give the word as often as you like"},
    )


@dataclass(frozen=True)
class Component:
    """One part to be written."""

    kind: str
    name: str

    @property
    def cls(self) -> str:
        words = "".join(word.capitalize() for word in self.name.split("_"))
        return words if words.lower().endswith(self.kind) else f"{words}{self.kind.capitalize()}"

    @property
    def preset(self) -> str:
        return f"{self.name}_{PRESETS[self.kind][0]}"


def main(args: list[str]) -> int:
    path, components = _asked(args)
    package = _package(path)
    home = path.expanduser().absolute()
    if home.is_file() or (home.is_dir() and any(home.iterdir())):
        raise ToolkitError(f"{path} is there already: name a folder that is not, or is empty")
    try:
        _write(home, {**_project(path.name, package, components), **_parts(package, components)})
    except OSError as e:
        raise ToolkitError(f"{path}: {e.strerror or e}") from e
    print(f"{path}: {', '.join(f'{each.kind}={each.name}' for each in components)}; next:")
    print(f'  pip install -e "{path}[test]" && pytest {path}')
    print(f"  toolkit train experiment={package}")
    print(path)
    return 0


def _asked(args: Sequence[str]) -> tuple[Path, list[Component]]:
    """``--component KIND=NAME`` is how it is written; ``component=KIND=NAME`` is the same."""
    words, wanted, rest = [], list[str](), list(args)
    while rest:
        word = rest.pop(0)
        if word == "--component" and rest:
            wanted.append(rest.pop(0))
        elif word.startswith(("--component=", "component=")):
            wanted.append(word.partition("=")[2])
        else:
            words.append(word)
    options = parse("new-plugin", NewPluginOptions, words)
    if len(options.files) != 1:
        raise ToolkitError("name one folder: toolkit new-plugin PATH --component KIND=NAME")
    if not wanted:
        raise ToolkitError(f"of what? Add --component KIND=NAME; kinds: {', '.join(KINDS)}")
    components = [_component(word) for word in wanted]
    names = [each.name for each in components]
    for name in names:
        if names.count(name) > 1:
            raise ToolkitError(f"--component: two parts are called {name}: each needs a name, and a file, of its own")
    return options.files[0], components


def _component(word: str) -> Component:
    kind, separator, name = word.partition("=")
    if not separator or not WORD.fullmatch(name):
        raise ToolkitError(
            f"--component {word}: write KIND=NAME, the name in small letters, digits and _, such as quantizer=my_own"
        )
    if kind not in KINDS:
        raise ToolkitError(
            f"--component {word}: no kind of component is called {kind}{did_you_mean(kind, KINDS)}; kinds:"
            f" {', '.join(KINDS)}"
        )
    for taken in registry.registrations(kind):
        if taken.name == name:
            raise ToolkitError(f"--component {word}: {taken.distribution} brings a {word} already: choose another name")
    return Component(kind, name)


def _package(path: Path) -> str:
    package = path.name.replace("-", "_")
    if not WORD.fullmatch(package):
        raise ToolkitError(f"{path}: a package's name is of small letters, digits, - and _, such as my-plugin")
    if importlib.util.find_spec(package) is not None:
        raise ToolkitError(f"{path}: there is a module {package} already: choose another name")
    return package


def _project(folder: str, package: str, components: Sequence[Component]) -> dict[str, str]:
    """What a package has once."""
    parts = ", ".join(f"{each.kind} `{each.name}`" for each in components)
    values = {
        "distribution": folder.replace("_", "-"),
        "package": package,
        "parts": parts[0].upper() + parts[1:],
        "summary": f"Parts for discrete-toolkit: {', '.join(each.name for each in components)}",
        "core": _core(),
        "points": _points(package, components),
        "table": "\n".join(f"| `{each.kind}={each.name}` | {_first_line(each.kind)} |" for each in components),
    }
    files = {name: _filled(name, values) for name in ("pyproject.toml", "README.md", "CHANGELOG.md")}
    return files | {
        ".gitignore": _filled("gitignore", values),
        ".github/workflows/test.yml": _filled("test.yml", values),
        f"{package}/__init__.py": f'"""{values["summary"]}."""\n',
        f"{package}/py.typed": "",
        f"{package}/conf/experiment/{package}.yaml": _experiment(values["summary"], components),
        "tests/test_package.py": _filled("test_package.py", values),
    }


def _parts(package: str, components: Sequence[Component]) -> dict[str, str]:
    """What each component has of its own."""
    files = {}
    for each in components:
        values = {"package": package, "name": each.name, "Class": each.cls}
        files[f"{package}/{each.name}.py"] = _filled(f"{each.kind}.py", values)
        files[f"tests/test_{each.name}.py"] = _filled(f"test_{each.kind}.py", values)
        files[f"{package}/conf/{each.kind}/{each.preset}.yaml"] = _preset(each)
    return files


def _preset(component: Component) -> str:
    line = PRESETS[component.kind][1]
    header = f"# @package metric.{component.name}\n" if component.kind == "metric" else ""
    return f"{header}defaults: [{component.name}, _self_]\n{line}\n"


def _experiment(summary: str, components: Sequence[Component]) -> str:
    chosen = MODEL | {each.kind: each.name for each in reversed(components)}
    metrics = [*METRICS, *(each.name for each in components if each.kind == "metric")]
    lines = ["# @package _global_", f"# {summary}.", "defaults:"]
    lines += [f"  - override /{kind}: {chosen[kind]}" for kind in MODEL]
    lines += [f"  - override /metric: [{', '.join(metrics)}]", "", "dim: 16"]
    trainer = "{steps: 500, batch_size: 32, learning_rate: 1.0e-3, validate_every: 100, checkpoint_every: 500}"
    return "\n".join([*lines, f"trainer: {trainer}", f"prior_trainer: {trainer}", ""])


def _points(package: str, components: Sequence[Component]) -> str:
    lines = []
    for kind in KINDS:
        targets = [f'{each.name} = "{package}.{each.name}:{each.cls}"' for each in components if each.kind == kind]
        lines += [f'[project.entry-points."toolkit.{kind}"]', *targets, ""] if targets else []
    return "\n".join(lines)


def _first_line(kind: str) -> str:
    """What a template's module says of itself, without its kind."""
    text = (TEMPLATES / f"{kind}.py.txt").read_text(encoding="utf-8").partition("\n")[0].strip('".')
    return text.partition(": ")[2]


def _core() -> str:
    """The versions that keep this one's interfaces: before 1.0, those of the same minor version."""
    from importlib.metadata import version

    major, minor = version(registry.CORE).split(".")[:2]
    upper = f"{int(major) + 1}" if int(major) else f"0.{int(minor) + 1}"
    return f">={major}.{minor},<{upper}"


def _filled(name: str, values: Mapping[str, str]) -> str:
    return Template((TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")).substitute(values)


def _write(home: Path, files: Mapping[str, str]) -> None:
    """All files, or none: they are written beside, and moved."""
    home.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        for name, text in files.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        aside.chmod(0o777 & ~_umask())
        os.replace(aside, home)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
