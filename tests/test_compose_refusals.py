"""Words that make no configuration: each mistake is one to three lines, which say what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import CHOSEN, refusal, small
from messages import assert_names

from toolkit import registry
from toolkit.cli.config.compose import compose
from toolkit.errors import ToolkitError

pytestmark = pytest.mark.usefixtures("compositions")


@pytest.mark.parametrize("kind", ["dataset", "encoder", "decoder"])
def test_a_part_that_is_not_chosen_is_asked_for(kind: str) -> None:
    text = refusal(*(word for word in CHOSEN if not word.startswith(kind)))
    assert text.startswith(f"no {kind} chosen: add {kind}=NAME or experiment=NAME; installed: ")
    assert compose([], complete=False).values[kind] is None


def test_where_nobody_brings_experiments_none_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the core alone, or once the plugin that brought the only ones is uninstalled."""
    monkeypatch.setattr(registry, "conf_folders", lambda: ())
    assert refusal("experiment=c_first") == "experiment=c_first: no such experiment\ninstalled: none"


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


def test_what_a_person_typed_is_never_dropped() -> None:
    text = refusal("experiment=small", "quantizer=c_few", "quantizer.size=3")
    assert_names(text, "quantizer.size: quantizer=c_few … compose-plugin 2 … compose_plugin.parts:Few")


def test_a_part_that_breaks_hurts_only_who_selects_it() -> None:
    assert small().values
    assert refusal("experiment=small", "encoder=c_gone").endswith("defines no class Gone")


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


def test_a_preset_of_a_components_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "mine.yaml").write_text("defaults: [mine, _self_]\n")
    with pytest.raises(ToolkitError, match="a YAML file includes itself"):
        compose(["experiment=small", "prior=mine"], folder=str(tmp_path))
