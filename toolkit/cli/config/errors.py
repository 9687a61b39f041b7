"""Errors of Hydra and OmegaConf about a configuration, reworded so that the user can act on them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import EnumMeta
from typing import Any, get_args

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import (
    BooleanNode,
    DictConfig,
    EnumNode,
    FloatNode,
    IntegerNode,
    ListConfig,
    OmegaConf,
    StringNode,
)
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

from toolkit import registry
from toolkit.cli.config.groups import kind_of
from toolkit.cli.config.quote import key_of
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS
from toolkit.registry import KINDS, did_you_mean
from toolkit.runs.formats import LOGGERS

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError, OverflowError)
"""What composing raises for the user's mistakes."""


# What only Hydra's text says: its exceptions have no field for the file, nor for the word that does not compose.
_FILE = re.compile(r"In '([^']+)'")
_KEY = re.compile(r"full_key: (\S+)")
_SEVERAL = re.compile(r"Ambiguous value for argument '([^']*)'")
_NO_GROUP = re.compile(r"Could not override '([^']+)'. No match in the defaults list")
_NO_NAME = "Config group override must be a string"
_NO_PACKAGE = "@experiment."

_TYPES: dict[type, str] = {IntegerNode: "int", FloatNode: "float", BooleanNode: "bool", StringNode: "str"}

_EXTRAS = {"joblib": "sweep", "optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Hydra's launchers and sweepers, and our extra that installs them."""


OTHERS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "max_steps": "steps",
    "num_steps": "steps",
    "train_steps": "steps",
    "max_iters": "steps",
    "iterations": "steps",
    "epochs": "steps",
    "max_epochs": "steps",
    "num_workers": "workers",
    "gradient_clip_val": "clip",
    "grad_clip": "clip",
    "max_grad_norm": "clip",
    "accumulate_grad_batches": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "ema_decay": "ema",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "warmup_steps": "warmup",
    "devices": "ranks",
    "gpus": "ranks",
    "mixed_precision": "precision",
    "accelerator": "device",
    "monitor": "best",
    "mode": "best_mode",
    "save_every": "checkpoint_every",
    "eval_every": "validate_every",
    "val_check_interval": "validate_every",
}
"""What options of training are called elsewhere, and here."""
WHOLE = {
    "resume": "run=DIR",
    "resume_from": "run=DIR",
    "ckpt_path": "run=DIR",
    "output_dir": "hydra.run.dir=DIR",
    "out": "hydra.run.dir=DIR",
    "run_name": "name",
    "embedding_dim": "dim",
    "latent_dim": "dim",
    "note": "extra.note",
    "notes": "extra.notes",
    "callbacks": "logger",
}
"""The same of what is not a trainer's."""


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
    if isinstance(error, OverflowError):  # a whole number that no float can hold, which OmegaConf lets through
        key = _KEY.search(str(error))
        return ToolkitError(f"{key[1] if key else 'a value'}: must be a finite number")
    for inner in (error, error.__cause__, error.__context__):
        if isinstance(inner, OmegaConfBaseException):
            return ToolkitError(_unfit(error, inner, words))
    return ToolkitError(_other(error, words))


def no_part(kind: str) -> str:
    """What to do where a kind must be chosen and is not."""
    installed = ", ".join(registry.names(kind)) or "none"
    return f"no {kind} chosen: add {kind}=NAME or experiment=NAME; installed: {installed}"


def no_option(key: str, owner: str, options: Iterable[str], elsewhere: Sequence[str] = ()) -> str:
    """An option that its owner does not have, and which other parts have one of this name."""
    leaf, options = key.rpartition(".")[2], list(options)
    near = did_you_mean(leaf, options) or _elsewhere_called(leaf, options)
    if elsewhere and not near:
        near = f" (did you mean {' or '.join(elsewhere)}?)"
    return f"{key}: {owner} has no option {leaf}{near}\noptions: {', '.join(options) or 'none'}"


def _missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
    if not group:
        return f"no such configuration: {name}"
    kind = kind_of(group)
    known = list(error.options or (registry.names(kind) if kind else ()))
    called = kind or group.rpartition("/")[2]
    lines = [f"{_file_of(error)}{group}={name}: no such {called}{did_you_mean(name, known)}"]
    lines.append(f"installed: {', '.join(known) or 'none'}")
    if group.startswith("hydra/") and name in _EXTRAS:
        lines.append(f"it comes with pip install 'discrete-toolkit[{_EXTRAS[name]}]'")
    return "\n".join([*lines, *(f"note: {problem}" for problem in registry.problems())])


def _file_of(error: BaseException) -> str:
    """The YAML file that Hydra names, where it is not the toolkit's own."""
    match = _FILE.match(str(error))
    file = match[1] if match else "train"
    own = file == "train" or file.startswith("hydra/") or kind_of(file.rpartition("/")[0])
    return "" if own else f"{file}.yaml: "


def _unreadable(error: OverrideParseException, words: Sequence[str]) -> str:
    word = error.override or ""
    if word and "=" not in word:
        return f"{word}: write KEY=VALUE"
    key, _, value = word.partition("=")
    what = word or str(error).splitlines()[0]
    return f"{what}: the value cannot be read; as plain text it is written \"{key}='{value}'\""


def _unfit(error: BaseException, inner: OmegaConfBaseException, words: Sequence[str]) -> str:
    """What OmegaConf rejects, and the file that Hydra was reading, if any."""
    file = _FILE.match(str(error))
    prefix = f"{file[1]}.yaml: " if file else ""
    if isinstance(inner, ConfigKeyError | ConfigAttributeError):
        return f"{prefix}{_no_key(inner, words)}"
    if inner.full_key:
        return f"{prefix}{inner.full_key}: {_typed(inner)}"
    group = file[1].rpartition("/")[0] if file else ""
    if isinstance(inner, ValidationError) and kind_of(group):
        return f"{group}: choose one, not several"
    return f"{prefix}{_typed(inner)}"


def _no_key(error: OmegaConfBaseException, words: Sequence[str]) -> str:
    """A key that the configuration does not have."""
    key = str(error.full_key)
    key = next((whole for whole in map(key_of, words) if whole.startswith(f"{key}.")), key)
    head = key.partition(".")[0]
    if head in KINDS:
        return f"{key}: {no_part(head)}"
    root: Any = error.parent_node._get_root() if error.parent_node is not None else {}
    known = [str(name) for name in root if name != "hydra"]
    if head == "hydra":
        return f"{key}: Hydra has no such setting"
    if head in known:
        return no_option(key, head, map(str, root[head]) if isinstance(root[head], DictConfig) else ())
    return unknown(key, known)


def unknown(key: str, known: Iterable[str]) -> str:
    """An unknown key at the top of the configuration."""
    known = list(dict.fromkeys([*known, *KINDS, *TRAINERS, "experiment", "extra"]))
    head = key.partition(".")[0]
    if head in LOGGERS:
        return f"{key}: this is a logger now: logger={LOGGERS[head]}, or logger=[] for none"
    near = did_you_mean(head, [*known, *WHOLE]) if head not in WHOLE else f" (did you mean {WHOLE[head]}?)"
    trained = _of_trainers(key.rpartition(".")[2]) or _of_trainers(head)
    near = f" (did you mean {' or '.join(trained)}?)" if trained else near
    free = "" if near else "; what is yours goes below extra, such as extra.note=VALUE"
    return f"{key}: the configuration has no {head}{near}; it has {', '.join(sorted(known))}{free}"


def _elsewhere_called(leaf: str, options: Sequence[str]) -> str:
    """The option that other programs call so."""
    name = OTHERS.get(leaf)
    return f" (did you mean {name}?)" if name in options else ""


def _of_trainers(leaf: str) -> list[str]:
    """The trainers' options of this name, or of what other programs call so."""
    name = OTHERS.get(leaf, leaf)
    return [f"{trainer}.{name}" for trainer, cls in TRAINERS.items() if name in cls.__dataclass_fields__]


def appended(word: str) -> ToolkitError:
    """A ``+`` before a choice that is there already."""
    plain = word.lstrip("+")
    return ToolkitError(f"{word}: {plain.partition('=')[0]} is there to be chosen: write {plain}")


def _typed(error: OmegaConfBaseException) -> str:
    """OmegaConf's error for a value that does not fit its node, in our words."""
    node, value = error.child_node, error.value
    shown = f"'{value}'" if isinstance(value, str) else value
    if not isinstance(error, ValidationError) or isinstance(error, InterpolationResolutionError):
        return str(error).splitlines()[0]
    items = get_args(error.ref_type)
    choices = (
        node.enum_type if isinstance(node, EnumNode) else next((i for i in items if isinstance(i, EnumMeta)), None)
    )
    if choices is not None:
        return f"expects one of {', '.join(choices.__members__)}, got {shown}"
    if isinstance(node, ListConfig):
        return "expects a list, written [a,b]"
    if node is not None and value is None:
        return "null is not allowed"
    wanted = _TYPES.get(type(node)) or next((item.__name__ for item in items), None)
    return f"expects {wanted}, got {shown}" if wanted else str(error).splitlines()[0]


def _other(error: BaseException, words: Sequence[str]) -> str:
    text = str(error)
    file = _FILE.match(text)
    if several := _SEVERAL.match(text):
        return f"{several[1]}: several values; -m trains one run for each, and a list is written [a,b]"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}:{mark.line + 1}: {error.problem}"
    if _NO_NAME in text:
        return f"{_no_name(words)}: write KEY=VALUE, and a part as PART=NAME"
    if _NO_PACKAGE in text and "Could not override" in text:
        return f"{file[1] if file else 'the experiment'}.yaml: its first line must be  # @package _global_"
    if part := _NO_GROUP.search(text):
        return f"{file[1] + '.yaml: override ' if file else ''}{_no_group(part[1])}"
    return _first_lines(text)


def _no_group(group: str) -> str:
    outer, _, leaf = group.rpartition("/")
    if outer:
        return f"{group.replace('/', '.')}: the {outer.replace('/', '.')} chosen has no part {leaf}"
    return unknown(group, [])


def _no_name(words: Sequence[str]) -> str:
    groups = (*KINDS, *TRAINERS, "experiment", "extra", "")
    pattern = re.compile(r"[-+.\d]+(e[-+]?\d+)?|true|false|\{.*", re.IGNORECASE)
    wrong = (word for word in words if key_of(word) in groups and pattern.fullmatch(word.partition("=")[2]))
    return next(wrong, "")


def _first_lines(text: str, most: int = 3) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
    return "\n".join(lines[:most])


def resolved(config: Any) -> Any:
    """A composed configuration as plain dict, list, number and text; missing values stay ``???``."""
    try:
        return OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ToolkitError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from None
