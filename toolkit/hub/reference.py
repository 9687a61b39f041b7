"""``hub:owner/name@REVISION``: what names a repository of models on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from toolkit.errors import ToolkitError

PREFIX = "hub:"
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/+-]{0,198}[A-Za-z0-9_+])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Reference:
    """A repository, and which state of it: None is the newest of its main branch."""

    owner: str
    name: str
    revision: str | None = None

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names a commit, which never changes."""
        return self.revision is not None and bool(_COMMIT.fullmatch(self.revision))

    def at(self, revision: str) -> Reference:
        return replace(self, revision=revision)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_reference(word: object) -> bool:
    """Whether a word, where a folder is expected, names a repository instead."""
    return str(word).startswith(PREFIX)


def parse(word: str) -> Reference:
    """ToolkitError where the word is none."""
    repository, at, revision = word.removeprefix(PREFIX).partition("@")
    owner, slash, name = repository.partition("/")
    valid = all(_NAME.fullmatch(part) and ".." not in part and "--" not in part for part in (owner, name))
    if not is_reference(word) or not slash or not valid or name.endswith(".git"):
        raise ToolkitError(f"{word}: write {PREFIX}owner/name, or {PREFIX}owner/name@REVISION")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise ToolkitError(f"{word}: {revision!r} is no revision; it is a commit, a branch or a tag")
    return Reference(owner, name, revision or None)
