"""What is slow besides what is marked so: all but the first check of a long law, and all but a few cases of a test."""

from __future__ import annotations

from collections import defaultdict

import pytest

LONGEST = (
    "tests/test_hostile_runs.py",
    "tests/test_docs.py",
    "tests/test_resume.py",
    "tests/test_train.py",
    "tests/test_causal.py",
    "tests/test_quantizers.py",
)
"""Files whose tests start first, so that of several processes none is left alone with one of them at the end."""

LONG_LAWS = (
    "test_it_compiles_whole",
    "test_it_exports",
    "test_its_options_refuse_numbers_or_work_with_them",
    "test_samples_fit_log_prob",
    "test_the_wheel_has_its_modules_and_yaml",
)
"""Laws of toolkit.testing that take seconds each: the default lane checks them once per suite."""


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)
    for others in (*map(_all_but_the_first, _by_law(items)), *map(_all_but_a_few, _by_test(items))):
        for item in others:
            item.add_marker(pytest.mark.slow)


def _by_law(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """The checks of each long law of each suite."""
    laws = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in LONG_LAWS and not item.get_closest_marker("slow"):
            laws[_suite(item), item.originalname].append(item)
    return list(laws.values())


def _suite(item: pytest.Function) -> str:
    """The class of toolkit.testing that its class inherits."""
    bases = item.cls.__mro__ if item.cls else ()
    return next((base.__name__ for base in bases if base.__module__.startswith("toolkit.testing.")), item.nodeid)


def _all_but_the_first(checks: list[pytest.Item]) -> list[pytest.Item]:
    return checks[1:]


def _by_test(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """The cases of each test of which a few are enough."""
    tests = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("few") and not item.get_closest_marker("slow"):
            tests[item.path, item.cls, item.originalname].append(item)
    return list(tests.values())


def _all_but_a_few(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Those that stay are spread over all, the first among them."""
    (few,) = cases[0].get_closest_marker("few").args  # type: ignore[union-attr]
    stay = {round(i * len(cases) / few) for i in range(few)}
    return [case for i, case in enumerate(cases) if i not in stay]
