"""Content of the pages that is generated from the code, and so stays up to date: experiments, parts and laws.

A hook of mkdocs: the comment ``<!-- parts quantizer -->`` on a page becomes the registered quantizers, with their
options; ``<!-- laws quantizer -->`` the names of their suite's tests, which are sentences; ``<!-- experiments -->``
every YAML file; ``<!-- compared -->`` the rows of ``benchmarks/rate_distortion.py``. The parts themselves are not
imported.
"""

from __future__ import annotations

import ast
import html
import inspect
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from urllib.parse import urlsplit

import yaml
from mkdocs.structure.files import File

from toolkit import registry
from toolkit.schema import Option, Signature, read

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {
    "samples.png": "plugins/image/samples.png",
    "sprites.png": "plugins/video/samples.png",
}
"""Shown on pages, by the names that they have there."""
SEEN = {
    "image_shapes": ("samples.png", "Shapes by their names, sampled from the prior"),
    "video_sprites": ("sprites.png", "Six frames of a clip, and how the prior goes on by left, right, up and down"),
}
"""By experiment, a picture of what it made where it was trained as it is."""
COMPARED = {
    "nmse": "error / variance",
    "psnr": "PSNR, dB",
    "usage": "usage",
    "perplexity": "perplexity",
    "code_bits": "code bits",
    "step_ms": "ms a step",
    "peak_mib": "MiB",
}
"""What is shown of each row of the comparison, and its heading."""
SPELT = {
    "critics loss": "critic's loss",
    "decoders gradient": "decoder's gradient",
    "dim": "`dim`",
    "entrys": "entry's",
    "gpu": "GPU",
    "kl": "KL",
    "latents grid": "latents' grid",
    "log prob": "`log_prob`",
    "png": "PNG",
    "x": "`x`",
}
"""What a test's name cannot write."""
_MARKER = re.compile(r"^<!-- (parts|laws|experiments|compared) ?(\w*) -->$", re.MULTILINE)


def on_startup(**_: Any) -> None:
    """The plugins are those of this checkout, installed or not."""
    os.environ[registry.PLUGIN_PATH] = str(ROOT / "plugins")


def on_config(config: Any) -> Any:
    """Each page says of which version it is, and where the repository is, as soon as pyproject.toml names one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.copyright = f"{project['name']} {project['version']}"
    config.repo_url = config.repo_url or project.get("urls", {}).get("Repository")
    if config.repo_url:  # mkdocs makes a name of it before this hook
        config.repo_name = config.repo_name or urlsplit(config.repo_url).path.strip("/")
    return config


def on_files(files: Any, config: Any) -> Any:
    for name, picture in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    writers = {"parts": parts, "laws": laws, "experiments": experiments, "compared": compared}
    return _MARKER.sub(lambda match: writers[match[1]](*filter(None, [match[2]])), markdown)


def parts(kind: str) -> str:
    """Every registered component of a kind: its docstring, what it asks for and its options."""
    written = "\n\n".join(_part(registration, read(registration)) for registration in registry.registrations(kind))
    return written or "None is bundled."


def laws(kind: str) -> str:
    """The tests of a kind's suite, inherited ones first, as a list of sentences, with what they say of themselves."""
    tests = _tests(f"{kind.title()}Suite")
    return "\n".join(f"- {' '.join([_sentence(test.name), *_prose(ast.get_docstring(test))])}" for test in tests)


def _sentence(test: str) -> str:
    """A test's name as one."""
    words = test.removeprefix("test_").replace("_", " ")
    for plain, written in SPELT.items():
        words = re.sub(rf"\b{plain}\b", written, words)
    return f"{words[0].upper()}{words[1:]}."


def _prose(docstring: str | None) -> list[str]:
    """A docstring's first paragraph, in one line."""
    return [" ".join(docstring.partition("\n\n")[0].split())] if docstring else []


def experiments() -> str:
    """Every YAML file of ``conf/`` and of the plugins, under its name on the command line."""
    folders = {"discrete-toolkit": ROOT / "conf", **dict(registry.conf_folders())}
    blocks = []
    for owner, folder in folders.items():
        files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.relative_to(folder).parts), file))
        blocks += [f"## {owner}", *(_experiment(file, file.relative_to(folder)) for file in files)]
    return "\n\n".join(blocks)


def compared() -> str:
    """Quantizers by their error, lowest first: means over seeds ± their sample standard deviation."""
    results = ROOT / "benchmarks" / "results" / "rate_distortion-cpu.json"
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["what"], []).append(row)
    lines = ["| quantizer | seeds | " + " | ".join(COMPARED.values()) + " |", "|---" * (len(COMPARED) + 2) + "|"]
    for name, of_name in sorted(by_name.items(), key=lambda pair: mean(row["nmse"] for row in pair[1])):
        figures = [_figure([row[figure] for row in of_name if figure in row]) for figure in COMPARED]
        lines.append(f"| {name} | {len(of_name)} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _figure(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {float(f'{stdev(values):.1g}'):g}" if len(values) > 1 else ""
    return f"{mean(values):.3g}{spread}"


def as_markdown(doc: str) -> str:
    """A docstring as Markdown: ``::`` opens a block, and indented lines after a colon are a list."""
    lines, listing = [], False
    for line, following in zip(source := doc.splitlines(), [*source[1:], ""], strict=True):
        if listing and re.match(r"  \S", line):
            lines.append(f"- {line.strip()}")
            continue
        listing = line.endswith(":") and re.match(r"  \S", following) is not None
        lines += [re.sub("::$", ":", line), ""] if listing else [re.sub("::$", ":", line)]
    return "\n".join(lines)


def _part(registration: registry.Registration, signature: Signature) -> str:
    about = as_markdown(inspect.cleandoc(signature.doc).partition("\nArgs:")[0].strip())
    asked = ", ".join(f"`{name}`" for name in signature.given) or "nothing"
    given = "" if registration.kind == registry.FAMILY else f"; asks for {asked}"
    lines = [f"### `{registration.name}` {{ #{registration.name} }}"]
    lines += [f"*from {registration.distribution}{given}*", about]
    if signature.options:
        rows = [_row(option) for option in signature.options]
        lines.append("\n".join(["| option | default | type | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(lines)


def _row(option: Option) -> str:
    default = "*required*" if option.required else f"`{_value(option.default)}`"
    wanted = f"a {option.nested}, by name" if option.nested else option.wanted
    cells = (f"`{option.name}`", default, html.escape(wanted), html.escape(option.doc, quote=False))
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _value(value: Any) -> str:
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]


def _tests(suite: str) -> Iterator[ast.FunctionDef]:
    classes = {
        node.name: node
        for file in sorted((ROOT / "toolkit" / "testing").glob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    for base in classes[suite].bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _tests(base.id)
    for node in classes[suite].body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _experiment(file: Path, relative: Path) -> str:
    source = file.read_text(encoding="utf-8")
    group, name = relative.parent.as_posix(), relative.stem
    title, anchor = (f"{group}={name}", f"{group}-{name}") if group != "." else (relative.name, name)
    lines = [f"### `{title}` {{ #{anchor.replace('/', '-')} }}", _comment(source)]
    if group == "experiment" and name in SEEN:
        picture, caption = SEEN[name]
        lines += [f"![{caption}]({picture})", f"*{caption}.*"]
    chosen = " · ".join(_choices(yaml.safe_load(source), group))
    indented = "\n".join(f"    {line}".rstrip() for line in source.splitlines())
    lines += [chosen, f'??? example "{relative.as_posix()}"\n\n    ```yaml\n{indented}\n    ```']
    return "\n\n".join(filter(None, lines))


def _comment(source: str) -> str:
    """The comment lines before the first key, as prose; a dash begins a list item."""
    head = []
    for line in source.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            head.append(html.escape(line.removeprefix("#").removeprefix(" "), quote=False))
    text = "\n".join(head)
    return re.sub(r"(?m)^(?!- )(.*)\n(?=- )", r"\1\n\n", text, count=1)


def _choices(config: dict[str, Any], group: str) -> Iterator[str]:
    """The parts that an experiment chooses, linked to their descriptions."""
    for choice in config.get("defaults", []):
        for key, names in choice.items() if isinstance(choice, dict) else []:
            kind = key.removeprefix("override ").removeprefix("/")
            if group == "experiment" and kind in registry.KINDS:
                links = " ".join(_link(kind, name) for name in (names if isinstance(names, list) else [names]))
                yield f"{kind} {links}"


def _link(kind: str, name: str) -> str:
    if name in registry.names(kind):
        return f"[`{name}`](parts/{kind}.md#{name})"
    return f"[`{name}`](#{kind}-{name})"
