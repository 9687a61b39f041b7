"""huggingface_hub, which is an extra, and what it raises in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from toolkit.errors import ToolkitError, printable
from toolkit.hub.reference import Reference

_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
"""Packages by which some version of huggingface_hub asks the network."""
MOST = 300
"""Characters that are shown of a message of others."""


def package(reference: Reference) -> Any:
    """huggingface_hub; ToolkitError where it is not installed."""
    try:
        return import_module("huggingface_hub")
    except ModuleNotFoundError as e:
        if e.name != "huggingface_hub":
            raise
        raise ToolkitError(f"{reference} needs huggingface_hub: pip install 'discrete-toolkit[hub]'") from None


def constants() -> Any:
    """What the environment says of the Hub, as huggingface_hub has read it."""
    return import_module("huggingface_hub.constants")


def endpoint() -> str:
    """The Hub's address: ``$HF_ENDPOINT``, or its own."""
    return str(os.environ.get("HF_ENDPOINT") or constants().ENDPOINT).rstrip("/")


@contextmanager
def as_quiet() -> Iterator[None]:
    """Without progress bars where nobody watches."""
    utils = import_module("huggingface_hub.utils")
    if sys.stderr.isatty() or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def explained(reference: Reference) -> Iterator[None]:
    """ToolkitError for what goes wrong between here and the Hub, naming the repository."""
    try:
        yield
    except ToolkitError as e:
        raise ToolkitError(str(e) if str(e).startswith(str(reference)) else f"{reference}: {e}") from e
    except Exception as e:
        words = _words(e, reference)
        if words is None:
            raise
        raise ToolkitError(f"{reference}: {printable(words)}") from e


def _words(error: Exception, reference: Reference) -> str | None:
    """What it means and what to do; None for what is not the Hub's."""
    errors = import_module("huggingface_hub.errors")
    host = endpoint()
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return f"its owners grant access: ask for it at {host}/{reference.repository}, then log in with hf auth login"
    if "RevisionNotFoundError" in kinds:
        return (
            f"there is no revision {reference.revision or 'main'}, or it is gone: take another, or none for the newest"
        )
    if "RepositoryNotFoundError" in kinds:
        return f"{host} has no such repository, or it is private: check the name, or log in with hf auth login"
    if "EntryNotFoundError" in kinds or "RemoteEntryNotFoundError" in kinds:
        return f"a file that it lists is gone: try again ({_first(error)})"
    if "LocalEntryNotFoundError" in kinds and error.__cause__ is not None:
        return _words(error.__cause__, reference) if isinstance(error.__cause__, Exception) else _unreachable(error)
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(error, host)
    if isinstance(error, ConnectionError | TimeoutError) or _is_of_the_network(error):
        return _unreachable(error)
    if isinstance(error, OSError) and "onsistency check" in str(error):
        return f"a file was cut short on its way: try again ({_first(error)})"
    if isinstance(error, ValueError) and "metadata" in str(error):
        return "its card is refused: " + " ".join(str(error).split())[:MOST]
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # of a thread that uploads
        return _words(error.__cause__, reference)
    return None


def _answered(error: Any, host: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{host} does not permit this: log in with hf auth login, by a token that may ({_first(error)})"
    return f"{host} answered {status}: {_first(error)}"


def _unreachable(error: Exception) -> str:
    cure = "HF_HUB_OFFLINE=1 opens the copy that is here, if there is one"
    return f"{endpoint()} cannot be reached ({type(error).__name__}: {_first(error)}): {cure}"


def _is_of_the_network(error: Exception) -> bool:
    return any(kind.__module__.partition(".")[0] in _NETWORK for kind in type(error).__mro__)


def _first(error: object) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:MOST]
