"""``toolkit completion bash|zsh``: a script for the shell, and the candidates that it queries."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from toolkit import registry
from toolkit.cli.arguments import keyed, takes_words
from toolkit.cli.commands import COMMANDS
from toolkit.cli.config import groups
from toolkit.cli.own_commands import summaries
from toolkit.errors import ToolkitError
from toolkit.registry import FAMILY, KINDS, REGISTERED
from toolkit.schema import Option, spell_value

USAGE = """toolkit completion bash|zsh

Prints a completion script; put this line into ~/.bashrc or ~/.zshrc:

  source <(toolkit completion bash)"""

# Bash splits words at = and : if COMP_WORDBREAKS has them, and then replaces only what follows.
BASH = r"""_toolkit() {
  local IFS=$'\n' word="${COMP_LINE:0:COMP_POINT}"
  COMPREPLY=($(toolkit completion query "$word" 2>/dev/null))
  word="${word##* }"
  local mark
  for mark in = :; do
    if [[ $word == *$mark* && $COMP_WORDBREAKS == *$mark* ]]; then
      COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*"$mark"}"}"}")
      word="${word##*"$mark"}"
    fi
  done
}
complete -o nospace -F _toolkit toolkit"""

ZSH = r"""_toolkit() {
  local -a found
  found=("${(@f)$(toolkit completion query "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
  compadd -Q -S '' -- ${found:#}
}
compdef _toolkit toolkit"""

COMPOSING = ("train", "check")
"""Commands whose words compose a configuration."""
FLAGS = ("--cfg ", "--config-dir ", "--help ", "--info ", "--multirun ")
_RUNS = ("run", "init")
_PATHS = ("run", "out", "init", "file", "root", "files", "path", "dir", "settings")


def main(args: Sequence[str]) -> int:
    """Prints a script; ``query LINE`` prints the words that may stand at the line's end."""
    if len(args) == 2 and args[0] == "query":
        print("\n".join(candidates(args[1])))
        return 0
    if args and args[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    scripts = {"bash": BASH, "zsh": ZSH}
    if len(args) != 1 or args[0] not in scripts:
        raise ToolkitError("write toolkit completion bash, or zsh")
    print(scripts[args[0]])
    return 0


def candidates(line: str) -> list[str]:
    """What the last word of a line may become; a finished word ends with a space."""
    words, last = _words(line)
    if not words:
        options: Iterable[str] = (f"{command} " for command in (*COMMANDS, *summaries()))
    elif words[0] in COMPOSING:
        options = FLAGS if last.startswith("-") else _configuration(words[1:], last, words[0])
    elif words[0] == "plugins":
        options = (f"{word} " for word in (*_names(words[1:]), "--json", "--check"))
    elif words == ["adopt"]:
        options = (f"{name} " for name in registry.names(FAMILY))
    elif words[0] == "completion":
        options = ("bash ", "zsh ")
    else:
        options = _options(words[0], words[1:], last)
    return sorted({_escaped(word) for word in options if word.startswith(last)})


def _words(line: str) -> tuple[list[str], str]:
    """The words after ``toolkit`` and its global flags, and the unfinished last one."""
    try:
        words = shlex.split(line)
    except ValueError:  # inside a quotation
        words = line.split()
    last = "" if line[-1:].isspace() or not words else words.pop()
    words = words[1:]
    while words and words[0].startswith("--"):
        words = words[2 if words[0] == "--plugin" else 1 :]
    return words, last


def _escaped(word: str) -> str:
    """A word as a shell takes it; the space that ends it stays."""
    end = " " if word.endswith(" ") else ""
    return re.sub(r"([^\w@%+=:,./~\[\]-])", r"\\\1", word.removesuffix(" ")) + end


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """What ``plugins`` takes: a kind, then one of its names."""
    return registry.names(words[0]) if words and words[0] in REGISTERED else tuple(REGISTERED)


def _configuration(words: Sequence[str], last: str, command: str) -> Iterator[str]:
    key, separator, value = last.partition("=")
    if separator:
        for candidate in _values(key, value, words):
            yield f"{key}={candidate}"
        return
    yield from ("run=", "experiment=") if command == "train" else ("experiment=",)
    yield from (f"{kind}=" for kind in KINDS)
    yield from _keys(_composed(words), last)


def _composed(words: Sequence[str]) -> Mapping[str, Any]:
    """The configuration so far; wrong words are left out."""
    from toolkit.cli.config.compose import compose

    chosen = [word for word in words if "=" in word and re.match(r"[\w/]+=", word)]
    for attempt in ([word for word in words if not word.startswith("-")], chosen, []):
        try:
            return compose(attempt, complete=False).values
        except ToolkitError:
            continue
    return {}


def _keys(config: Mapping[str, Any], last: str) -> Iterator[str]:
    """The keys one level below what is typed."""
    head = last.rpartition(".")[0]
    node: Any = config
    for part in filter(None, head.split(".")):
        node = node.get(part) if isinstance(node, Mapping) else None
    for key, value in node.items() if isinstance(node, Mapping) else ():
        whole = f"{head}.{key}" if head else str(key)
        if isinstance(value, Mapping) and value:
            yield f"{whole}."
        elif key != "name" or "." in head:  # a part itself is chosen as PART=NAME
            yield f"{whole}="


def _values(key: str, value: str, words: Sequence[str]) -> Iterator[str]:
    from toolkit.options import TRAINERS

    group = key.removesuffix(".name").replace(".", "/")
    kind = groups.kind_of(group)
    if key == "experiment" or kind or key in TRAINERS:
        names = (*(registry.names(kind) if kind else ()), *groups.presets(group))
        yield from (f"{name} " for name in names)
        return
    choices = _choices(key, words)
    yield from (f"{spell_value(choice)} " for choice in choices)
    if not choices and key.rpartition(".")[2] in _PATHS:
        yield from _files(value)
        yield from _pulled(value) if key in _RUNS else ()


def _choices(key: str, words: Sequence[str]) -> tuple[Any, ...]:
    """The values of a Literal or a bool option."""
    from toolkit import schema
    from toolkit.options import TRAINERS, RunOptions

    path, _, leaf = key.rpartition(".")
    if not path or path in TRAINERS:
        options = schema.fields(TRAINERS[path] if path else RunOptions)
        return next((option.choices for option in options if option.name == leaf), ())
    node: Any = _composed(words)
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    in_list = groups.listed(path)
    kind = in_list[0] if in_list else groups.kind_of(path.replace(".", "/"))
    if not kind or not isinstance(node, Mapping):
        return ()
    option = schema.signature(kind, node["name"]).option(leaf)
    return option.choices if option else ()


def _options(command: str, words: Sequence[str], last: str) -> Iterator[str]:
    """The keys and values of a command that composes nothing."""
    if command not in COMMANDS:
        return
    module = import_module(COMMANDS[command][0].partition(":")[0])
    known = keyed(getattr(module, f"{command.title().replace('-', '')}Options"))
    key, separator, value = last.partition("=")
    if separator:
        yield from (f"{key}={candidate}" for candidate in _option_values(key, value, known.get(key), words))
        return
    conditions = [condition["name"] for condition in _conditions(words)]
    for name, option in known.items():
        inner = {"condition": conditions, "dataset": ["root"]}.get(name)
        if inner is None and not takes_words(name, option):
            yield f"{name}="
        yield from (f"{name}.{subkey}=" for subkey in inner or ())
    yield from _files(last) if last and any(takes_words(*pair) for pair in known.items()) else ()


def _option_values(key: str, value: str, option: Option | None, words: Sequence[str]) -> Iterator[str]:
    head, _, leaf = key.partition(".")
    if option and option.choices:
        yield from (f"{spell_value(choice)} " for choice in option.choices)
    elif head == "condition":
        labels = (known["labels"] for known in _conditions(words) if known["name"] == leaf)
        yield from (f"{label} " for names in labels for label in names)
    elif key == "prior":
        yield from (f"{path.name} " for path in (_run(words) / "priors").glob("*"))
    elif key.rpartition(".")[2] in _PATHS:
        yield from _files(value)
        yield from _pulled(value) if key in _RUNS else ()


def _pulled(start: str) -> Iterator[str]:
    """Runs of the Hub of which a copy is here."""
    from toolkit import hub

    yield from (f"{word} " for word in hub.copies() if start and word.startswith(start))


def _run(words: Sequence[str]) -> Path:
    from toolkit import hub

    word = next((word[4:] for word in words if word.startswith("run=")), ".")
    try:
        return (hub.here(word) if hub.is_reference(word) else None) or Path(word)
    except ToolkitError:  # an unfinished reference
        return Path(word)


def _conditions(words: Sequence[str]) -> list[dict[str, Any]]:
    """The conditions of the run that the words name, as its spec.json has them."""
    from toolkit.runs.plain import read_json

    try:
        conditions: list[dict[str, Any]] = read_json(_run(words) / "spec.json")["data"]["conditions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return conditions


def _files(start: str) -> Iterator[str]:
    folder, name = os.path.split(start)
    here = Path(folder or ".").expanduser()
    for path in sorted(here.iterdir()) if here.is_dir() else ():
        if path.name.startswith(name) and (name or not path.name.startswith(".")):
            yield os.path.join(folder, path.name) + ("/" if path.is_dir() else " ")
