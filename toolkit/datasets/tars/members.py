"""Members of tar files, read from memory and written one after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import BinaryIO

BLOCK = 512
"""Bytes that headers take, and that contents are filled up to."""
END = bytes(2 * BLOCK)
_PLAIN = (b"0", b"\0")


def members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a stretch of a tar file that begins with a header.

    ValueError where the stretch is none, or is cut short.
    """
    at = 0
    while at + BLOCK <= len(content) and content[at]:
        header = content[at : at + BLOCK]
        if not _plain(header):
            yield from _others(content[at:])
            return
        start, size = at + BLOCK, _octal(header[124:136])
        if start + size > len(content):
            raise ValueError("it is cut short")
        yield _name(header), content[start : start + size]
        at = start + padded(size)


def _others(content: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file.read()
    except tarfile.TarError as e:
        raise ValueError(str(e)) from e


def _plain(header: bytes) -> bool:
    """Whether all of a member is in its header: no long name, folder or link, and no size beyond octal digits."""
    return header[156:157] in _PLAIN and header[257:262] == b"ustar" and header[124] < 0x80


def _octal(field: bytes) -> int:
    """A number of a header; ValueError where it is none."""
    return int(field.rstrip(b" \0") or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def padded(size: int) -> int:
    """A size filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def split_key(name: str) -> tuple[str, str]:
    """A member's key, up to the first dot of its last part, and what follows that dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, rest = last.partition(".")
    return folder + slash + stem, rest


def write_members(file: BinaryIO, key: str, contents: Iterable[tuple[str, bytes]]) -> int:
    """Writes an example's members; returns how many bytes they take."""
    written = 0
    for name, content in contents:
        info = tarfile.TarInfo(f"{key}.{name}")
        info.size, info.mode = len(content), 0o644
        header = info.tobuf(tarfile.USTAR_FORMAT)
        filling = bytes(padded(len(content)) - len(content))
        file.write(header + content + filling)
        written += len(header) + len(content) + len(filling)
    return written


def walk(file: BinaryIO, start: int = 0) -> Iterator[tuple[str, int, int]]:
    """Keys of a tar file's examples, with the first byte of each and that behind it, from an example on.

    Only headers are read. ValueError where it is no tar file, or is cut short.
    """
    key, begin, end = "", start, start
    for name, own_begin, own_end in _headers(file, start):
        own = split_key(name)[0]
        if own != key:
            if key:
                yield key, begin, end
            key, begin = own, own_begin
        end = own_end
    if key:
        yield key, begin, end


def _headers(file: BinaryIO, at: int) -> Iterator[tuple[str, int, int]]:
    """Names of the files, with the first byte of the header of each, and that behind its content."""
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise ValueError("it is cut short, or is no tar file")
        if not header[0]:
            return
        if not _plain(header):
            yield from _headers_by_library(file, at)
            return
        end = at + BLOCK + padded(_octal(header[124:136]))
        yield _name(header), at, end
        at = end


def _headers_by_library(file: BinaryIO, at: int) -> Iterator[tuple[str, int, int]]:
    """The same of a file with long names, folders and the like."""
    file.seek(at)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                if member.isreg():
                    yield member.name, member.offset, member.offset_data + padded(member.size)
    except tarfile.TarError as e:
        raise ValueError(str(e)) from e
