"""Files and folders damaged at random, as disks, networks, editors and strangers damage them."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

Damage = Callable[[Path, random.Random], object]

TEXTS = (".txt", ".csv", ".lab", ".phn", ".textgrid", ".json")
WORDS = [
    b"nan",
    b"-1",
    b"1e30",
    b"inf",
    b"",
    b"0",
    b"\xff",
    b"\x00",
    b"9" * 400,
    b"a b",
    b'"',
    b"\xef\xbb\xbf",
    b"\x1b[31m",
]
EXTREME = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01"]
NAMES = [
    "a\nb",
    "\udcff\udcfe",
    "\x1b[31mred",
    "-n",
    "--help",
    "a" * 240,
    ".hidden",
    "tes\tt",
    "train",
    "Test",
    "test_images",
]
NAMES += [
    "한 글 [1], a=b",
    "${dim}",
    "a'b\"c",
    " ",
    "..a",
    "VAL",
    "e\u0301",
    "\u202egnp",
    "valid",
    "dev",
    "a;b",
    "%s{0}",
    "~",
]


# -- one file


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 8, 64])):
        if content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def field(path: Path, chance: random.Random) -> None:
    """Extreme numbers, mostly where a header is."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 4)):
        end = min(len(content), chance.choice([16, 48, 200, len(content)]))
        at, size = chance.randrange(end + 1), chance.choice([1, 2, 4, 8])
        number = chance.choice([chance.choice(EXTREME) * size, struct.pack("<q", chance.randrange(1 << 40))[:size]])
        content[at : at + size] = number
    path.write_bytes(bytes(content))


def cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.choice([chance.randrange(len(content) + 1), 1, 4, 40, max(0, len(content) - 9)])])


def begin_late(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[chance.choice([1, 2, 20, len(content) // 2]) :])


def append(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.choice([chance.randbytes(100), path.read_bytes(), b"\0" * 5000]))


def zero(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    begin = chance.randrange(len(content) + 1)
    end = min(len(content), begin + chance.choice([16, 512, 1 << 20]))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(bytes(content))


def exchange_halves(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    at = chance.randrange(len(content) + 1)
    path.write_bytes(content[at:] + content[:at])


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.choice([1, 50, 4000])))


def text(path: Path, chance: random.Random) -> None:
    path.write_bytes(
        chance.choice([b"words\n" * 50, "\u00fc\n".encode("utf-16"), b"[" * 10_000, b"<html></html>", b"\n"])
    )


def lines(path: Path, chance: random.Random) -> None:
    """A text's lines dropped, doubled, exchanged, or of other words."""
    rows = path.read_bytes().split(b"\n")
    i, j = chance.randrange(len(rows)), chance.randrange(len(rows))
    words = rows[i].split(b" ")
    words[chance.randrange(len(words))] = chance.choice(WORDS)
    rows[i], rows[j] = chance.choice(
        [(rows[j], rows[i]), (rows[j], rows[j]), (b"", rows[j]), (b" ".join(words), rows[j])]
    )
    path.write_bytes(b"\n".join(rows))


def encoding(path: Path, chance: random.Random) -> None:
    content = path.read_bytes().decode("utf-8", "replace")
    name = chance.choice(["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "cp1252", "utf-7"])
    path.write_bytes((content + "\u00e9").encode(name, "replace"))


def ending(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", chance.choice([b"\r\n", b"\r", b"\n\n", b"\x0b"])))


BYTES: tuple[Damage, ...] = (
    flip,
    field,
    field,
    field,
    cut,
    begin_late,
    append,
    zero,
    exchange_halves,
    empty,
    noise,
    text,
)
LINES: tuple[Damage, ...] = (lines, lines, lines, encoding, ending, cut, flip, empty, noise, text)


def damage(path: Path, chance: random.Random) -> str:
    """Changes a file's content; what was done."""
    act = chance.choice(LINES if path.suffix.lower() in TEXTS and chance.random() < 0.8 else BYTES)
    act(path, chance)
    return f"{act.__name__} {path.name!r}"


# -- a folder


def remove(path: Path, chance: random.Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def rename(path: Path, chance: random.Random) -> None:
    path.replace(_free(path.with_name(chance.choice(NAMES) + (path.suffix if path.is_file() else ""))))


def rename_suffix(path: Path, chance: random.Random) -> None:
    suffix = chance.choice(
        [".png", ".jpg", ".wav", ".mp4", ".gif", ".txt", ".PNG", "", ".flac", ".tmp", ".npy", ".csv"]
    )
    path.replace(_free(path.with_name(path.stem + suffix)))


def link(path: Path, chance: random.Random) -> None:
    """In the place of a file or folder."""
    remove(path, chance)
    path.symlink_to(chance.choice(["nowhere", path.name, "..", ".", "../..", "/dev/null", "/dev/zero"]))


def pipe(path: Path, chance: random.Random) -> None:
    remove(path, chance)
    os.mkfifo(path)


def folder(path: Path, chance: random.Random) -> None:
    """With the name of a file."""
    remove(path, chance)
    path.mkdir()


def emptied(path: Path, chance: random.Random) -> None:
    home = path if path.is_dir() else path.parent
    for inner in home.iterdir():
        remove(inner, chance)


def only_one(path: Path, chance: random.Random) -> None:
    files = sorted(inner for inner in (path if path.is_dir() else path.parent).iterdir() if inner.is_file())
    for inner in files[1:]:
        inner.unlink()


def copied(path: Path, chance: random.Random) -> None:
    """Once more, under another name, or deeper."""
    to = _free(path.parent / chance.choice(["again", "a/b/c", "train", ".git"]) / path.name)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, to, symlinks=True) if path.is_dir() else shutil.copy(path, to)


def beside(path: Path, chance: random.Random) -> None:
    """A file that is none of the data's."""
    name = chance.choice(
        [".DS_Store", "Thumbs.db", "._a.png", "notes.txt", "a.zip", "actions.txt", "train.txt", "x.lab"]
    )
    _free(path.parent / name).write_bytes(chance.randbytes(30))


def deeper(path: Path, chance: random.Random) -> None:
    inside = path.parent / "inside"
    if not inside.exists():
        inside.mkdir()
        path.replace(inside / path.name)


def flattened(path: Path, chance: random.Random) -> None:
    """A file leaves its folder."""
    path.replace(_free(path.parent.parent / path.name))


LAYOUT: tuple[Damage, ...] = (
    *(remove, rename, rename, rename, rename_suffix, link, pipe, folder, emptied, only_one),
    *(copied, beside, deeper, flattened),
)


def _free(path: Path) -> Path:
    return path if not os.path.lexists(path) else path.with_name(f"2{path.name}")


def disturb(root: Path, chance: random.Random) -> list[str]:
    """Changes one to four files or folders below a folder; what was done."""
    done = []
    for _ in range(chance.randint(1, 4)):
        paths = sorted(path for path in root.rglob("*") if not path.is_symlink())
        files: Sequence[Path] = [path for path in paths if path.is_file()]
        if files and chance.random() < 0.65:
            done.append(damage(chance.choice(files), chance))
        elif paths:
            path, act = chance.choice(paths), chance.choice(LAYOUT)
            if act in (rename_suffix, deeper, flattened) and path.is_dir():
                continue
            act(path, chance)
            done.append(f"{act.__name__} {path.name!r}")
    return done
