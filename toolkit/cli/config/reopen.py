"""A saved run's configuration, changed by the words of a new command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from toolkit.cli.config import errors, groups
from toolkit.cli.config.begun import continued
from toolkit.cli.config.check import mapping_of, validate
from toolkit.cli.config.compose import Composed, composed_node
from toolkit.cli.config.quote import key_of, prepare, text
from toolkit.errors import ToolkitError
from toolkit.registry import KINDS, LISTS, find
from toolkit.schema import signature

_REPLACEABLE = ("prior", *LISTS)
KEPT = ("dim", "seed", "init")
"""Values that a saved run keeps, as what it has learned began with them."""


def reopen(frozen: Mapping[str, Any], words: Sequence[str]) -> Composed:
    """A saved run's configuration, changed by this command's words.

    The parts are the saved ones, by name, with the saved values; ``prior=``, ``metric=`` and ``logger=`` may choose
    others. Saved options that no longer exist, and options that are new since, are reported as notices.
    """
    overrides = [word for word in prepare(words) if not _same(word, frozen)]
    swaps = [word for word in overrides if _swaps(word, frozen)]
    kept = {key: value for key, value in frozen.items() if not _replaced(key, swaps)}
    composed = composed_node([*_choices(kept), *swaps], None)
    composed.pop("hydra")
    notices = _drift(composed, kept)
    with open_dict(composed):
        _restore(composed, kept)
        _apply(composed, [word for word in overrides if word not in swaps])
    typed = [key_of(word) for word in overrides]
    try:
        config, dropped = validate(composed, typed, complete=True)
    except ToolkitError as error:  # saved options that are gone may be the reason
        raise ToolkitError("\n".join([str(error), *notices])) from error
    _check_stage(config["stage"], typed)
    return Composed(continued(config, frozen, typed), (*notices, *dropped))


def _check_stage(stage: str, typed: Sequence[str]) -> None:
    """ToolkitError where a word is about a stage that this continuation does not train."""
    if "stage" in typed:
        return
    unused = {"prior": ("trainer",), "autoencoder": ("prior_trainer", "prior")}.get(stage, ())
    for word in typed:
        if word.partition(".")[0] in unused and word != "trainer.allow_changed_data":
            raise ToolkitError(f"{word}: this run continues with stage={stage}, which does not use it; add stage=all")


def _choices(config: Mapping[str, Any]) -> list[str]:
    """The overrides that choose a saved configuration's parts."""
    words = ["~experiment"]
    for kind in (kind for kind in KINDS if kind in config):
        if kind in LISTS:
            names = [_saved_name(kind, part) for part in mapping_of(config[kind] or {}, kind).values()]
            words.append(f"{kind}=[{','.join(names)}]")
        else:
            words += _choice(kind, kind, config[kind])
    return words


def _choice(kind: str, group: str, part: Any) -> list[str]:
    if part is None:
        return [f"~{group}"]
    name = _saved_name(kind, part)
    words = [f"{group}={name}"]
    for option in signature(kind, name).options:
        if option.nested and isinstance(part.get(option.name), Mapping):
            words += _choice(option.nested, f"{group}/{option.name}", part[option.name])
    return words


def _saved_name(kind: str, part: Any) -> str:
    name = part.get("name") if isinstance(part, Mapping) else None
    if not isinstance(name, str):
        raise ToolkitError(f"the saved configuration names no {kind}")
    return find(kind, name).name


def _same(word: str, frozen: Mapping[str, Any]) -> bool:
    """Whether a word repeats what the run has already."""
    key, _, value = word.partition("=")
    saved = frozen.get(key)
    if key in KINDS and isinstance(saved, Mapping):
        return bool(value == saved.get("name"))
    return key in KEPT and value in ("null" if saved is None else str(saved), text(str(saved)))


def _swaps(word: str, frozen: Mapping[str, Any]) -> bool:
    """Whether a word chooses another part; only those of ``_REPLACEABLE`` may be replaced in a saved run."""
    group = word.partition("=")[0].lstrip("+~")
    if group in KEPT:
        saved = "null" if frozen.get(group) is None else frozen.get(group)
        raise ToolkitError(f"{word}: a saved run keeps its {group} of {saved}; start a new run for another")
    if group == "experiment" or (groups.kind_of(group) and group.partition("/")[0] not in _REPLACEABLE):
        kept = f"a saved run keeps its parts, only {', '.join(f'{kind}=' for kind in _REPLACEABLE)} may change"
        raise ToolkitError(f"{word}: {kept}; start a new run for another model")
    return groups.kind_of(group) is not None


def _replaced(key: str, swaps: Sequence[str]) -> bool:
    return any(key_of(word).partition(".")[0] == key for word in swaps)


def _drift(composed: DictConfig, frozen: Mapping[str, Any]) -> list[str]:
    """Notices of options that were added or removed since a run was saved; one without a value was left open."""
    notices = []
    for kind in (kind for kind in KINDS if isinstance(frozen.get(kind), Mapping)):
        parts = frozen[kind].items() if kind in LISTS else [(kind, frozen[kind])]
        for name, saved in parts:
            notices += _changes(kind, saved, composed[kind][name] if kind in LISTS else composed[kind])
    return notices


def _changes(kind: str, saved: Mapping[str, Any], now: DictConfig) -> list[str]:
    known = set(now.keys())  # an option without a default is among the keys, but not "in" the node
    gone = [str(key) for key in saved if key not in known]
    new = [str(key) for key in now if key not in saved and not OmegaConf.is_missing(now, key)]
    title = f"note: {kind}={saved['name']}: "
    notices = [f"{title}the saved {', '.join(gone)} no longer exists: ignored"] if gone else []
    if new:
        values = ", ".join(f"{key}={now._get_node(key)!s}" for key in new)
        notices.append(f"{title}new since the run was saved: {values}")
    return notices


def _restore(composed: DictConfig, values: Mapping[str, Any]) -> None:
    try:
        _overlay(composed, values)
        if values.get("name") is not None:  # the run's own, while that of a part is its choice
            composed.name = _literally(values["name"])
    except errors.COMPOSING as error:
        raise ToolkitError(f"the saved configuration: {errors.explain(error, [])}") from error


def _overlay(node: DictConfig, saved: Mapping[str, Any]) -> None:
    """Saved values over a freshly composed node, as far as that still has the keys."""
    known = set(node.keys())
    for key, value in saved.items():
        if key not in known or key == "name":
            continue
        if isinstance(value, Mapping) and isinstance(node._get_node(key), DictConfig) and node[key]:
            _overlay(node[key], value)
        else:
            node[key] = _literally(value)


def _literally(value: Any) -> Any:
    """A saved value, its text escaped so that it is never read as an interpolation."""
    if isinstance(value, Mapping):
        return {key: _literally(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literally(item) for item in value]
    # backslashes before an escape are halved
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _apply(composed: DictConfig, words: Iterable[str]) -> None:
    words = list(words)
    try:
        for override in OverridesParser.create().parse_overrides(words):
            if override.is_sweep_override() or override.is_delete():
                raise ToolkitError(f"{override.input_line}: a saved run takes one value for each key")
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except errors.COMPOSING as error:
        raise errors.explain(error, words) from error
