"""What is long or slow besides what is marked so: more than some checks of a law, all but a few cases of a test."""

from __future__ import annotations

from collections import defaultdict
from itertools import takewhile
from zlib import crc32

import pytest

LONGEST = (
    "tests/test_hostile_runs.py",
    "tests/test_composition.py",
    "tests/test_planted_engine.py",
    "tests/test_ranks.py",
    "tests/test_compare.py",
    "tests/test_resume.py",
    "tests/test_docs.py",
    "tests/test_stacking.py",
    "tests/test_train.py",
)
"""Files whose tests start first, so that of several processes none is left alone with one of them at the end."""

LONG_LAWS = (
    "test_any_cutting_gives_the_whole",
    "test_any_cutting_of_a_stream_gives_the_whole",
    "test_it_compiles_whole",
    "test_it_exports",
    "test_its_options_refuse_numbers_or_work_with_them",
    "test_samples_fit_log_prob",
    "test_the_wheel_has_its_modules_and_yaml",
)
"""Laws of toolkit.testing that take seconds each: one check per suite is long, the others are slow."""

OF_EACH_PART = {"test_it_fits_into_a_model": 4, "test_it_composes": 4}
"""Laws of a package's suite that build each of its parts or experiments as it is: so many are long, spread over all."""

OF_EACH_LAW = {
    "test_it_computes_on_a_gpu": 30,
    "test_its_results_fit_a_model": 15,
    "test_two_ranks_keep_the_same_statistics_as_one": 8,
}
"""Laws that build whole models or start processes: so many checks, spread over all suites; the others are long."""


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)
    _leave_slow(items)
    _leave_long(_laws(items))


def _leave_slow(items: list[pytest.Item]) -> None:
    for choose, grouped in ((_first, _by_law), (_one_in_turn, _by_family), (_few, _by_test)):
        for group in grouped(items):
            stay = choose(group)
            for item in group:
                if item not in stay:
                    item.add_marker(pytest.mark.slow)


def _leave_long(laws: list[pytest.Function]) -> None:
    for law in laws:
        if law.originalname in LONG_LAWS or law.originalname in OF_EACH_PART:
            law.add_marker(pytest.mark.long)
    for name, enough in OF_EACH_LAW.items():
        checks = [law for law in laws if law.originalname == name]
        for check in set(checks).difference(_spread(checks, enough)):
            check.add_marker(pytest.mark.long)


def _laws(items: list[pytest.Item]) -> list[pytest.Function]:
    """Those that a suite of toolkit.testing gave to a test, and that are not slow."""
    tests = [item for item in items if isinstance(item, pytest.Function) and not item.get_closest_marker("slow")]
    return [test for test in tests if test.cls and any(map(_is_suite, test.cls.__mro__))]


def _is_suite(cls: type) -> bool:
    return cls.__module__.startswith("toolkit.testing.")


def _by_law(items: list[pytest.Item]) -> list[list[pytest.Function]]:
    """The checks of each long law of each suite."""
    laws = defaultdict(list)
    for law in _laws(items):
        if law.originalname in LONG_LAWS:
            suite = next(base for base in law.cls.__mro__ if _is_suite(base))
            laws[suite, law.originalname].append(law)
    return list(laws.values())


def _first(checks: list[pytest.Function]) -> list[pytest.Function]:
    return checks[:1]


def _by_family(items: list[pytest.Item]) -> list[list[pytest.Function]]:
    """The checks of each law of a part's variants, such as over one axis and over two: classes with a common base."""
    laws = defaultdict(list)
    for law in _laws(items):
        *_, family = takewhile(lambda base: not _is_suite(base), law.cls.__mro__)
        laws[law.path, family, law.originalname].append(law)
    return [checks for checks in laws.values() if len({check.cls for check in checks}) > 1]


def _one_in_turn(checks: list[pytest.Function]) -> list[pytest.Function]:
    """Those of one variant, of each law another, so that every variant is checked."""
    variants = list(dict.fromkeys(check.cls for check in checks))
    chosen = variants[crc32(checks[0].originalname.encode()) % len(variants)]
    return [check for check in checks if check.cls is chosen]


def _by_test(items: list[pytest.Item]) -> list[list[pytest.Function]]:
    """The cases of each test of which a few are enough."""
    tests = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and _enough(item) and not item.get_closest_marker("slow"):
            tests[item.path, item.cls, item.originalname].append(item)
    return list(tests.values())


def _enough(item: pytest.Function) -> int | None:
    """How many cases of its test are enough; None where all are needed."""
    marker = item.get_closest_marker("few")
    return marker.args[0] if marker else OF_EACH_PART.get(item.originalname)


def _few(cases: list[pytest.Function]) -> list[pytest.Function]:
    """Some that are spread over all, the first among them."""
    return _spread(cases, _enough(cases[0]) or len(cases))


def _spread(cases: list[pytest.Function], few: int) -> list[pytest.Function]:
    stay = {round(i * len(cases) / few) for i in range(few)}
    return [case for i, case in enumerate(cases) if i in stay]
