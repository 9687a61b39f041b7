"""One part from its name and options; others inside it are factories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from toolkit import registry, schema
from toolkit.blame import blame
from toolkit.config import PartConfig
from toolkit.errors import ToolkitError
from toolkit.fit import label
from toolkit.proofs import built_from
from toolkit.quantizer import Quantizer, check_quantizer

FACTORY_ARGUMENTS = {"quantizer": ("dim",), "prior": ("code_spec", "conditions"), "conditioner": ("condition",)}
"""By kind, the arguments of a nested part's factory; it is offered the rest, and those left out, as its outer part
is."""


def make(kind: str, chosen: PartConfig, key: str | None = None, /, **offered: Any) -> Any:
    """One part, given what it asks for among what is offered to its kind; errors name its ``key`` in the configuration.

    ToolkitError where it asks for something else, or its constructor refuses a value.
    """
    name, key = chosen.name, key or kind
    choice = f"{kind if kind in registry.LISTS else key}={name}"
    cls = registry.load(kind, name)
    signature = schema.signature(kind, name)
    for wanted in signature.given:
        if wanted not in offered:
            raise ToolkitError(_not_offered(kind, name, wanted, offered))
    for option in signature.options:
        if option.required and option.name not in chosen.options:
            raise ToolkitError(f"{key}.{option.name}: no value; add {key}.{option.name}=VALUE ({option.wanted})")
    options = {
        option.name: _value(option, chosen.options[option.name], f"{key}.{option.name}", offered)
        for option in signature.options
        if option.name in chosen.options
    }
    try:
        part = cls(**{wanted: offered[wanted] for wanted in signature.given}, **options)
    except ValueError as e:
        raise ToolkitError(f"{choice}: {e}") from e
    except ToolkitError:
        raise
    except Exception as e:  # a part that fails on its options; only its author knows on which
        raise ToolkitError(f"{choice} cannot be built with these options: {blame(e)}") from e
    if isinstance(part, nn.Module):
        label(part, choice, _package(kind, name))
        built_from(part, choice, chosen.options, {wanted: offered[wanted] for wanted in signature.given})
    if isinstance(part, Quantizer):
        check_quantizer(part)
    return part


def _package(kind: str, name: str) -> str:
    """The distribution and version to name in a part's errors; empty for the core's own."""
    claim = registry.find(kind, name)
    return "" if claim.distribution == registry.CORE else f"{claim.distribution} {claim.version}"


def _value(option: schema.Option, value: Any, key: str, offered: Mapping[str, Any]) -> Any:
    if option.nested:
        return _factory(option.nested, PartConfig.read(value, key, "the configuration"), key, offered)
    return option.convert(value, key)


def _factory(kind: str, part: PartConfig, key: str, offered: Mapping[str, Any]) -> Callable[..., Any]:
    """A nested part is a factory: its outer part may need several, each with its own state."""
    names = FACTORY_ARGUMENTS.get(kind, ())
    return lambda *given: make(kind, part, key, **{**offered, **dict(zip(names[: len(given)], given, strict=True))})


def _not_offered(kind: str, name: str, wanted: str, offered: Mapping[str, Any]) -> str:
    if wanted == "likelihood":
        have = ", ".join(registry.names("likelihood"))
        return f"{kind}={name} asks for a likelihood: choose likelihood=NAME ({have})"
    return f"{kind}={name} asks for {wanted!r}, which is not offered to a {kind} (offered: {', '.join(offered)})"
