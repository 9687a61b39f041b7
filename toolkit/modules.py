"""Modules by name: where they are, by Python's finders without importing anything, and what a target names.

An uninstalled plugin's ``folder`` comes before ``sys.path``, and its ``src`` before that.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


def locate(module: str, folder: Path | None = None) -> Path | None:
    """The source file of a module, without importing it or its parents; None where it has none."""
    spec = _spec(module, folder)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def package_folders(package: str, folder: Path | None = None) -> list[Path]:
    """The folders of a package, without importing it; none for a module or a missing package."""
    spec = _spec(package, folder)
    paths = [Path(path) for path in (spec.submodule_search_locations or [])] if spec else []
    return [path for path in paths if path.is_dir()]


def import_target(target: str, folder: Path | None = None) -> Any:
    """What "module:Class" names. Raises what the module raises, ValueError where the target is not in this form.

    The folder's modules become importable, here and in child processes that copy ``sys.path``.
    """
    for path in reversed(_roots(folder)):
        if path not in sys.path:
            sys.path.insert(0, path)
    module, separator, attribute = target.partition(":")
    if not (module and separator and attribute):
        raise ValueError(f"{target!r} is not written module:Class")
    return getattr(import_module(module), attribute)


def _roots(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [str(root) for root in (folder / "src", folder) if root.is_dir()]


def _spec(module: str, folder: Path | None) -> ModuleSpec | None:
    # importlib.util.find_spec would import the parents, and torch with them; the finders alone do not.
    parts = module.split(".")
    paths: list[str] | None = None
    spec = None
    for depth in range(1, len(parts) + 1):
        spec = _ask(".".join(parts[:depth]), paths, _roots(folder) if depth == 1 else [])
        if spec is None:
            return None
        paths = list(spec.submodule_search_locations or [])
    return spec


def _ask(module: str, paths: list[str] | None, roots: list[str]) -> ModuleSpec | None:
    for finder in sys.meta_path:
        for folders in (roots, paths) if roots else (paths,):
            spec = _ask_one(finder, module, folders)
            if spec is not None:
                return spec
    return None


def _ask_one(finder: Any, module: str, paths: list[str] | None) -> ModuleSpec | None:
    try:
        spec: ModuleSpec | None = finder.find_spec(module, paths)
    except KeyError:  # a folder without __init__.py, inside a package that is not imported
        folders = [str(Path(path) / module.rpartition(".")[2]) for path in paths or []]
        spec = ModuleSpec(module, None, is_package=True)
        spec.submodule_search_locations = [folder for folder in folders if Path(folder).is_dir()]
    return spec
