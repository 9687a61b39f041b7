"""Words of the command line to one plain, validated configuration; Hydra is left behind here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from toolkit import registry, schema
from toolkit.cli.config import errors, groups, source
from toolkit.cli.config.nodes import chosen, plain
from toolkit.cli.config.quote import key_of, prepare, text
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS, RunOptions
from toolkit.registry import KINDS, find
from toolkit.schema import Option, Signature, signature

VERSION: dict[str, str] = {} if hydra.__version__ >= "1.4" else {"version_base": "1.3"}
_RUN = schema.fields(RunOptions)
_CONDITIONS = tuple(Option(part, list[str], []) for part in ("decoder", "prior"))
_REPLACEABLE = ("prior", "metric")


@dataclass(frozen=True)
class Composed:
    """What the words of a command ask for.

    ``values``: plain dict, list, number, string, bool and None, in a fixed order. Every kind is a key: a dict with
    ``name`` and the options, None where none is chosen; ``metric`` is a dict of such dicts by name.
    """

    values: dict[str, Any]
    notices: tuple[str, ...] = ()
    """What a person should know, a line each: options that were dropped or have appeared since."""
    experiment: str | None = None

    @property
    def config(self) -> RunConfig:
        """The values as one object; they are complete."""
        return RunConfig.read(self.values)


def compose(words: Sequence[str], *, folder: str | None = None, complete: bool = True) -> Composed:
    """The configuration that the words ask for, validated.

    ``folder`` holds further YAML files. ToolkitError says what is wrong; unless ``complete``, parts and
    values may be missing.
    """
    overrides = prepare(words)
    composed = _composed(overrides, folder)
    experiment = composed.pop("hydra").runtime.choices.get("experiment")
    config, notices = validate(composed, [key_of(word) for word in overrides], complete)
    return Composed(config, notices, experiment if experiment != "null" else None)


def reopen(frozen: Mapping[str, Any], words: Sequence[str]) -> Composed:
    """A saved run's configuration under this command's words.

    The parts are the saved ones, by name, with the saved values; ``prior=`` and ``metric=`` may choose
    others. Saved options that no longer exist, and options that have appeared since, are told as notices.
    """
    overrides = [word for word in prepare(words) if not _same(word, frozen)]
    swaps = [word for word in overrides if _swaps(word, frozen)]
    kept = {key: value for key, value in frozen.items() if not _replaced(key, swaps)}
    composed = _composed([*_choices(kept), *swaps], None)
    composed.pop("hydra")
    notices = _drift(composed, kept)
    with open_dict(composed):
        _restore(composed, kept)
        _apply(composed, [word for word in overrides if word not in swaps])
    typed = [key_of(word) for word in overrides]
    try:
        config, dropped = validate(composed, typed, complete=True)
    except ToolkitError as error:  # what was saved and is gone may be the reason
        raise ToolkitError("\n".join([str(error), *notices])) from error
    _reached(config["stage"], typed)
    return Composed(config, (*notices, *dropped))


def _reached(stage: str, typed: Sequence[str]) -> None:
    """ToolkitError where a word is about a stage that this continuation does not train."""
    if "stage" in typed:
        return
    passed_over = {"prior": ("trainer",), "autoencoder": ("prior_trainer", "prior")}.get(stage, ())
    for word in typed:
        if word.partition(".")[0] in passed_over:
            raise ToolkitError(f"{word}: this run continues with stage={stage}, which does not use it; add stage=all")


def validate(composed: DictConfig, typed: Sequence[str], complete: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A composed configuration, without Hydra's own part, as a plain one, and the notices.

    ``typed`` are the dotted keys that a person wrote, which are never dropped.
    """
    check = _Check(tuple(typed), complete)
    values = errors.resolved(composed)
    known = [*(option.name for option in _RUN), *KINDS, "conditions", *TRAINERS, "prior_dataset"]
    for key in values:
        if key not in known:
            raise ToolkitError(errors.unknown(key, known))
    config = {option.name: check.value(option, values.get(option.name), option.name) for option in _RUN}
    _ranged(RunOptions, config, "")
    for kind in KINDS:
        config[kind] = check.part(kind, kind, composed.get(kind), values.get(kind))
    check.likelihood(config)
    config["conditions"] = check.table("conditions", values["conditions"], _CONDITIONS)
    for trainer, options in TRAINERS.items():
        config[trainer] = check.table(trainer, values.get(trainer), schema.fields(options))
        _ranged(options, config[trainer], f"{trainer}.")
    config["prior_dataset"] = check.prior_dataset(values["prior_dataset"], config["dataset"])
    return config, tuple(check.notices)


def _composed(overrides: Sequence[str], folder: str | None) -> DictConfig:
    source.install()
    for word in overrides:
        _one_owner(*word.partition("=")[::2])
    if folder and not any(key_of(word) == "hydra.searchpath" for word in overrides):
        overrides = [*overrides, f"hydra.searchpath=[{text(f'file://{folder}')}]"]
    try:
        with initialize_config_module("toolkit.conf", job_name="train", **VERSION):
            found = hydra.compose("train", overrides=list(overrides), return_hydra_config=True)
    except errors.COMPOSING as error:
        raise errors.explain(error, overrides) from error
    OmegaConf.set_struct(found, False)
    return found


def _one_owner(group: str, name: str) -> None:
    """ToolkitError where more than one package brings a YAML file of this name."""
    kind = groups.kind_of(group)
    if group != "experiment" and (kind is None or name in registry.names(kind)):
        return
    owners = groups.claims(group, name)
    if len(owners) > 1:
        raise ToolkitError(f"{group}={name} is brought by {' and '.join(owners)}: uninstall one of them")


@dataclass
class _Check:
    """One pass over a composed configuration."""

    typed: tuple[str, ...]
    complete: bool
    notices: list[str] = field(default_factory=list)

    def part(self, kind: str, path: str, node: Any, values: Any) -> dict[str, Any] | None:
        """A component with its options in the signature's order, nested parts included."""
        if kind == path == "metric":
            return {name: self.part(kind, f"{path}.{name}", node[name], values[name]) for name in values or {}}
        if values is None or values == schema.MISSING:
            self._absent(kind, path)
            return None
        found = _chosen(kind, path, node, values)
        self._leftovers(found, path, values)
        config: dict[str, Any] = {"name": found.name}
        for option in found.options:
            config[option.name] = self._option(option, f"{path}.{option.name}", node, values)
        return config

    def likelihood(self, config: dict[str, Any]) -> None:
        """None for a decoder that asks for none, whichever was chosen for another."""
        decoder, chosen = config["decoder"], config["likelihood"]
        if decoder and chosen and "likelihood" not in signature("decoder", decoder["name"]).given:
            taken = f"decoder={decoder['name']} models the data itself"
            self.notices.append(f"note: {taken}: likelihood={chosen['name']} is ignored")
            config["likelihood"] = None

    def table(self, path: str, values: Any, options: Sequence[Option]) -> dict[str, Any]:
        """Options that belong to no component."""
        values = _mapping(values, path)
        names = [option.name for option in options]
        for key in values:
            if key not in names:
                raise ToolkitError(errors.no_option(f"{path}.{key}", path, names))
        pairs = ((option, values.get(option.name, option.default)) for option in options)
        return {option.name: self.value(option, value, f"{path}.{option.name}") for option, value in pairs}

    def prior_dataset(self, values: Any, dataset: Mapping[str, Any] | None) -> dict[str, Any]:
        """Options of the dataset that the prior's stage reads otherwise."""
        given = _mapping(values, "prior_dataset")
        if dataset is None:
            return given
        found = signature("dataset", dataset["name"])
        config = {}
        for key, value in given.items():
            option = found.option(key)
            if option is None:
                raise ToolkitError(_no_option(found, "prior_dataset", key))
            config[key] = self.value(option, value, f"prior_dataset.{key}")
        return config

    def value(self, option: Option, value: Any, path: str) -> Any:
        """One value, of the option's type."""
        if isinstance(value, str) and value == schema.MISSING:
            if self.complete:
                raise ToolkitError(f"{path}: no value; add {path}=VALUE ({schema.spell(option.type)})")
            return None
        return plain(option.convert(value, path))

    def _absent(self, kind: str, path: str) -> None:
        if self.complete and path in registry.REQUIRED:
            raise ToolkitError(errors.no_part(kind))
        if self.complete and path not in KINDS:
            installed = ", ".join(registry.names(kind)) or "none"
            raise ToolkitError(f"{path}: no {kind} chosen: add {path}.name=NAME; installed: {installed}")

    def _option(self, option: Option, path: str, node: Any, values: Mapping[str, Any]) -> Any:
        value = values.get(option.name, schema.MISSING)
        if option.nested:
            inner = None if value == schema.MISSING else node.get(option.name)
            return self.part(option.nested, path, inner, value)
        return self.value(option, value, path)

    def _leftovers(self, found: Signature, path: str, values: Mapping[str, Any]) -> None:
        """Unknown options: a person's are mistakes, an experiment's may be meant for another part."""
        left = [key for key in values if key != "name" and not found.option(key)]
        for key in left:
            if self._typed(f"{path}.{key}") or not _owners(found.kind, key):
                raise ToolkitError(_no_option(found, path, key))
        if left:
            owners = set.intersection(*(_owners(found.kind, key) for key in left)) or {"another"}
            meant = f"set for {path}={' or '.join(sorted(owners))}"
            self.notices.append(f"note: {path}={found.name} has no {', '.join(left)} ({meant}): ignored")

    def _typed(self, key: str) -> bool:
        return any(word == key or word.startswith(f"{key}.") for word in self.typed)


def _chosen(kind: str, path: str, node: Any, values: Any) -> Signature:
    name = chosen(node) if isinstance(node, DictConfig) else None
    written = values.get("name") if isinstance(values, Mapping) else values
    if name is None:
        key = f"{path}.name" if "." in path else path
        listed = f"choose it by name, {key}=NAME; installed: {', '.join(registry.names(kind)) or 'none'}"
        raise ToolkitError(f"{path}: no {kind} was chosen for these options; {listed}")
    if written != name:
        cure = f"in YAML a part is chosen in the defaults list: override /{path.replace('.', '/')}: {written}"
        raise ToolkitError(f"{path}.name: {written} stands there as a value; {cure}")
    return signature(kind, name)


def _no_option(found: Signature, path: str, key: str) -> str:
    options = [option.name for option in found.options]
    elsewhere = [f"{kind}.{key}" for kind in KINDS if kind != found.kind and _owners(kind, key)]
    return errors.no_option(f"{path}.{key}", str(find(found.kind, found.name)), options, elsewhere)


def _owners(kind: str, option: str) -> set[str]:
    """Which components of a kind have an option of this name."""
    found = set()
    for name in registry.names(kind):
        try:
            found |= {name} if signature(kind, name).option(option) else set()
        except ToolkitError:  # told to whoever selects it
            continue
    return found


def _mapping(values: Any, path: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ToolkitError(f"{path}: expects {path}.OPTION=VALUE, got {values!r}")
    return dict(values)


def _ranged(cls: type, config: Mapping[str, Any], prefix: str) -> None:
    options = {option.name: option.convert(config[option.name]) for option in schema.fields(cls)}
    try:
        cls(**options)
    except ToolkitError as error:
        raise ToolkitError(f"{prefix}{error}") from None


def _choices(config: Mapping[str, Any]) -> list[str]:
    """The overrides that choose a saved configuration's parts."""
    words = ["~experiment"]
    for kind in (kind for kind in KINDS if kind in config):
        if kind == "metric":
            names = [_saved_name(kind, part) for part in _mapping(config[kind] or {}, kind).values()]
            words.append(f"metric=[{','.join(names)}]")
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
    """Whether a word says again what the run says already."""
    key, _, value = word.partition("=")
    saved = frozen.get(key)
    if key in KINDS and isinstance(saved, Mapping):
        return bool(value == saved.get("name"))
    return key in ("dim", "seed") and value == str(saved)


def _swaps(word: str, frozen: Mapping[str, Any]) -> bool:
    """Whether a word chooses another part; only a prior and the metrics may be replaced in a saved run."""
    group = word.partition("=")[0].lstrip("+~")
    if group in ("dim", "seed"):
        saved = frozen.get(group)
        raise ToolkitError(f"{word}: a saved run keeps its {group} of {saved}; start a new run for another")
    if group == "experiment" or (groups.kind_of(group) and group.partition("/")[0] not in _REPLACEABLE):
        kept = "a saved run keeps its parts, only prior= and metric= may change"
        raise ToolkitError(f"{word}: {kept}; start a new run for another model")
    return groups.kind_of(group) is not None


def _replaced(key: str, swaps: Sequence[str]) -> bool:
    return any(key_of(word).partition(".")[0] == key for word in swaps)


def _drift(composed: DictConfig, frozen: Mapping[str, Any]) -> list[str]:
    """Options that came or went since a run was saved."""
    notices = []
    for kind in (kind for kind in KINDS if isinstance(frozen.get(kind), Mapping)):
        parts = frozen[kind].items() if kind == "metric" else [(kind, frozen[kind])]
        for name, saved in parts:
            notices += _changes(kind, saved, composed[kind][name] if kind == "metric" else composed[kind])
    return notices


def _changes(kind: str, saved: Mapping[str, Any], now: DictConfig) -> list[str]:
    known = set(now.keys())  # an option without a default is among the keys, but not "in" the node
    gone = [str(key) for key in saved if key not in known]
    new = [str(key) for key in now if key not in saved]
    title = f"note: {kind}={saved['name']}: "
    notices = [f"{title}the saved {', '.join(gone)} no longer exists: ignored"] if gone else []
    if new:
        values = ", ".join(f"{key}={now._get_node(key)!s}" for key in new)
        notices.append(f"{title}new since the run was saved: {values}")
    return notices


def _restore(composed: DictConfig, values: Mapping[str, Any]) -> None:
    try:
        _overlay(composed, values)
    except errors.COMPOSING as error:
        raise ToolkitError(f"the saved configuration: {errors.explain(error, [])}") from error


def _overlay(node: DictConfig, saved: Mapping[str, Any]) -> None:
    """Saved values over a freshly composed node, as far as it still knows the keys."""
    known = set(node.keys())
    for key, value in saved.items():
        if key not in known or key == "name":
            continue
        if isinstance(value, Mapping) and isinstance(node._get_node(key), DictConfig) and node[key]:
            _overlay(node[key], value)
        else:
            node[key] = _literally(value)


def _literally(value: Any) -> Any:
    """A saved value whose text is never read as an interpolation."""
    if isinstance(value, Mapping):
        return {key: _literally(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literally(item) for item in value]
    # what stands before an escape is halved
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
