"""Where an error comes from: its type, message, file and line, and the plugin that the file belongs to."""

from __future__ import annotations

import traceback
from importlib import import_module
from pathlib import Path

from toolkit import modules
from toolkit.entry_points import CORE, sources
from toolkit.errors import RemoteError
from toolkit.modules import locate, package_folders


def blame(error: BaseException) -> str:
    """A caught error in one line: type, message and the file and line where it was raised."""
    if isinstance(error, RemoteError):
        return str(error)
    if isinstance(error, SyntaxError):  # its own text has only the file's name, not its path
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    places = _places(error)
    if not places:
        return text
    for file, line in reversed(places):  # the plugin's line, even if it fails deep in a library that the plugin calls
        plugin = owner(Path(file))
        if plugin:
            return f"{text} ({file}:{line}, {plugin})"
    return f"{text} ({places[-1][0]}:{places[-1][1]})"


def owner(file: Path) -> str:
    """What provides a source file, as ``encoder=mine of my-plugin 1.2``; empty for files of no plugin."""
    for source in sources():
        if source.name == CORE:
            continue
        packages = set()
        for registration in source.parts():
            module = registration.target.partition(":")[0]
            if locate(module, source.folder) == file:
                return f"{registration.kind}={registration.name} of {source.name} {source.version}"
            packages.add(module.partition(".")[0])
        homes = [home for package in packages for home in package_folders(package, source.folder)]
        if any(map(file.is_relative_to, homes)):
            return f"{source.name} {source.version}"
    return ""


def _places(error: BaseException) -> list[tuple[str, int]]:
    """File and line of an error's frames, except the one that caught it and those that only import."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    machinery = (modules.__file__, import_module.__code__.co_filename)
    lines = [(frame.filename, frame.lineno or 0) for frame in frames if not frame.filename.startswith("<frozen")]
    return [(file, line) for file, line in lines if file not in machinery]
