"""What a stranger looks at first: license, versions, links, and what pyproject.toml and the stability page promise."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from toolkit.registry import PARTS

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = (".", "plugins/image", "plugins/audio", "plugins/video", "examples/toolkit-hello")
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the standard text, with the appendix's line for the owner as it is there."""
OWNER = "Copyright 2026 The discrete-toolkit authors"


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(folder: str) -> dict[str, SpecifierSet]:
    return {asked.name: asked.specifier for asked in map(Requirement, project(folder)["dependencies"])}


def constraints(name: str) -> dict[str, SpecifierSet]:
    lines = (ROOT / ".ci" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {asked.name: asked.specifier for asked in (Requirement(line) for line in lines if not line.startswith("#"))}


@pytest.mark.parametrize("folder", PROJECTS)
def test_every_package_carries_the_license(folder: str) -> None:
    text = (ROOT / folder / "LICENSE").read_text(encoding="utf-8")
    assert text.count(OWNER) == 1
    standard = text.replace(OWNER, "Copyright [yyyy] [name of copyright owner]")
    assert hashlib.sha256(standard.encode()).hexdigest() == APACHE
    assert project(folder)["license"] == "Apache-2.0"
    assert project(folder)["license-files"] == ["LICENSE"]


def test_one_version_for_all() -> None:
    version = project(".")["version"]
    assert {project(folder)["version"] for folder in PROJECTS} == {version}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    major, minor, _ = Version(version).release
    core = SpecifierSet(f">={major}.{minor},<{major}.{minor + 1}")
    assert {requirements(folder)["discrete-toolkit"] for folder in PROJECTS[1:]} == {core}


@pytest.mark.parametrize("folder", PROJECTS)
def test_the_changelog_has_a_heading_for_the_version(folder: str) -> None:
    text = (ROOT / folder / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(project(folder)['version'])} - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)


def test_the_oldest_set_is_the_one_that_is_promised() -> None:
    """What CI installs as the oldest is the lower bound of every pyproject.toml, no more and no less."""
    oldest = constraints("oldest")
    assert set(oldest) == {"torch", "torchaudio", "hydra-core", "omegaconf"}
    for folder in PROJECTS:
        for name, specifier in requirements(folder).items():
            if name in oldest:
                (pinned,), (lowest,) = oldest[name], (bound for bound in specifier if bound.operator == ">=")
                assert Version(pinned.version.removesuffix(".*")) == Version(lowest.version), (folder, name)


def test_the_newest_set_is_within_what_is_promised() -> None:
    newest = constraints("newest")
    assert set(newest) == set(constraints("oldest"))
    for folder in PROJECTS:
        for name, specifier in requirements(folder).items():
            for bound in newest.get(name, ()):
                assert Version(bound.version) in specifier, (folder, name)


def test_the_workflow_runs_what_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
    rows = job["strategy"]["matrix"]["include"]
    assert {row.get("constraints") for row in rows} == {None, "oldest", "newest"}
    minors = [minor for minor in range(30) if f"3.{minor}" in SpecifierSet(project(".")["requires-python"])]
    assert {row["python"] for row in rows} == {f"3.{minor}" for minor in minors}


def test_pre_commit_and_make_lint_use_the_same_ruff() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (revision,) = (repo["rev"] for repo in repos if "ruff" in repo["repo"])
    (ruff,) = (Requirement(line) for line in project(".")["optional-dependencies"]["lint"] if line.startswith("ruff"))
    assert Version(revision) in ruff.specifier


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(list(value) + list(value.values()))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts(item))


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda file: file.stem)
def test_results_name_no_machines_path(file: Path) -> None:
    results = json.loads(file.read_text(encoding="utf-8"))
    assert [text for text in texts(results) if re.search(r"(^|[\s=:'\"(\[])(~|[A-Za-z]:\\|/\w)", text)] == []


HOSTS = {"arxiv.org", "data.example.org", "keepachangelog.com", "www.cs.toronto.edu", "www.apache.org", "github.com"}
"""Whose pages the project may link to. A repository of our own is not among them until there is one."""
FOREIGN = ("https://github.com/astral-sh/ruff-pre-commit", "https://github.com/pre-commit/pre-commit-hooks")


def test_links_lead_to_known_places() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file.suffix in (".md", ".toml", ".cff", ".yml", ".yaml", ".txt") and file.is_file():
            for link in re.findall(r"https?://[^\s)>\"'`]+", file.read_text(encoding="utf-8")):
                host = link.split("/")[2]
                assert host in HOSTS or host.startswith("127.0.0.1:"), f"{name}: {link}"
                assert host != "github.com" or link in FOREIGN, f"{name}: {link}"


IMPORT = re.compile(r"^\s*(?:from|import) (toolkit\b(?:\.\w+)*)", re.MULTILINE)


def test_packages_to_copy_from_import_what_is_public() -> None:
    """The stability page calls public what the example, the template and our own plugins stand on."""
    page = (ROOT / "docs/stability.md").read_text(encoding="utf-8")
    public = set(
        re.findall(r"`(toolkit(?:\.\w+)+)`", page[page.index("## What is public") : page.index("## Versions")])
    )
    assert {f"toolkit.{kind}" for kind in PARTS} <= public
    sources = [*ROOT.glob("plugins/*/toolkit_*/**/*.py"), *ROOT.glob("examples/*/src/**/*.py")]
    sources += [*ROOT.glob("toolkit/cli/template/*.py.txt")]
    assert sources
    for file in sources:
        for module in IMPORT.findall(file.read_text(encoding="utf-8")):
            known = any(f"{module}.".startswith(f"{name}.") for name in public)
            assert module == "toolkit" or known, f"{file.relative_to(ROOT)} imports {module}"
