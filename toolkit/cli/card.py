"""A model card, written from a run: what it is, what it was measured as, and how it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from toolkit.cli.compare import markdown
from toolkit.cli.report import number
from toolkit.errors import printable
from toolkit.given import described
from toolkit.hub import Reference
from toolkit.model import Model
from toolkit.runs.plain import write_yaml
from toolkit.writing import write_text

LIBRARY = "discrete-toolkit"


def write_card(
    path: Path, model: Model, reference: Reference, license: str, pipeline: str, figures: Mapping[str, Any]
) -> None:
    """``figures``: those of evaluation.json, or none."""
    blocks = [
        f"---\n{write_yaml(_header(model, license, pipeline))}---",
        f"# {reference.name}",
        _sentence(model),
        *_section("Parts", _parts(model)),
        *_section("Data and codes", _shapes(model)),
        *_section(*_measured(figures)),
        *_section("Use", _use(model, reference)),
        *_section("Versions", _versions(model)),
    ]
    write_text(path, "\n\n".join(blocks) + "\n")


def _header(model: Model, license: str, pipeline: str) -> dict[str, Any]:
    parts = [getattr(model.config, kind).name for kind in ("encoder", "quantizer", "decoder", "dataset")]
    priors = [f"prior-{name}" for name in model.run.priors()]
    tags = [LIBRARY, "vq-vae", "tokenizer", *dict.fromkeys(parts), *priors]
    return {"license": license, "library_name": LIBRARY, "pipeline_tag": pipeline, "tags": tags}


def _sentence(model: Model) -> str:
    trained = " and ".join(f"`{name}`" for name in model.run.priors())
    kind = "An autoencoder with discrete codes" if model.code_spec.depth else "An autoencoder with continuous latents"
    prior = f", with a prior over its codes ({trained})" if trained else ""
    return f"{kind}{prior}, trained for {model.checkpoint.step:,} steps with {LIBRARY}."


def _parts(model: Model) -> list[str]:
    components = model.run.components()
    rows = [
        (key, f"`{part['name']}`", f"{part['distribution']} {part['version']}", _count(part.get("parameters")))
        for key, part in sorted(components.items())
        if key.partition(".")[0] not in ("metric", "logger")
    ]
    return [_table(("part", "name", "from", "parameters"), rows)] if rows else []


def _count(parameters: object) -> str:
    return f"{parameters:,}" if isinstance(parameters, int) and parameters else ""


def _shapes(model: Model) -> list[str]:
    lines = [f"{described(model.spec, model.code_spec)}."]
    for condition in model.spec.conditions:
        labels = ", ".join(printable(label) for label in condition.labels[:20])
        more = ", …" if len(condition.labels) > 20 else ""
        what = "bytes of text" if condition.text else "values"
        lines.append(f"- condition `{condition.name}`: {condition.size} {what}{f' ({labels}{more})' if labels else ''}")
    return ["\n".join(lines)]


def _measured(figures: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The section's heading and text."""
    rows = [(name, number(value)) for name, value in figures.items() if _is_number(value) and name not in _SAID]
    if not rows:
        return "Figures", []
    blocks = [_table(("metric", "value"), rows)]
    priors = figures.get("priors")
    if isinstance(priors, Mapping) and priors:
        columns = list(dict.fromkeys(name for row in priors.values() for name in row))
        table = [(f"`{name}`", *(_cell(row.get(column)) for column in columns)) for name, row in priors.items()]
        blocks.append(_table(("prior", *columns), table))
    examples = figures.get("examples")
    counted = f", {examples:,} examples" if isinstance(examples, int) else ""
    return f"Figures on the {figures.get('split')} split{counted}", blocks


_SAID = ("examples", "step")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    return number(value) if _is_number(value) else ""


def _use(model: Model, reference: Reference) -> list[str]:
    install = " ".join(dict.fromkeys(["'discrete-toolkit[hub]'", *_packages(model)]))
    can_sample = model.code_spec.depth == 0 or model.run.priors()
    python = [
        "import toolkit",
        "",
        f'model = toolkit.load("{reference}@REVISION")',
        *(
            ["codes = model.encode(x)  # x: (n, channels, *axes), in the data's own form"]
            if model.code_spec.depth
            else []
        ),
        *(["x, codes = model.sample(4, seed=0)"] if can_sample else []),
    ]
    commands = [f"pip install {install}"]
    commands += [f"toolkit sample run={reference}@REVISION n=16"] if can_sample else []
    commands += [f"toolkit reconstruct run={reference}@REVISION FILES…"]
    return [
        "REVISION is a commit of this repository; without `@REVISION` it is the newest. The files are safetensors, JSON"
        " and YAML: loading runs no code of this repository.",
        "\n".join(["```sh", *commands, "```"]),
        "\n".join(["```python", *python, "```"]),
    ]


def _packages(model: Model) -> list[str]:
    return sorted({part["distribution"] for part in model.run.components().values()} - {LIBRARY})


def _versions(model: Model) -> list[str]:
    here = [(LIBRARY, version(LIBRARY)), ("torch", torch.__version__)]
    trained = {(part["distribution"], part["version"]) for part in model.run.components().values()}
    lines = [f"- {name} {number}" for name, number in sorted(trained - set(here))]
    return [
        "\n".join(
            [
                *(f"- pushed with {name} {number}" for name, number in here),
                *(f"{line} (trained with)" for line in lines),
            ]
        )
    ]


def _section(heading: str, blocks: Sequence[str]) -> Iterator[str]:
    if blocks:
        yield f"## {heading}"
        yield from blocks


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown(header, rows).rstrip("\n")
