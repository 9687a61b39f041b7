"""What Hydra and OmegaConf say about a configuration, said so that a person can act on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

from toolkit import registry
from toolkit.cli.config.groups import kind_of
from toolkit.cli.config.quote import key_of
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS
from toolkit.registry import KINDS, did_you_mean

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)
"""What composing raises for a person's mistakes."""


_EXTRAS = {"joblib": "sweep", "optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Hydra's launchers and sweepers that an extra of ours brings."""


def explain(error: BaseException, words: Sequence[str]) -> ToolkitError:
    """The error in one to three lines."""
    if isinstance(error, ToolkitError):
        return error
    if isinstance(error, MissingConfigException):
        return ToolkitError(_missing(error))
    if isinstance(error, OverrideParseException):
        return ToolkitError(_unreadable(error, words))
    if isinstance(error, RecursionError):
        return ToolkitError("a YAML file includes itself: a preset must not have the name of a component")
    if isinstance(error.__cause__, OmegaConfBaseException):
        return ToolkitError(_cause(error, error.__cause__))
    return ToolkitError(_other(error, words))


def no_part(kind: str) -> str:
    """What to do where a kind must be chosen and is not."""
    installed = ", ".join(registry.names(kind)) or "none"
    return f"no {kind} chosen: add {kind}=NAME or experiment=NAME; installed: {installed}"


def no_option(key: str, owner: str, options: Iterable[str], elsewhere: Sequence[str] = ()) -> str:
    """An option that its owner does not have, and which other parts have one of this name."""
    leaf, options = key.rpartition(".")[2], list(options)
    near = did_you_mean(leaf, options)
    if elsewhere and not near:
        near = f" (did you mean {' or '.join(elsewhere)}?)"
    return f"{key}: {owner} has no option {leaf}{near}\noptions: {', '.join(options) or 'none'}"


def _missing(error: MissingConfigException) -> str:
    found = re.search(r"Could not (?:find|load) '([^']+)'", str(error))
    file = error.missing_cfg_file or (found[1] if found else "")
    group, _, name = str(file).removesuffix(".yaml").rpartition("/")
    if not group:
        return f"there is no configuration {name}"
    kind = kind_of(group)
    known = list(error.options or (registry.names(kind) if kind else ()))
    called = kind or group.rpartition("/")[2]
    lines = [f"{_file_of(error)}{group}={name}: no such {called}{did_you_mean(name, known)}"]
    lines.append(f"installed: {', '.join(known) or 'none'}")
    if group.startswith("hydra/") and name in _EXTRAS:
        lines.append(f"it comes with pip install 'discrete-toolkit[{_EXTRAS[name]}]'")
    return "\n".join([*lines, *(f"note: {problem}" for problem in registry.problems())])


def _file_of(error: BaseException) -> str:
    """The YAML file that Hydra blames, where it is not the toolkit's own."""
    found = re.match(r"In '([^']+)'", str(error))
    file = found[1] if found else "train"
    own = file == "train" or file.startswith("hydra/") or kind_of(file.rpartition("/")[0])
    return "" if own else f"{file}.yaml: "


def _unreadable(error: OverrideParseException, words: Sequence[str]) -> str:
    word = getattr(error, "override", None) or next((word for word in words if word in str(error)), "")
    reason = str(error).splitlines()[0]
    if word and "=" not in word:
        return f"{word}: write KEY=VALUE"
    key, _, value = word.partition("=")
    return f"{word or reason}: the value cannot be read; as plain text it is written \"{key}='{value}'\""


def _cause(error: BaseException, cause: OmegaConfBaseException) -> str:
    key = str(cause.full_key or "")
    text = str(cause).splitlines()[0]
    if "not in struct" not in text and "Key '" not in text:
        return f"{key or error}: {_typed(text)}"
    written = re.search(r"Could not override '([^']+)'", str(error))
    key = written[1] if written else key
    head = key.partition(".")[0]
    if head in KINDS:
        return f"{key}: {no_part(head)}"
    root: Any = cause.parent_node._get_root() if cause.parent_node is not None else {}
    known = [str(name) for name in root if name != "hydra"]
    if head == "hydra":
        return f"{key}: Hydra has no such setting"
    if head in known:
        return no_option(key, head, map(str, root[head]) if isinstance(root[head], DictConfig) else ())
    return unknown(key, known)


def unknown(key: str, known: Iterable[str]) -> str:
    """A word at the top of the configuration that means nothing."""
    known = list(dict.fromkeys([*known, *KINDS, *TRAINERS, "experiment"]))
    head = key.partition(".")[0]
    near = did_you_mean(head, known)
    return f"{key}: the configuration has no {head}{near}; it has {', '.join(sorted(known))}"


def _typed(text: str) -> str:
    """OmegaConf's words about types, in ours."""
    wrong = re.match(r"Value '(.*)' of type '(\w+)' could not be converted to (\w+)", text)
    if wrong:
        names = {"Integer": "int", "Float": "float", "Boolean": "bool", "String": "str"}
        value = f"'{wrong[1]}'" if wrong[2] == "str" else wrong[1]
        return f"expects {names.get(wrong[3], wrong[3])}, got {value}"
    choice = re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text)
    if choice:
        return f"expects one of {choice[2]}, got '{choice[1]}'"
    if text.startswith("Invalid value assigned: "):
        return "expects a list, written [a,b]"
    return "null is no value for it" if text.endswith("is not Optional") else text


def _other(error: BaseException, words: Sequence[str]) -> str:
    text = str(error)
    several = re.match(r"Ambiguous value for argument '([^']*)'", text)
    if several:
        return f"{several[1]}: several values; -m trains one run for each, and a list is written [a,b]"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}: {error.problem}"
    if "Config group override must be a string" in text:
        return f"{_no_name(words)}: write KEY=VALUE, and a part as PART=NAME"
    inside = re.match(r"In '([^']+)': \w+ raised while composing config:\n(.*)\n\s*full_key: (.*)", text)
    if inside and "is not a subclass of" in inside[2]:
        group = inside[1].rpartition("/")[0]
        return f"{group}: choose one, not several"
    if inside:
        return f"{inside[1]}.yaml: {inside[3]}: {_typed(inside[2])}"
    part = re.search(r"Could not override '([^']+)'. No match in the defaults list", text)
    if "@experiment." in text and "Could not override" in text:
        file = re.match(r"In '([^']+)'", text)
        return f"{file[1] if file else 'the experiment'}.yaml: its first line must be  # @package _global_"
    if part:
        at = re.match(r"In '([^']+)'", text)
        return f"{at[1] + '.yaml: override ' if at else ''}{_no_group(part[1])}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {_typed(text.splitlines()[0])}"
    return _first_lines(text)


def _no_group(group: str) -> str:
    outer, _, leaf = group.rpartition("/")
    if outer:
        return f"{group.replace('/', '.')}: the {outer.replace('/', '.')} chosen has no part {leaf}"
    return unknown(group, [])


def _no_name(words: Sequence[str]) -> str:
    groups = (*KINDS, *TRAINERS, "experiment", "")
    pattern = re.compile(r"[-+.\d]+(e[-+]?\d+)?|true|false|\{.*", re.IGNORECASE)
    found = (word for word in words if key_of(word) in groups and pattern.fullmatch(word.partition("=")[2]))
    return next(found, "")


def _first_lines(text: str, most: int = 3) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    return "\n".join(lines[:most])


def resolved(config: Any) -> Any:
    """A composed configuration as plain dict, list, number and text; what is missing stays ``???``."""
    try:
        return OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ToolkitError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from None
