"""Planted faults: a suite is shown a part that is broken in a known way, and must name the law that it breaks."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.testing.laws import BROKEN, Laws


def assert_catches(sound: Laws, broken: Laws, law: str, **words: Any) -> None:
    """The law, as a suite's test, holds of the sound part and fails of the broken one."""
    law = law.replace(" ", "_")
    _checked(sound, law, **words)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        _checked(broken, law, **words)
    if caught.type is AssertionError:
        name = type(broken).__name__
        assert str(caught.value).startswith(f"{name} {BROKEN} {law.replace('_', ' ')}\n"), caught.value


def _checked(suite: Laws, law: str, **words: Any) -> None:
    try:
        getattr(suite, f"test_{law}")(**words)
    except pytest.skip.Exception as skipped:
        raise RuntimeError(f"{law}: it skips: {skipped}") from skipped
