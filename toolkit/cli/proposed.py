"""A proposal as an experiment's YAML: a line for each choice, its reason beside it, or above it where it is long."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import yaml

from toolkit.proposal import Choice, Proposal
from toolkit.registry import PARTS

WIDTH = 120


def experiment(title: str, proposal: Proposal) -> str:
    """The text of the file."""
    parts = [choice for choice in proposal.choices if choice.key in PARTS]
    options = [choice for choice in proposal.choices if choice.key not in PARTS]
    lines = ["# @package _global_"]
    lines += _comment(f"{title}: {proposal.contents}. Proposed by toolkit start: change any line.")
    for fault in proposal.faults:
        lines += _comment(fault, mark="- ")
    lines.append("defaults:")
    for part in parts:
        lines += _line("  - ", f"override /{part.key}: {_value(part.value)}", part.reason)
    return "\n".join([*lines, "", *_tree([(choice.key.split("."), choice) for choice in options]), ""])


def _tree(options: Sequence[tuple[list[str], Choice]], depth: int = 0) -> list[str]:
    """Options in the order of their first words, those with the same first word below it."""
    lines, indent = [], "  " * depth
    for head in dict.fromkeys(words[0] for words, _ in options):
        inside = [(words[1:], choice) for words, choice in options if words[0] == head]
        leaves = [choice for words, choice in inside if not words]
        for leaf in leaves:
            lines += _line(indent, f"{head}: {_value(leaf.value)}", leaf.reason)
        if not leaves:
            lines += [f"{indent}{head}:", *_tree(inside, depth + 1)]
    return lines


def _line(indent: str, text: str, reason: str) -> list[str]:
    line = f"{indent}{text}  # {reason}" if reason else f"{indent}{text}"
    if len(line) <= WIDTH:
        return [line]
    return [*_comment(reason, indent=" " * len(indent)), f"{indent}{text}"]


def _comment(text: str, indent: str = "", mark: str = "") -> list[str]:
    lines = wrap(
        " ".join(text.split()), WIDTH - len(indent) - len(mark) - 2, break_long_words=False, break_on_hyphens=False
    )
    before = [mark, *(" " * len(mark) for _ in lines)]
    return [f"{indent}# {space}{line}" for space, line in zip(before, lines, strict=False)]


def _value(value: Any) -> str:
    if isinstance(value, str):
        value = value.replace("${", "\\${")  # which would be looked up
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 30, allow_unicode=True)
    return text.removesuffix("...\n").strip()
