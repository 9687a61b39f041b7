"""Words to a plain, validated configuration, over a plugin written for the purpose."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from messages import assert_names

from toolkit import registry
from toolkit.cli.config import groups, source
from toolkit.cli.config.begun import begun
from toolkit.cli.config.compose import Composed, compose
from toolkit.cli.config.quote import prepare
from toolkit.cli.config.reopen import reopen
from toolkit.config import Experiment, RunConfig
from toolkit.errors import ToolkitError
from toolkit.options import RunOptions

PARTS = """
import torch  # reading the signatures must not need it
from typing import Literal

class Data:
    def __init__(self, *, root: str = "data", label: str | None = None, crop: int = 8) -> None: ...

class Enc:
    def __init__(self, data, dim, *, hidden: int = 8, strides: tuple[int, ...] = (2, 2),
                 norm: Literal["none", "group"] = "none", level: Literal[1, 2] = 2) -> None: ...

class Dec:
    def __init__(self, dim, *, width: int = 8, files: list[str] = []) -> None: ...

class Plain:
    def __init__(self, dim, *, size: int = 16, rate: float = 0.5) -> None: ...

class Other:
    def __init__(self, dim, *, size: int = 32, decay: float = 0.9) -> None: ...

class Few:
    def __init__(self, *, levels: tuple[int, ...] = (8, 5)) -> None: ...

class Stack:
    def __init__(self, dim, *, inner: Callable[[int], Quantizer] = Plain, depth: int = 2) -> None: ...

class Open:
    def __init__(self, dim, *, inner: Callable[[int], Quantizer], must: int) -> None: ...

class Pri:
    def __init__(self, latent, *, layers: int = 3) -> None: ...

class Met:
    def __init__(self, data, *, share: float = 0.5, path: str = "x") -> None: ...
"""
POINTS = {
    "dataset": {"c_data": "Data"},
    "encoder": {"c_enc": "Enc", "c_wide": "Dec", "c_gone": "Gone"},
    "decoder": {"c_dec": "Dec"},
    "quantizer": {"c_plain": "Plain", "c_other": "Other", "c_few": "Few", "c_stack": "Stack", "c_open": "Open"},
    "prior": {"c_pri": "Pri"},
    "metric": {"c_met": "Met", "c_met2": "Met"},
}
YAML = {
    "experiment/small": """
        # @package _global_
        defaults:
          - override /dataset: c_data
          - override /encoder: c_enc
          - override /quantizer: c_plain
          - override /decoder: c_dec
          - override /metric: [c_met]
          - _self_
        dim: 8
        quantizer: {size: 24, rate: 0.25}
        encoder: {strides: [2]}
        """,
    "experiment/preset": """
        # @package _global_
        defaults: [small, override /quantizer: c_stack_other, _self_]
        """,
    "experiment/bad_type": """
        # @package _global_
        defaults: [small, _self_]
        encoder: {hidden: many}
        """,
    "experiment/bad_key": """
        # @package _global_
        defaults: [small, _self_]
        encoder: {hiden: 3}
        """,
    "experiment/bad_top": """
        # @package _global_
        defaults: [small, _self_]
        stepz: 3
        """,
    "experiment/bad_name": """
        # @package _global_
        defaults: [small, _self_]
        quantizer: {name: c_other}
        """,
    "experiment/bad_group": """
        # @package _global_
        defaults: [override /encodr: c_enc, _self_]
        """,
    "experiment/bad_yaml": "a: [1",
    "quantizer/c_stack_other": """
        defaults: [c_stack, override inner: c_other, _self_]
        inner: {size: 48}
        """,
    "trainer/c_long": """
        defaults: [default, _self_]
        steps: 77
        """,
}
CHOSEN = ["dataset=c_data", "encoder=c_enc", "decoder=c_dec", "quantizer=c_plain", "metric=[]"]


@pytest.fixture(autouse=True, scope="module")
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("compose_plugin")
    package = home / "compose_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nobody should import me')")
    (package / "parts.py").write_text(PARTS)
    lines = ["[project]", 'name = "compose-plugin"', 'version = "2"']
    for kind, names in POINTS.items():
        lines.append(f'[project.entry-points."toolkit.{kind}"]')
        lines += [f'{name} = "compose_plugin.parts:{cls}"' for name, cls in names.items()]
    lines += ['[project.entry-points."toolkit.conf"]', 'c = "compose_plugin.conf"']
    (home / "pyproject.toml").write_text("\n".join(lines))
    for name, text in YAML.items():
        file = package / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.PLUGIN_PATH, str(home))
        yield


def small(*words: str) -> Composed:
    return compose(["experiment=small", *words])


def refusal(*words: str) -> str:
    with pytest.raises(ToolkitError) as error:
        compose(words)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(type(k) is str and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return type(value) is list and all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)


def test_a_configuration_is_plain_and_complete() -> None:
    composed = small()
    config = composed.values
    assert plain(config)
    assert list(config) == [
        *(field.name for field in dataclasses.fields(RunOptions)),
        *registry.KINDS,
        *("conditions", "trainer", "prior_trainer", "prior_dataset", "extra"),
    ]
    assert composed.experiment == "small"
    assert composed.notices == ()
    assert config["encoder"] == {"name": "c_enc", "hidden": 8, "strides": [2], "norm": "none", "level": 2}
    assert config["likelihood"] is None
    assert config["metric"] == {"c_met": {"name": "c_met", "share": 0.5, "path": "x"}}
    assert config["conditions"] == {"decoder": [], "prior": []}
    assert (config["dim"], config["stage"], config["prior_dataset"]) == (8, "all", {})
    assert config["trainer"]["betas"] == [0.9, 0.999]


def test_words_override_an_experiment_which_overrides_defaults() -> None:
    config = small("dim=16", "encoder.hidden=5", "encoder.norm=group", "trainer.steps=3").values
    assert (config["dim"], config["encoder"]["hidden"], config["encoder"]["norm"]) == (16, 5, "group")
    assert (config["trainer"]["steps"], config["prior_trainer"]["steps"]) == (3, 10000)
    assert config["quantizer"]["size"] == 24


def test_without_an_experiment_every_part_is_chosen_by_name() -> None:
    assert compose(CHOSEN).values["quantizer"] == {"name": "c_plain", "size": 16, "rate": 0.5}
    assert compose(CHOSEN).experiment is None


@pytest.mark.parametrize("kind", ["dataset", "encoder", "decoder"])
def test_a_part_that_is_not_chosen_is_asked_for(kind: str) -> None:
    text = refusal(*(word for word in CHOSEN if not word.startswith(kind)))
    assert text.startswith(f"no {kind} chosen: add {kind}=NAME or experiment=NAME; installed: ")
    assert compose([], complete=False).values[kind] is None


def test_where_nobody_brings_experiments_none_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the core alone, or once the plugin that brought the only ones is uninstalled."""
    monkeypatch.setattr(registry, "conf_folders", lambda: ())
    assert refusal("experiment=c_first") == "experiment=c_first: no such experiment\ninstalled: none"


# -- what a run has otherwise than its experiment


def test_what_words_change_of_an_experiment_is_known() -> None:
    """Its own values, by key: of a part that they replace its name alone, without the options that go with it."""
    words = [
        "trainer.steps=3",
        "quantizer=c_stack",
        "quantizer.inner=c_other",
        "encoder.strides=[2]",
        "metric=[c_met2]",
    ]
    values = begun(small(*words).values, "small", words)
    own = {"quantizer": "c_plain", "metric.c_met": "c_met", "trainer.steps": 10000, "metric.c_met2": None}
    assert values["experiment"] == {"name": "small", "instead_of": own}
    assert RunConfig.read(values).values()["experiment"] == values["experiment"]
    assert begun(small().values, "small", [])["experiment"]["instead_of"] == {}
    assert "experiment" not in begun(compose(CHOSEN).values, None, CHOSEN)
    assert "experiment" not in begun(small().values, "gone", []), "one that cannot be composed has no values"


def test_a_run_that_goes_on_keeps_its_experiment_and_notes_what_changes() -> None:
    saved = begun(small("trainer.steps=3").values, "small", [])
    assert reopen(saved, []).values["experiment"] == saved["experiment"]
    again = reopen(saved, ["trainer.steps=5", "prior=c_pri", "trainer.batch_size=7"]).values
    own = {"prior": "uniform", "trainer.batch_size": 64, "trainer.steps": 10000}
    assert again["experiment"] == {"name": "small", "instead_of": own}
    assert "experiment" not in reopen(small().values, ["trainer.steps=5"]).values
    without = {**saved, "trainer": {key: value for key, value in saved["trainer"].items() if key != "floor"}}
    assert reopen(without, []).values["experiment"] == saved["experiment"], "an option that is new since is no change"


@pytest.mark.parametrize("value", ["small", {"name": 3}, {"name": "small"}, {"name": "small", "instead_of": [1]}])
def test_an_experiment_of_another_form_is_refused(value: Any) -> None:
    with pytest.raises(ToolkitError, match=r"here: experiment is not"):
        Experiment.read(value, "here")


# -- nested parts


def test_both_spellings_of_a_nested_part_are_the_same() -> None:
    spelt = small("quantizer=c_stack", "quantizer.inner.name=c_other", "quantizer.inner.size=3").values
    grouped = small("quantizer=c_stack", "quantizer/inner=c_other", "quantizer.inner.size=3").values
    assert spelt == grouped
    assert spelt["quantizer"] == {
        "name": "c_stack",
        "inner": {"name": "c_other", "size": 3, "decay": 0.9},
        "depth": 2,
    }


def test_nesting_has_no_end() -> None:
    words = ["quantizer=c_stack", "quantizer.inner.name=c_stack", "quantizer.inner.inner.name=c_few"]
    config = small(*words, "quantizer.inner.inner.levels=[7]").values
    assert config["quantizer"]["inner"]["inner"] == {"name": "c_few", "levels": [7]}


def test_a_preset_chooses_an_inner_part_and_survives_swaps() -> None:
    composed = compose(["experiment=preset"])
    assert composed.values["quantizer"] == {
        "name": "c_stack",
        "inner": {"name": "c_other", "size": 48, "decay": 0.9},
        "depth": 2,
    }
    assert compose(["experiment=preset", "quantizer=c_few"]).values["quantizer"]["name"] == "c_few"


def test_groups_are_listed_one_level_deep_and_resolved_at_any() -> None:
    assert groups.kind_of("quantizer/inner/inner/inner") == "quantizer"
    assert groups.kind_of("quantizer/outer") is None
    assert groups.kind_of("encoder/inner") is None
    listed = source.RegistrySource("registry", "toolkit://registry").list
    assert "inner" in listed("quantizer", None)
    assert "inner" not in listed("quantizer/inner", None)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["quantizer=c_stack", "quantizer.inner.name=c_othr"], "quantizer/inner=c_othr: … c_other"),
        (["quantizer=c_stack", "quantizer.inner=c_othr"], "quantizer/inner=c_othr: … c_other"),
        (["objective=adversarial", "objective.discriminator=ptach"], "objective/discriminator=ptach: … patch"),
        (["quantizer=c_stack", "quantizer.inner.siz=3"], "quantizer.inner.siz: quantizer=c_plain (compose-plugin 2;"),
        (["quantizer=c_stack", "quantizer.inner.size=x"], "quantizer.inner.size: … int … 'x'"),
        (["quantizer/inner=c_other"], "quantizer.inner: … inner"),
        (["quantizer=c_open"], "quantizer.inner: … quantizer.inner.name=NAME"),
        (["quantizer=c_open", "quantizer.inner.name=c_few"], "quantizer.must: … quantizer.must=VALUE"),
    ],
)
def test_mistakes_in_nested_parts_are_told(words: list[str], text: str) -> None:
    assert_names(refusal("experiment=small", *words), text)


# -- swaps


def test_what_a_swapped_away_part_was_told_is_dropped_with_one_line() -> None:
    composed = small("quantizer=c_few")
    assert composed.values["quantizer"] == {"name": "c_few", "levels": [8, 5]}
    [notice] = composed.notices
    assert_names(notice, "note: quantizer=c_few … size, rate … quantizer=c_plain")


def test_an_option_that_both_parts_have_is_kept() -> None:
    composed = small("quantizer=c_other")
    assert composed.values["quantizer"]["size"] == 24
    [notice] = composed.notices
    assert_names(notice, "note: quantizer=c_other … rate … quantizer=c_plain")


def test_what_a_person_typed_is_never_dropped() -> None:
    text = refusal("experiment=small", "quantizer=c_few", "quantizer.size=3")
    assert_names(text, "quantizer.size: quantizer=c_few … compose-plugin 2 … compose_plugin.parts:Few")


def test_a_part_that_breaks_hurts_only_who_selects_it() -> None:
    assert small().values
    assert refusal("experiment=small", "encoder=c_gone").endswith("defines no class Gone")


# -- mistakes


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("encoder=c_encc", "encoder=c_encc: … c_enc?)\ninstalled: "),
        ("encoder.hiden=3", "encoder.hiden: encoder=c_enc … compose-plugin 2 … compose_plugin.parts:Enc … hidden"),
        ("+encoder.hiden=3", "encoder.hiden: encoder=c_enc"),
        ("encoder.width=3", "encoder.width: encoder=c_enc … compose-plugin 2 … compose_plugin.parts:Enc"),
        ("encoder.hidden=many", "encoder.hidden: … int … 'many'"),
        ("encoder.hidden=1.5", "encoder.hidden: … int … 1.5"),
        ("encoder.hidden=null", "encoder.hidden: … null"),
        ("encoder.norm=grp", "encoder.norm: … none, group … 'grp'"),
        ("encoder.level=3", "encoder.level: … 1, 2 … 3"),
        ("encoder.strides=2", "encoder.strides: … [a,b]"),
        ("encoder.strides=[a]", "encoder.strides[0]: … int … 'a'"),
        ("encoder.hidden=1,2", "encoder.hidden=1,2: … -m "),
        ("encoder.hidden=[1", "encoder.hidden=[1: "),
        ("encoder={hiden: 3}", "encoder.hiden: encoder=c_enc"),
        ("encoder=[c_enc,c_wide]", "encoder: "),
        ("experment=small", "experment: … experiment?"),
        ("+encodr=c_enc", "encodr: … encoder"),
        ("foo.bar=1", "foo.bar: "),
        ("likelihood.scale=1", "likelihood.scale: … likelihood=NAME"),
        ("metric=[c_met,c_mit]", "metric=c_mit: … c_met"),
        ("metric.c_met.shar=1", "metric.c_met.shar: metric=c_met … compose-plugin 2"),
        ("trainer.steps=-1", "trainer.steps=-1: … 0"),
        ("prior_trainer.ema=1", "prior_trainer.ema=1.0: … below 1"),
        ("trainer.betas=[0.1]", "trainer.betas: … 2 … [0.1]"),
        ("trainer.stps=1", "trainer.stps: … steps?"),
        ("trainer.optimizer=lion", "trainer.optimizer: … adam, adamw … 'lion'"),
        ("trainer=3", "trainer=3: … KEY=VALUE … PART=NAME"),
        ("stage=both", "stage: … all, autoencoder, prior … 'both'"),
        ("dim=0", "dim=0: … 1"),
        ("dim=", "dim: … int … ''"),
        ("conditions.decoder=speaker", "conditions.decoder: … list[str] … 'speaker'"),
        ("conditions.encoder=[a]", "conditions.encoder: … decoder?"),
        ("prior_dataset.crp=3", "prior_dataset.crp: dataset=c_data … compose-plugin 2"),
        ("prior_dataset.crop=x", "prior_dataset.crop: … int … 'x'"),
        ("encoder", "encoder: … KEY=VALUE"),
        ("=3", "=3: … KEY=VALUE"),
        ("dataset.crop=${nothing}", "dataset.crop: "),
        ("hydra.nothing=3", "hydra.nothing: … Hydra"),
    ],
)
def test_a_mistake_is_one_to_three_lines(word: str, text: str) -> None:
    assert_names(refusal("experiment=small", word), text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("smal", "experiment=smal: … small?"),
        ("bad_type", "experiment/bad_type.yaml: encoder.hidden: … int … 'many'"),
        ("bad_key", "encoder.hiden: encoder=c_enc"),
        ("bad_top", "stepz: "),
        ("bad_name", "quantizer.name: c_other … defaults"),
        ("bad_group", "experiment/bad_group.yaml: … encodr"),
        ("bad_yaml", "/"),
    ],
)
def test_a_mistake_in_yaml_is_told_with_its_file_or_key(name: str, text: str) -> None:
    found = refusal(f"experiment={name}")
    assert_names(found, text)
    assert "hydra.cc" not in found


def test_an_option_of_another_part_is_pointed_to() -> None:
    assert "(did you mean decoder.width?)" in refusal("experiment=small", "encoder.width=3")


# -- metrics, presets, folders


def test_metrics_are_a_list_of_parts_with_options() -> None:
    config = small("metric=[c_met,c_met2]", "metric.c_met2.share=0.75").values
    assert {name: part["share"] for name, part in config["metric"].items()} == {"c_met": 0.5, "c_met2": 0.75}
    assert small("metric=[]").values["metric"] == {}
    assert list(small("metric=c_met2").values["metric"]) == ["c_met2"]


def test_a_trainer_has_presets() -> None:
    assert small("trainer=c_long").values["trainer"]["steps"] == 77


def test_a_preset_of_a_components_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "mine.yaml").write_text("defaults: [mine, _self_]\n")
    with pytest.raises(ToolkitError, match="a YAML file includes itself"):
        compose(["experiment=small", "prior=mine"], folder=str(tmp_path))


def test_null_takes_a_part_away() -> None:
    assert small("prior=null").values["prior"] is None
    assert small("likelihood=null").values["likelihood"] is None


def test_the_priors_stage_may_read_the_dataset_otherwise() -> None:
    config = small("prior_dataset.crop=64", "prior_dataset.root=/a b").values
    assert config["prior_dataset"] == {"crop": 64, "root": "/a b"}
    assert config["dataset"]["crop"] == 8


def test_a_folder_adds_experiments(tmp_path: Path) -> None:
    home = tmp_path / "my files (1)"
    (home / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [small, _self_]\ndim: 5\n"
    (home / "experiment" / "mine.yaml").write_text(text)
    assert compose(["experiment=mine"], folder=str(home)).values["dim"] == 5


# -- plain text

TEXTS = [
    "/my data/new folder",
    "a[b]",
    "a,b",
    "a=b=c",
    "화자1",
    "/데이터 (새)",
    "{x}",
    "it's",
    'say "hi"',
    "back\\slash\\",
    "\\'",
    "007",
    "1e3",
    "true",
    "  spaced  ",
    "a:b #c",
    "*?!",
    "~/x",
    "$x",
    "choice(a,b)",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.few(3)
def test_text_arrives_as_it_is_written(text: str) -> None:
    keys = ("dataset.root", "dataset.label", "metric.c_met.path", "init")
    config: Any = small(*(f"{key}={text}" for key in keys)).values
    arrived = [config["dataset"]["root"], config["dataset"]["label"], config["metric"]["c_met"]["path"], config["init"]]
    assert arrived == [text] * len(keys)


def test_null_and_nothing_are_not_text_where_an_option_may_be_null() -> None:
    assert small("dataset.label=null").values["dataset"]["label"] is None
    assert small("dataset.label=").values["dataset"]["label"] == ""
    assert small("dataset.root=null").values["dataset"]["root"] == "null"


def test_a_persons_own_quotes_and_interpolations_are_kept() -> None:
    assert small("dataset.root='a,b'").values["dataset"]["root"] == "a,b"
    assert small("dataset.root=x${dim}").values["dataset"]["root"] == "x8"


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("dataset.root=/a b,/c", "dataset.root='/a b','/c'"),
        ("dataset.root='/a,b',/c", "dataset.root='/a,b','/c'"),
        ("dataset.root=choice(a,b)", "dataset.root=choice(a,b)"),
        ("encoder.hidden=1,2", "encoder.hidden=1,2"),
        ("quantizer.inner.name=a,b", "quantizer/inner=a,b"),
        ("quantizer.inner=a,b", "quantizer/inner=a,b"),
        ("quantizer.inner={name: a}", "quantizer.inner={name: a}"),
    ],
)
def test_in_a_sweep_a_comma_separates_unless_quoted(word: str, made: str) -> None:
    assert prepare([word], multirun=True) == [made]


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("hydra.job.name=x", "hydra.job.name=x"),
        ("hydra.run.dir=a b", "hydra.run.dir='a b'"),
        ("likelihood=null", "~likelihood"),
        ("encoder.name=c_enc", "encoder=c_enc"),
        ("encoder.hidden=3", "encoder.hidden=3"),
    ],
)
def test_only_what_needs_it_is_rewritten(word: str, made: str) -> None:
    assert prepare([word]) == [made]


# -- saved runs


def test_a_saved_configuration_comes_back_as_it_was() -> None:
    words = ["quantizer=c_stack", "quantizer.inner.name=c_other", "quantizer.inner.size=3"]
    saved = small(*words, "dataset.root=/a ${dim}[1]", "prior_dataset.crop=3", "metric.c_met.share=0.1").values
    saved["dataset"]["label"] = "${oc.env:HOME}"
    reopened = reopen(saved, [])
    assert reopened.values == saved
    assert reopened.notices == ()


def test_words_change_a_saved_configuration() -> None:
    saved = small().values
    words = ["trainer.steps=9", "stage=prior", "prior=c_pri", "prior.layers=5", "prior_dataset.crop=2"]
    config = reopen(saved, [*words, "metric=[c_met2]", "dataset.root=/new place", "encoder=c_enc", "dim=8"]).values
    assert (config["trainer"]["steps"], config["stage"]) == (9, "prior")
    assert config["prior"] == {"name": "c_pri", "layers": 5}
    assert config["prior_dataset"] == {"crop": 2}
    assert list(config["metric"]) == ["c_met2"]
    assert config["dataset"]["root"] == "/new place"
    assert config["encoder"] == saved["encoder"]
    assert config["quantizer"]["size"] == 24


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("encoder=c_gone", "encoder=c_gone: … saved run"),
        ("quantizer.inner.name=c_few", "quantizer/inner=c_few: … saved run"),
        ("experiment=small", "experiment=small: … saved run"),
        ("dim=9", "dim=9: … saved run … 8"),
        ("encoder.hidden=x", "encoder.hidden: … int … 'x'"),
        ("encoder.hiden=3", "encoder.hiden: encoder=c_enc"),
        ("trainer.stps=3", "trainer.stps: … steps?"),
        ("prior=c_prii", "prior=c_prii: … c_pri?"),
        ("trainer.steps=1,2", "trainer.steps=1,2: … saved run"),
        ("foo=1", "foo: "),
    ],
)
def test_a_saved_run_refuses_with_one_sentence(word: str, text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        reopen(small("quantizer=c_stack").values, [word])
    assert_names(str(error.value), text)


def test_options_that_came_or_went_since_are_told() -> None:
    saved = small().values
    saved["encoder"]["old"] = 1
    del saved["encoder"]["hidden"]
    reopened = reopen(saved, [])
    gone, new = reopened.notices
    assert_names(gone, "note: encoder=c_enc: … old … ignored")
    assert_names(new, "note: encoder=c_enc: … hidden=8")
    assert reopened.values["encoder"]["hidden"] == 8


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoder": {"name": "c_enc", "hidden": "many"}}, "the saved configuration: "),
        ({"encoder": {"name": "c_left"}}, "encoder=c_left … not installed"),
        ({"encoder": {"name": "c_enc,x"}}, "encoder=c_enc,x … not installed"),
        ({"encoder": 3}, "the saved configuration … encoder"),
        ({"encoder": {"name": 3}}, "the saved configuration … encoder"),
        ({"metric": 3}, "metric: "),
        ({"trainer": 3}, "trainer: "),
    ],
)
def test_a_saved_configuration_that_was_tampered_with_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        reopen({**small().values, **change}, [])
    assert_names(str(error.value), text)
