"""The values in which the configurations of runs differ, as short labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit import schema
from toolkit.config import by_key
from toolkit.errors import ToolkitError
from toolkit.options import OPTIONAL, TRAINERS
from toolkit.registry import KINDS, LISTS

Config = Mapping[str, Any]

MOST = 4
"""Values in a label, at most."""

LONGEST = 8
"""Characters of a number that is not rounded."""

IGNORED = {
    "experiment",
    *LISTS,
    *OPTIONAL,
    *(
        f"{trainer}.{name}"
        for trainer in TRAINERS
        for name in (
            "checkpoint_every",
            "data_on_device",
            "device",
            "keep",
            "log_every",
            "pictures_every",
            "validate_every",
            "validate_examples",
            "workers",
        )
    ),
}
"""Keys that change what is written, not what is learned."""


def labels(configs: Sequence[Config], names: Sequence[str]) -> list[str]:
    """One for each run, no two alike: ``quantizer=ema codebook_size=64``, or its name where it differs in nothing.

    A run that was given a name has that first, and its tags last.
    """
    runs = differences(configs)
    leaves = Counter(key.rpartition(".")[2] for key in {key for values in runs for key in values})
    texts = [_label(values, leaves) or name for values, name in zip(runs, names, strict=True)]
    texts = [_called(config, text) for config, text in zip(configs, texts, strict=True)]
    count = Counter(texts)
    texts = [f"{label} ({name})" if count[label] > 1 else label for label, name in zip(texts, names, strict=True)]
    return [f"{label} ({texts[:i].count(label) + 1})" if label in texts[:i] else label for i, label in enumerate(texts)]


def differences(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """For each configuration, its values for the keys in which those that have the key differ; chosen parts first.

    Options that differ only because parts of different names have other defaults are left out.
    """
    flat = [_learned(config) for config in configs]
    keys = dict.fromkeys(key for values in flat for key in values)
    chosen = [key for key in keys if _differs([values[key] for values in flat if key in values])]
    chosen = [key for key in chosen if not all(_is_default(config, key) for config in configs)]
    chosen.sort(key=lambda key: key not in KINDS and not any(other.startswith(f"{key}.") for other in keys))
    return [{key: values[key] for key in chosen if key in values} for values in flat]


def text(value: Any) -> str:
    """A value as it is written on the command line; a number that a search sampled, to four digits."""
    return schema.spell_value(value, lambda number: f"{number:.4g}" if len(str(number)) > LONGEST else str(number))


def _label(values: Mapping[str, Any], leaves: Mapping[str, int]) -> str:
    words = []
    for key, value in values.items():
        leaf = key.rpartition(".")[2]
        words.append(f"{leaf if leaves[leaf] == 1 else key}={text(value)}")
    return " ".join(words[:MOST]) + (" …" if len(words) > MOST else "")


def _called(config: Config, label: str) -> str:
    name, tags = config.get("name"), config.get("tags") or []
    words = [f"{name}:" if name and name != label else "", label, f"({', '.join(map(str, tags))})" if tags else ""]
    return " ".join(filter(None, words))


def _learned(config: Config) -> dict[str, Any]:
    """A configuration by keys, without what is ignored."""
    values = by_key({key: value for key, value in config.items() if key not in IGNORED})
    return {key: value for key, value in values.items() if key not in IGNORED}


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _is_default(config: Config, key: str) -> bool:
    """Whether an option has the value that its part gives it by default, or the part has no such option."""
    kind, *path = key.split(".")
    if kind not in KINDS or not path:
        return False
    try:
        return _matches(kind, config[kind], path)
    except (ToolkitError, KeyError, TypeError):  # parts that are not installed have no known defaults
        return False


def _matches(kind: str, node: Config, path: Sequence[str]) -> bool:
    name, *inner_path = path
    option = schema.signature(kind, node["name"]).option(name)
    if option is None:
        return True
    if inner_path:
        return _matches(option.nested or "", node[name], inner_path)
    return bool(node[name] == (list(option.default) if isinstance(option.default, tuple) else option.default))
