"""Constructors read from source, over plugins written for the purpose."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest

from toolkit import entry_points, registry, schema
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS, RunOptions, TrainerOptions
from toolkit.schema import MISSING, SchemaError, convert, signature, spell, spell_value

numbers = itertools.count()


class Written:
    """One plugin with one module, and what is read of its class ``Part``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package = f"schema_plugin{next(numbers)}"
        self.home = folder / self.package
        (self.home / self.package).mkdir(parents=True)
        self.kind, self.target = "quantizer", f"{self.package}.parts:Part"
        monkeypatch.setenv(registry.PLUGIN_PATH, str(self.home))

    def module(self, text: str, name: str = "parts") -> None:
        (self.home / self.package / f"{name}.py").write_text(dedent(text))

    def read(self, source: str | None = None) -> schema.Signature:
        if source is not None:
            self.module(source)
        points = f'[project.entry-points."toolkit.{self.kind}"]\npart = "{self.target}"\n'
        (self.home / "pyproject.toml").write_text(f'[project]\nname = "{self.package}"\nversion = "1"\n{points}')
        entry_points._sources.cache_clear()
        return signature(self.kind, "part")

    def options(self, arguments: str, above: str = "") -> dict[str, schema.Option]:
        found = self.read(f"{above}\nclass Part:\n    def __init__(self, dim: int, *, {arguments}) -> None: ...\n")
        return {option.name: option for option in found.options}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(tmp_path, monkeypatch)


def test_the_star_is_the_border(written: Written) -> None:
    found = written.read(
        '''
        import torch_is_never_imported

        class Part:
            """Does a thing.

            More of it.

            Args:
                depth: how many,
                    one after the other.
                rate: how fast.
            """

            def __init__(self, data: DataSpec, grid: tuple[int, ...], *, depth: int = 4, rate: float) -> None: ...
        '''
    )
    assert found.given == ("data", "grid")
    assert [option.name for option in found.options] == ["depth", "rate"]
    assert found.summary == "Does a thing."
    assert found.option("depth").doc == "how many, one after the other."
    assert found.option("depth").default == 4
    assert found.option("rate").required
    assert found.option("nothing") is None
    assert (found.file.name, found.line) == ("parts.py", 4)
    assert "torch_is_never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("written_as", "wanted", "default"),
    [
        ("bool = False", bool, False),
        ("int = -3", int, -3),
        ("float = 1", float, 1.0),
        ("str = 'a'", str, "a"),
        ("int | None = None", int | None, None),
        ("None | str = 'x'", str | None, "x"),
        ("Optional[float] = 2", float | None, 2.0),
        ("Literal['a', 'b'] = 'b'", Literal["a", "b"], "b"),
        ("Literal[1, 2] = 1", Literal[1, 2], 1),
        ("Literal['a', None] = None", Literal["a"] | None, None),
        ("list[int] = [1, 2]", list[int], [1, 2]),
        ("tuple[int, ...] = (8, 5)", tuple[int, ...], (8, 5)),
        ("tuple[int, str] = (8, 'x')", tuple[int, str], (8, "x")),
        ("dict[str, float] = {'a': 1}", dict[str, float], {"a": 1.0}),
        ("tuple[tuple[int, int], ...] = ((1, 2),)", tuple[tuple[int, int], ...], ((1, 2),)),
        ("'int | None' = 3", int | None, 3),
    ],
)
def test_plain_data_is_read(written: Written, written_as: str, wanted: Any, default: Any) -> None:
    option = written.options(f"x: {written_as}")["x"]
    assert option.type == wanted
    assert option.default == default
    assert type(option.default) is type(default)
    assert option.nested is None


def test_constants_and_aliases_are_followed(written: Written) -> None:
    written.module("SIZE = 7\nMode = Literal['p', 'q']\n", "other")
    above = "from .other import SIZE as WIDTH, Mode\nLEVELS = (8, 5)\n"
    options = written.options("a: int = WIDTH, b: tuple[int, ...] = LEVELS, c: Mode = 'q'", above)
    assert [options[name].default for name in "abc"] == [7, (8, 5), "q"]
    assert options["c"].choices == ("p", "q")


WIDTH = 'Width = Annotated[int, Doc("how wide, in "\n    "channels")]\n'


@pytest.mark.parametrize(
    ("above", "written_as", "wanted", "doc"),
    [
        (WIDTH, "Width = 3", int, "how wide, in channels"),
        (WIDTH, "'Width' = 3", int, "how wide, in channels"),
        (WIDTH + "Size: TypeAlias = Width\n", "Size = 3", int, "how wide, in channels"),
        (WIDTH + "Size = Annotated[Width | None, Doc('or as it is')]\n", "Size = 3", int | None, "or as it is"),
        (WIDTH, "Annotated[Width, Doc('how broad')] = 3", int, "how broad"),
        (WIDTH, "tuple[Width, Width] = (3, 4)", tuple[int, int], ""),
        ("", "Annotated[int, 'how wide'] = 3", int, "how wide"),
        ("", "typing.Annotated[int, Range(1, 9), typing_extensions.Doc('how wide')] = 3", int, "how wide"),
        ("", "Annotated[Literal['a', 'b'], Range(1)] = 'a'", Literal["a", "b"], ""),
    ],
)  # fmt: skip
def test_an_annotation_explains_an_option(written: Written, above: str, written_as: str, wanted: Any, doc: str) -> None:
    option = written.options(f"x: {written_as}", above)["x"]
    assert (option.type, option.doc) == (wanted, doc)


def test_a_shared_explanation_is_followed_through_imports(written: Written) -> None:
    written.module("from .deep import Width as Size\n", "other")
    written.module(WIDTH, "deep")
    options = written.options("a: Size = 3, b: Size", "from .other import Size\n")
    assert [(option.type, option.doc) for option in options.values()] == [(int, "how wide, in channels")] * 2


def test_the_classs_own_words_come_first(written: Written) -> None:
    doc = '"""A part.\n\n    Args:\n        a: of this part.\n    """'
    found = written.read(
        f"{WIDTH}class Part:\n    {doc}\n\n    def __init__(self, *, a: Width = 1, b: Width = 2) -> None: ...\n"
    )
    assert [option.doc for option in found.options] == ["of this part.", "how wide, in channels"]


def test_an_alias_may_stand_for_a_nested_part(written: Written) -> None:
    above = "Inner = Annotated[Callable[[int], Quantizer], Doc('what is in it')]\n"
    option = written.options("inner: Inner = Part", above)["inner"]
    assert (option.nested, option.default, option.doc) == ("quantizer", "part", "what is in it")


@pytest.mark.parametrize("above", ["A = A\n", "A = A | None\n", "A = list[A]\n", "A = Annotated[A, Doc('a')]\n"])
def test_an_alias_of_itself_is_refused(written: Written, above: str) -> None:
    with pytest.raises(SchemaError, match="x: A is not plain data"):
        written.options("x: A = 1", above)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ("self, *sizes", r"\*sizes"),
        ("self, *, a: int = 1, **rest", r"\*\*rest"),
        ("self, dim: int = 3", r"dim .*\*"),
        (
            "self, *, dtype: torch.dtype = None",
            r"dtype: torch\.dtype.*\*",
        ),
        ("self, *, x: int | str = 1", r"x: int \| str"),
        ("self, *, x: list = []", r"x: list"),
        ("self, *, x=1", "x: .*type"),
        ("self, *, name: str = 'x'", "option.* name"),
        ("self, *, x: int = 'a'", "x: .*'a'.*int"),
        ("self, *, x: int = None", "x: .*None.*int"),
        ("self, *, x: int = f()", r"x: .*f\(\)"),
        ("self, *, q: Callable[[int], Q] = VQ", r"q: .*Callable\[\[int\], Q\]|import it by its own name"),
        ("self, *, q: Callable[[int], Quantizer] = Nope", "q: .*Nope.*quantizer"),
    ],
)
def test_a_broken_rule_is_told_with_its_place(written: Written, arguments: str, rule: str) -> None:
    with pytest.raises(SchemaError, match=rule) as error:
        written.read(f"class Part:\n    def __init__({arguments}) -> None: ...\n")
    assert str(error.value).startswith("quantizer=part: ")
    assert "parts.py:2)" in str(error.value)


def test_a_nested_part_has_a_registered_default(written: Written) -> None:
    above = "from toolkit.quantizers.vq import VectorQuantizer\n"
    options = written.options("inner: Callable[[int], Quantizer] = VectorQuantizer", above)
    assert (options["inner"].nested, options["inner"].default) == ("quantizer", "vq")


def test_a_nested_part_may_have_no_default(written: Written) -> None:
    option = written.options("inner: typing.Callable[[int], toolkit.Prior]")["inner"]
    assert (option.nested, option.required) == ("prior", True)


def test_a_part_may_nest_itself(written: Written) -> None:
    option = written.options("inner: Callable[[int], 'Quantizer'] = Part")["inner"]
    assert option.default == "part"


def test_a_class_is_followed_to_where_it_is_written(written: Written) -> None:
    written.target = f"{written.package}:Part"
    written.module("if TYPE_CHECKING:\n    from .parts import Real as Part\n", "__init__")
    found = written.read("class Real:\n    def __init__(self, *, a: int = 1) -> None: ...\n")
    assert [option.name for option in found.options] == ["a"]
    assert found.file.name == "parts.py"


def test_an_inherited_constructor_is_found(written: Written) -> None:
    written.module("class Base(Quantizer):\n    def __init__(self, dim, *, a: int = 1) -> None: ...\n", "base")
    found = written.read("from .base import Base\nclass Part(Base):\n    pass\n")
    assert found.given == ("dim",)
    assert found.option("a").default == 1


def test_no_constructor_means_nothing_to_give(written: Written) -> None:
    found = written.read("from toolkit import Quantizer\nclass Part(Quantizer):\n    pass\n")
    assert (found.given, found.options) == ((), ())


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("class Part(:\n", "syntax"),
        ("x = 1\n", "class Part"),
        (None, "no source"),
    ],
)
def test_a_source_that_cannot_be_read_is_blamed(written: Written, source: str | None, what: str) -> None:
    with pytest.raises(SchemaError, match=what) as error:
        written.read(source)
    assert f"{written.package} 1" in str(error.value)


def test_imports_in_a_circle_end(written: Written) -> None:
    written.module("from .parts import Part\n", "other")
    with pytest.raises(SchemaError, match="class Part"):
        written.read("from .other import Part\n")


@pytest.mark.parametrize(
    ("wanted", "value", "made"),
    [
        (float, 3, 3.0),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[tuple[int, int], ...], [[1, 2]], ((1, 2),)),
        (list[float], (1,), [1.0]),
        (Literal[1, 2], "2", 2),
        (dict[str, tuple[int, ...]], {"a": [1]}, {"a": (1,)}),
        (int | None, None, None),
    ],
)
def test_convert_gives_what_the_constructor_wants(wanted: Any, value: Any, made: Any) -> None:
    result = convert(wanted, value)
    assert result == made
    assert type(result) is type(made)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (int, True),
        (int, 1.0),
        (bool, 1),
        (float, "1"),
        (float, True),
        (str, 1),
        (int, None),
        (tuple[int, int], [1]),
        (list[int], "ab"),
        (list[int], 3),
        (dict[str, int], [1]),
        (Literal["a"], "b"),
        (Literal[1], True),
        (int | None, "x"),
    ],
)
def test_convert_refuses_what_is_none(wanted: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="expects"):
        convert(wanted, value)


def test_a_refusal_begins_with_where() -> None:
    with pytest.raises(ToolkitError, match=r"^encoder\.hidden: .*int.*'many'$"):
        schema.Option("hidden", int, 3).convert("many", "encoder.hidden")


def test_types_are_spelt_as_a_person_writes_them() -> None:
    assert spell(int | None) == "int or null"
    assert spell(Literal["a", "b"]) == "one of a, b"
    assert spell(tuple[int, ...]) == "tuple[int, ...]"


def test_every_registered_part_keeps_the_rules() -> None:
    for kind in registry.KINDS:
        for name in registry.names(kind):
            found = signature(kind, name)
            assert found.summary, f"{kind}={name} has no docstring"


def test_every_trainer_option_is_described() -> None:
    for cls in (*TRAINERS.values(), RunOptions):
        for option in schema.fields(cls):
            assert option.doc.endswith("."), option.name
            assert option.default != MISSING
            assert option.convert(option.default) == option.default


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"batch_size": 0},
        {"ema": 1.0},
        {"betas": (0.9, 1.0)},
        {"learning_rate": 0.0},
        {"clip": -1.0},
        {"keep": 0},
        {"learning_rate": float("nan")},
    ],
)
def test_trainer_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ToolkitError, match=f"^{next(iter(wrong))}="):
        TrainerOptions(**wrong)


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        ({"a": {"b": None, "c": 2}, "d": "x"}, str, "{a: {b: null, c: 2}, d: x}"),
        ([True, (False, 1)], str, "[true,[false,1]]"),
        ({"a": [0.5, 1]}, "{:.2f}".format, "{a: [0.50,1]}"),
    ],
)
def test_values_are_spelt_as_a_person_writes_them(value: Any, number: Callable[[float], str], text: str) -> None:
    assert spell_value(value, number=number) == text
