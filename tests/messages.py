"""What a message has to name: the option, the value, the file, the cure; its prose may change."""

from __future__ import annotations


def assert_names(message: str, facts: str) -> None:
    """The message begins with the first of the facts, which are parted by ellipses, and has the others behind it."""
    first, *others = facts.split(" … ")
    assert message.startswith(first), f"{message!r} does not begin with {first!r}"
    at = len(first)
    for fact in others:
        found = message.find(fact, at)
        assert found >= 0, f"{message!r} does not name {fact!r}"
        at = found + len(fact)
