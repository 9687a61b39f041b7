"""``toolkit new-plugin``: a package with a small working part for each component asked for, and its tests."""

from __future__ import annotations

import importlib.util
import keyword
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
from toolkit.registry import HOSTS, LISTS, PARTS, did_you_mean

TEMPLATES = Path(__file__).with_name("template")
PRESETS = {
    "dataset": ("large", "size: 32"),
    "encoder": ("wide", "hidden: 128"),
    "quantizer": ("small", "codebook_size: 64"),
    "decoder": ("wide", "hidden: 128"),
    "likelihood": ("narrow", "scale: 0.1"),
    "objective": ("strong", "weight: 1.0"),
    "discriminator": ("wide", "hidden: 128"),
    "conditioner": ("wide", "hidden: 128"),
    "prior": ("slow", "speed: 4.0"),
    "metric": ("strict", "threshold: 0.1"),
    "logger": ("brief", "digits: 3"),
}
"""By kind, the suffix of the preset's name and its content."""
MODEL = {
    "dataset": "waves",
    "encoder": "patch",
    "quantizer": "ema",
    "decoder": "patch",
    "likelihood": "categorical",
    "objective": "elbo",
    "prior": "pixelcnn",
}
"""The parts of the experiment, which the new ones replace."""
LISTED = {"metric": ("reconstruction", "codebook"), "logger": ()}
"""The parts of the experiment's lists, to which the new ones are added."""
WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class NewPluginOptions:
    """Writes a package that is ready to install: a small working part for each component, in its own file
    with its test, a preset, an experiment that uses them, README, CHANGELOG and a workflow that runs the tests."""

    files: list[Path] = field(
        default_factory=list, metadata={"help": "one folder that does not exist yet, or is empty"}
    )
    component: list[str] = field(
        default_factory=list,
        metadata={"help": "KIND=NAME, such as quantizer=my_quantizer; may be given several times"},
    )


@dataclass(frozen=True)
class Component:
    """A part to write."""

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
        raise ToolkitError(f"{path} exists already: name a folder that does not, or is empty")
    try:
        _write(home, {**_project(path.name, package, components), **_parts(package, components)})
    except OSError as e:
        raise ToolkitError(f"{path}: {e.strerror or e}") from e
    print(f"{path}: {', '.join(f'{part.kind}={part.name}' for part in components)}; next:")
    print(f'  pip install -e "{path}[test]" && pytest {path}')
    print(f"  toolkit train experiment={package}")
    print(path)
    return 0


def _asked(args: Sequence[str]) -> tuple[Path, list[Component]]:
    """The folder and the components; ``component=KIND=NAME`` is the same as ``--component KIND=NAME``."""
    words, wanted, remaining = [], list[str](), list(args)
    while remaining:
        word = remaining.pop(0)
        if word == "--component" and remaining:
            wanted.append(remaining.pop(0))
        elif word.startswith(("--component=", "component=")):
            wanted.append(word.partition("=")[2])
        else:
            words.append(word)
    options = parse("new-plugin", NewPluginOptions, words)
    if len(options.files) != 1:
        raise ToolkitError("name one folder: toolkit new-plugin PATH --component KIND=NAME")
    if not wanted:
        raise ToolkitError(f"no component: add --component KIND=NAME; kinds: {', '.join(PARTS)}")
    components = [_component(word) for word in wanted]
    names = [part.name for part in components]
    for name in names:
        if names.count(name) > 1:
            raise ToolkitError(f"--component: two parts are called {name}: each needs its own name and file")
    return options.files[0], components


def _component(word: str) -> Component:
    kind, separator, name = word.partition("=")
    if not separator or not WORD.fullmatch(name):
        raise ToolkitError(
            f"--component {word}: write KIND=NAME, the name in small letters, digits and _, such as quantizer=my_own"
        )
    _not_python(name, f"--component {word}")
    if kind not in PARTS:
        raise ToolkitError(
            f"--component {word}: no kind of component is called {kind}{did_you_mean(kind, PARTS)}; kinds:"
            f" {', '.join(PARTS)}"
        )
    for taken in registry.registrations(kind):
        if taken.name == name:
            raise ToolkitError(f"--component {word}: {taken.distribution} provides {word} already: choose another name")
    return Component(kind, name)


def _not_python(name: str, where: str) -> None:
    if keyword.iskeyword(name):
        raise ToolkitError(f"{where}: {name} is a word of Python, which no module can be called: choose another name")


def _package(path: Path) -> str:
    package = path.name.replace("-", "_")
    if not WORD.fullmatch(package):
        raise ToolkitError(f"{path}: a package's name consists of small letters, digits, - and _, such as my-plugin")
    _not_python(package, str(path))
    if importlib.util.find_spec(package) is not None:
        raise ToolkitError(f"{path}: a module {package} exists already: choose another name")
    return package


def _project(folder: str, package: str, components: Sequence[Component]) -> dict[str, str]:
    """The package's own files."""
    parts = ", ".join(f"{part.kind} `{part.name}`" for part in components)
    values = {
        "distribution": folder.replace("_", "-"),
        "package": package,
        "parts": parts[0].upper() + parts[1:],
        "summary": f"Parts for discrete-toolkit: {', '.join(part.name for part in components)}",
        "core": _core(),
        "points": _points(package, components),
        "table": "\n".join(
            f"| `{registry.key(part.kind)}={part.name}` | {_first_line(part.kind)} |" for part in components
        ),
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
    """The files of each component."""
    files = {}
    for part in components:
        values = {"package": package, "name": part.name, "Class": part.cls}
        files[f"{package}/{part.name}.py"] = _filled(f"{part.kind}.py", values)
        files[f"tests/test_{part.name}.py"] = _filled(f"test_{part.kind}.py", values)
        files[f"{package}/conf/{_group(part.kind)}/{part.preset}.yaml"] = _preset(part)
    return files


def _preset(component: Component) -> str:
    line = PRESETS[component.kind][1]
    header = f"# @package {component.kind}.{component.name}\n" if component.kind in LISTS else ""
    return f"{header}defaults: [{component.name}, _self_]\n{line}\n"


def _experiment(summary: str, components: Sequence[Component]) -> str:
    own = {part.kind: part.name for part in reversed(components)}
    # a part that stands inside another needs one that has it
    inner = {kind: name for kind, name in own.items() if kind in HOSTS and HOSTS[kind][0] not in own}
    chosen = MODEL | dict(HOSTS[kind] for kind in inner) | own
    lists = {kind: [*LISTED[kind], *(part.name for part in components if part.kind == kind)] for kind in LISTS}
    lines = ["# @package _global_", f"# {summary}.", "defaults:"]
    lines += [f"  - override /{kind}: {chosen[kind]}" for kind in MODEL]
    lines += [f"  - override /{_group(kind)}: {name}" for kind, name in inner.items()]
    lines += [f"  - override /{kind}: [{', '.join(names)}]" for kind, names in lists.items() if names]
    lines += ["", "dim: 16"]
    trainer = "{steps: 500, batch_size: 32, learning_rate: 1.0e-3, validate_every: 100, checkpoint_every: 500}"
    return "\n".join([*lines, f"trainer: {trainer}", f"prior_trainer: {trainer}", ""])


def _group(kind: str) -> str:
    """Hydra's group of a kind."""
    return registry.key(kind).replace(".", "/")


def _points(package: str, components: Sequence[Component]) -> str:
    lines = []
    for kind in PARTS:
        targets = [f'{part.name} = "{package}.{part.name}:{part.cls}"' for part in components if part.kind == kind]
        lines += [f'[project.entry-points."toolkit.{kind}"]', *targets, ""] if targets else []
    return "\n".join(lines)


def _first_line(kind: str) -> str:
    """The first line of a template's docstring, without the kind."""
    text = (TEMPLATES / f"{kind}.py.txt").read_text(encoding="utf-8").partition("\n")[0].strip('".')
    return text.partition(": ")[2]


def _core() -> str:
    """The core's versions with this one's interfaces: before 1.0, those of the same minor version."""
    from importlib.metadata import version

    major, minor = version(registry.CORE).split(".")[:2]
    upper = f"{int(major) + 1}" if int(major) else f"0.{int(minor) + 1}"
    return f">={major}.{minor},<{upper}"


def _filled(name: str, values: Mapping[str, str]) -> str:
    return Template((TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")).substitute(values)


def _write(home: Path, files: Mapping[str, str]) -> None:
    """Writes all files or none, by way of a temporary folder."""
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        for name, text in files.items():
            file = temporary / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        temporary.chmod(0o777 & ~_umask())
        os.replace(temporary, home)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
