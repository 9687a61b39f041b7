"""``toolkit new-plugin``: a package with a small working part, or command, for each component, and its tests."""

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
from toolkit.cli.commands import COMMANDS
from toolkit.errors import ToolkitError
from toolkit.registry import COMMAND, HOSTS, LISTS, PARTS, did_you_mean

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
KINDS = (*PARTS, COMMAND)
"""What can be asked for."""
WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class NewPluginOptions:
    """Writes a package that is ready to install: a small working part for each component, in its own file
    with its test, a preset, an experiment that uses them, README, CHANGELOG and a workflow that runs the tests.

    A component command=NAME is a command of toolkit's own: a function that gets the words after its name.
    """

    files: list[Path] = field(
        default_factory=list, metadata={"help": "one folder that does not exist yet, or is empty"}
    )
    component: list[str] = field(
        default_factory=list,
        metadata={"help": "KIND=NAME, such as quantizer=my_quantizer; may be given several times"},
    )


@dataclass(frozen=True)
class Component:
    """A part, or a command, to write."""

    kind: str
    name: str

    @property
    def is_part(self) -> bool:
        return self.kind in PARTS

    @property
    def word(self) -> str:
        """As it is written on the command line."""
        return f"{registry.key(self.kind)}={self.name}" if self.is_part else f"toolkit {self.name}"

    @property
    def target(self) -> str:
        """What its module defines."""
        return self.cls if self.is_part else "main"

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
    for line in _uses(package, components):
        print(f"  {line}")
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
        raise ToolkitError(f"no component: add --component KIND=NAME; kinds: {', '.join(KINDS)}")
    components = [_component(word) for word in wanted]
    names = [part.name for part in components]
    for name in names:
        if names.count(name) > 1:
            raise ToolkitError(f"--component: two of them are called {name}: each needs its own name and file")
    return options.files[0], components


def _component(word: str) -> Component:
    kind, separator, name = word.partition("=")
    if not separator or not WORD.fullmatch(name):
        raise ToolkitError(
            f"--component {word}: write KIND=NAME, the name in small letters, digits and _, such as quantizer=my_own"
        )
    _not_python(name, f"--component {word}")
    if kind not in KINDS:
        raise ToolkitError(
            f"--component {word}: no kind of component is called {kind}{did_you_mean(kind, KINDS)}; kinds:"
            f" {', '.join(KINDS)}"
        )
    if kind == COMMAND and name in COMMANDS:
        raise ToolkitError(f"--component {word}: toolkit {name} is the core's: choose another name")
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
    named = ", ".join(f"{one.kind} `{one.name}`" for one in components)
    own = [one for one in components if one.is_part]
    what = "Parts" if len(own) == len(components) else "Parts and commands" if own else "Commands"
    uses = _uses(package, components)
    values = {
        "distribution": folder.replace("_", "-"),
        "package": package,
        "parts": named[0].upper() + named[1:],
        "summary": f"{what} for discrete-toolkit: {', '.join(one.name for one in components)}",
        "core": _core(),
        "points": _points(package, components),
        "listed": "toolkit plugins" if own else "toolkit --help ",
        "uses": "\n".join(uses),
        "live": (f"toolkit check experiment={package}" if own else uses[0]).replace("toolkit", "toolkit --plugin .", 1),
        "table": "\n".join(f"| `{one.word}` | {_first_line(one.kind)} |" for one in components),
    }
    about = ["README_parts.md"] if own else []
    about += ["README_commands.md"] if len(own) < len(components) else []
    values["about"] = "\n".join(_filled(name, values) for name in about)
    files = {name: _filled(name, values) for name in ("pyproject.toml", "README.md", "CHANGELOG.md")}
    files |= {f"{package}/conf/experiment/{package}.yaml": _experiment(values["summary"], own)} if own else {}
    return files | {
        ".gitignore": _filled("gitignore", values),
        ".github/workflows/test.yml": _filled("test.yml", values),
        f"{package}/__init__.py": f'"""{values["summary"]}."""\n',
        f"{package}/py.typed": "",
        "tests/test_package.py": _filled("test_package.py", values),
    }


def _uses(package: str, components: Sequence[Component]) -> list[str]:
    """Commands to try them with."""
    commands = [f"{one.word} RUN" for one in components if not one.is_part]
    return [*([f"toolkit train experiment={package}"] if len(commands) < len(components) else []), *commands]


def _parts(package: str, components: Sequence[Component]) -> dict[str, str]:
    """The files of each component."""
    files = {}
    for one in components:
        values = {"package": package, "name": one.name, "Class": one.cls}
        files[f"{package}/{one.name}.py"] = _filled(f"{one.kind}.py", values)
        files[f"tests/test_{one.name}.py"] = _filled(f"test_{one.kind}.py", values)
        if one.is_part:
            files[f"{package}/conf/{_group(one.kind)}/{one.preset}.yaml"] = _preset(one)
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
    for kind in KINDS:
        targets = [f'{one.name} = "{package}.{one.name}:{one.target}"' for one in components if one.kind == kind]
        lines += [f'[project.entry-points."toolkit.{kind}"]', *targets, ""] if targets else []
    if any(one.is_part for one in components):
        lines += ['[project.entry-points."toolkit.conf"]', f'{package} = "{package}.conf"', ""]
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
