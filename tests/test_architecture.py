"""The house's rules: who imports whom, what is imported when, and which words the core does not know."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import toolkit
from toolkit import registry

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "toolkit"
EXAMPLES = ROOT / "examples"
MODALITIES = re.compile(r"image|audio|video|pixel(?!cnn)|wav(?!enet|es)|fps", re.IGNORECASE)


def test_the_installed_package_is_this_checkout() -> None:
    assert toolkit.__file__ is not None
    assert Path(toolkit.__file__).resolve().parent == CORE


def test_import_contracts_hold() -> None:
    """The contracts of pyproject.toml: layers, no plugin in the core, no hydra below the command line."""
    pytest.importorskip("importlinter", reason="import-linter is not installed: make lint runs it")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_importing_toolkit_imports_nothing_heavy() -> None:
    code = "import toolkit, sys; print(sorted({'torch', 'hydra', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert toolkit.__all__ == [
        "Autoencoder",
        "Bound",
        "CodeSpec",
        "Coded",
        "Condition",
        "Conditioner",
        "DataSpec",
        "Dataset",
        "Decoder",
        "Discriminator",
        "Distribution",
        "Encoder",
        "FileCodec",
        "Judgement",
        "Likelihood",
        "Logger",
        "Loss",
        "Metric",
        "Model",
        "Objective",
        "Posterior",
        "Prior",
        "Quantized",
        "Quantizer",
        "RunConfig",
        "SamplingOptions",
        "StreamDataset",
        "Streamed",
        "Tokens",
        "ToolkitError",
        "adopt",
        "compose",
        "evaluate",
        "export",
        "load",
        "train",
    ]
    for name in toolkit.__all__:
        assert getattr(toolkit, name).__name__ == name


def test_the_core_names_no_modality() -> None:
    """No identifier in toolkit/ says what kind of data it works on; what it imports is named by others."""
    found = []
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                ast.Name: lambda n: [n.id],
                ast.Attribute: lambda n: [n.attr],
                ast.arg: lambda n: [n.arg],
                ast.FunctionDef: lambda n: [n.name],
                ast.ClassDef: lambda n: [n.name],
                ast.keyword: lambda n: [n.arg or ""],
            }.get(type(node), lambda n: [])(node)
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names if MODALITIES.search(name)]
    assert not found


ASKS = re.compile(r"torch\.(backends\.)?(cuda|cudnn|mps|xpu|accelerator|fp32_precision)\b")
"""How torch is asked about a device, or set for it."""
ASKING = {
    "toolkit/device": "its room",
    "toolkit/distributed.py": "the ranks' GPUs",
    "toolkit/causal/graphs.py": "captured steps of sampling",
    "toolkit/step.py": "captured steps of training",
    "toolkit/testing": "what stands in for a device",
}


def test_one_room_asks_about_devices() -> None:
    """Elsewhere a device is asked through ``toolkit.device``, or what knows only one kind of it would be all over."""
    found = []
    for path in [*CORE.rglob("*.py"), *ROOT.glob("plugins/*/toolkit_*/**/*.py"), *EXAMPLES.glob("*/src/**/*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(tuple(ASKING)):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{name}:{i}: {line.strip()}" for i, line in enumerate(lines, 1) if ASKS.search(line)]
    assert not found


def test_no_configuration_names_code() -> None:
    """Names only: no _target_, no dotted path to a class."""
    for path in [*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("plugins/*/*/conf/**/*.yaml"), *EXAMPLES.glob("**/*.yaml")]:
        assert "_target_" not in path.read_text(encoding="utf-8"), path


def test_no_experiment_overrides_a_nested_group() -> None:
    """Presets choose inner parts, experiments choose presets: else swapping the outer part would break them."""
    for path in [
        *ROOT.glob("conf/experiment/*.yaml"),
        *ROOT.glob("plugins/*/*/conf/experiment/*.yaml"),
        *EXAMPLES.glob("*/src/*/conf/experiment/*.yaml"),
    ]:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", []):
            assert all(str(key).count("/") < 2 for key in entry), (path, entry)


def test_every_package_is_shipped() -> None:
    """Folders with Python or YAML in them and the list in pyproject.toml agree."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in CORE.rglob("__init__.py")}
    found |= {"toolkit." + ".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("conf/**/*.yaml")}
    assert found == listed


def test_every_component_is_final_and_says_what_it_is() -> None:
    """Abstract or final: a component is a leaf with a docstring."""
    for kind in registry.KINDS:
        for name in registry.names(kind):
            if registry.find(kind, name).distribution.startswith("discrete-toolkit"):
                cls = registry.load(kind, name)
                assert getattr(cls, "__final__", False), (kind, name)
                assert cls.__doc__, (kind, name)


@pytest.mark.parametrize("kind", [kind for kind in registry.KINDS if kind != "dataset"])
def test_every_component_of_the_core_is_tested_by_its_kinds_suite(kind: str) -> None:
    """Some class of the tests that inherits the kind's suite is named after it, or makes it."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").glob("test_*.py")))
    suites = re.findall(rf"^(class \w+\({kind.capitalize()}Suite\):\n(?:(?: .*)?\n)+)", sources, re.MULTILINE)
    for registration in registry.registrations(kind):
        if registration.distribution == "discrete-toolkit":
            name = registration.target.partition(":")[2]
            assert any(f"{name}(" in suite for suite in suites), f"no {kind.capitalize()}Suite makes {name}"
