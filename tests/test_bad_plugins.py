"""Deliberately bad plugins: each is named rightly, by the registry or by a suite, and hurts nobody else."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor

from toolkit import CodeSpec, Condition, Prior, Quantized, Quantizer, entry_points, registry
from toolkit.__main__ import run
from toolkit.priors.categorical import CategoricalPrior
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing import PluginSuite, PriorSuite, QuantizerSuite

pytestmark = pytest.mark.long

ENCODER = """
from torch import Tensor, nn

from toolkit import DataSpec, Encoder


class {name}(Encoder):
    "An encoder."

    def __init__(self, data: DataSpec, dim: int{options}) -> None:
        super().__init__()
        self.out = nn.Conv2d(data.channels, dim, 4, 4){made}

    def forward(self, x: Tensor) -> Tensor:
        z = self.out(x.float())
        return z{given}
"""


def encoder(name: str, *, options: str = "", made: str = "", given: str = "") -> str:
    return ENCODER.format(name=name, options=options, made=made and f"\n        {made}", given=given)


BAD: dict[str, tuple[str, str]] = {
    # name of the encoder: its module, and what is said of it when it is loaded, or chosen
    "imports_nothing": ("import there_is_no_such_module\n" + encoder("Bad"), "ModuleNotFoundError: No module named"),
    "leaves": ("raise SystemExit(3)\n" + encoder("Bad"), "SystemExit: 3"),
    "vanishes": ("import os\nos._exit(7)\n" + encoder("Bad"), "ends the process when it is imported"),
    "raises": ("1 / 0\n" + encoder("Bad"), "ZeroDivisionError: division by zero"),
    "torn": ("class Bad(Encoder:\n", "syntax error"),
    "nobody": ("class Good: ...\n", "defines no class Bad"),
    "of_wrong_kind": (
        "from toolkit import Prior\n\n\nclass Bad(Prior): ...\n",
        "does not subclass toolkit.encoder:Encoder",
    ),
    "unfinished": ("from toolkit import Encoder\n\n\nclass Bad(Encoder): ...\n", "is incomplete: Encoder also needs"),
    "takes_anything": (encoder("Bad", options=", **kwargs: int"), "**kwargs: a component must name all its arguments"),
    "untyped": (encoder("Bad", options=", *, width=3"), "width: an option needs a type"),
    "untypable": (encoder("Bad", options=", *, net: nn.Module"), "net: nn.Module is not plain data"),
    "defaults": (encoder("Bad", options=", width: int = 3"), "width has a default before the *"),
}
"""What loading, or reading, finds."""

CHOSEN: dict[str, tuple[str, str]] = {
    "unmade": (encoder("Bad", made="self.out = nn.Conv2d(0, -1, 1)"), "cannot be built with these options"),
    "breaks": (encoder("Bad", given="[:, :, 99]"), "on data (3, 32, 32)"),
    "flat": (encoder("Bad", given=".mean(-1)"), "gives latents (32, 8): expected (dim, *grid)"),
    "many": (encoder("Bad", given=".repeat(1, 2, 1, 1)"), "gives 64 channels, quantizer=ema takes 32"),
    "none": (encoder("Bad", given=" and None"), ""),
}
"""What building, and the proof that parts fit, find."""


def write(home: Path, name: str, source: str, requires: str = "discrete-toolkit", **files: str) -> Path:
    """A plugin that is not installed, with one encoder."""
    package = f"bad_{name}"
    folder = home / package
    for path, text in {f"{package}/__init__.py": "", f"{package}/part.py": source, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "bad-{name}"\nversion = "0.7"\ndependencies = ["{requires}"]\n'
        f'[project.entry-points."toolkit.encoder"]\n{name} = "{package}.part:Bad"\n'
        f'[project.entry-points."toolkit.conf"]\n{package} = "{package}.conf"\n'
    )
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bad plugins, all at once."""
    folder = tmp_path / "bad"
    for name, (source, _) in {**BAD, **CHOSEN}.items():
        write(folder, name, source)
    write(folder, "of_tomorrow", encoder("Bad"), requires="discrete-toolkit>=7,<8")
    write(folder, "of_riddles", encoder("Bad"), requires="discrete-toolkit>=one")
    write(folder, "shadow", encoder("Bad"), **{"bad_shadow/conf/quantizer/ema.yaml": "codebook_size: 1\n"})
    for twin in ("one", "two"):
        text = (write(folder, f"twin_{twin}", encoder("Bad")) / "pyproject.toml").read_text()
        (folder / f"bad_twin_{twin}/pyproject.toml").write_text(text.replace(f"\ntwin_{twin} =", "\ntwin ="))
    monkeypatch.setenv(registry.PLUGIN_PATH, str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    assert run(words) == status
    return capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in BAD if name != "vanishes"])
def test_loading_names_component_package_version_and_cause(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = told(capsys, "check", "experiment=image_shapes", f"encoder={name}")
    assert BAD[name][1] in text
    assert name in text
    assert f"bad_{name}" in text  # its module, or its file
    assert len(text.splitlines()) <= 3


@pytest.mark.parametrize("name", CHOSEN)
def test_building_names_component_package_version_and_file(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = told(capsys, "check", "experiment=image_shapes", f"encoder={name}")
    assert CHOSEN[name][1] in text
    assert f"encoder={name}" in text
    if name != "many":  # both sides may be right by themselves
        assert f"bad-{name} 0.7" in text
        assert f"bad_{name}{os.sep}part.py" in text
    assert len(text.splitlines()) <= 3


def test_two_claims_name_both(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "check", "experiment=image_shapes", "encoder=twin")
    assert "claimed by bad-twin_one 0.7" in text
    assert "bad-twin_two 0.7" in text


def test_a_plugins_own_requirement_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "check", "experiment=image_shapes", "encoder=of_tomorrow")
    assert "bad-of_tomorrow 0.7" in text
    assert "requires discrete-toolkit >=7,<8, but 0." in text
    assert "cannot be read" in told(capsys, "check", "experiment=image_shapes", "encoder=of_riddles")


def test_plugins_check_names_all_of_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "encoder", "--check", "--json"]) == 2
    listed = json.loads(capsys.readouterr().out)
    problems = {row["name"]: row["problem"] for row in listed["components"]}
    for name, (_, cause) in BAD.items():
        assert cause in problems[name], name
    assert "requires discrete-toolkit" in problems["of_tomorrow"]
    assert "claimed by" in problems["twin"]
    assert {name: problems[name] for name in ("image_conv", "pool", *CHOSEN)} == dict.fromkeys(
        ("image_conv", "pool", *CHOSEN), ""
    )
    (shadow,) = listed["problems"]
    assert "quantizer/ema.yaml of bad-shadow is not used: quantizer=ema is registered" in shadow


@pytest.mark.slow
def test_beside_all_of_them_everything_else_works(home: Path) -> None:
    tiny = ["trainer.steps=2", "prior_trainer.steps=2", "trainer.batch_size=4", "prior_trainer.batch_size=4"]
    tiny += ["dataset.train_size=8", "dataset.val_size=4", "prior_trainer.allow_collapsed=true", "prior.hidden=8"]
    assert run(["train", "experiment=image_shapes", "quantizer=ema", "hydra.run.dir=run", *tiny]) == 0
    config = (home.parent / "run" / "config.yaml").read_text()
    assert "codebook_size: 1\n" not in config  # what the shadow says
    assert run(["sample", "run=run", "n=2"]) == 0


def test_a_line_of_a_plugin_that_fails_in_training_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = encoder("Bad").replace("z = self.out(x.float())", "z = self.out(self.checked(x).float())")
    source += """
    def checked(self, x: Tensor) -> Tensor:
        if type(x).__name__ != "FakeTensor":
            raise LookupError("this comes late")
        return x
"""
    write(home, "late", source)
    entry_points._sources.cache_clear()
    words = ["trainer.steps=2", "trainer.batch_size=4", "stage=autoencoder", "dataset.train_size=8"]
    text = told(capsys, "train", "experiment=image_shapes", "encoder=late", "hydra.run.dir=late", *words, status=1)
    assert "encoder=late of bad-late 0.7" in text
    assert f"bad_late{os.sep}part.py:" in text


# -- what only a suite can find


class Holder(Quantizer):
    """A quantizer to be broken."""

    depth = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = VectorQuantizer(dim, codebook_size=7)
        self.channels = self.dim = dim
        self.codebook_sizes = (7,)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)


class NotNumbers(Holder):
    def forward(self, z: Tensor) -> Quantized:
        made = super().forward(z)
        return made._replace(loss=made.loss / 0 * 0)


class Counting(Holder):
    def forward(self, z: Tensor) -> Quantized:
        self.steps += 1
        return super().forward(z)


class Unseeded(Holder):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(z + random.random())


class Peeking(CategoricalPrior):  # type: ignore[misc]
    """Is surer of a code the more often it comes, later ones included."""

    def log_prob(self, codes: Tensor, conditions: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        share = torch.stack([(codes == code).flatten(1).double().mean(1) for code in codes.unique()], 1)
        return super().log_prob(codes, conditions) + share.amax(1)


class QuantizerCase(QuantizerSuite):
    broken: Callable[[int], Quantizer]

    def make(self, dim: int) -> Quantizer:
        return type(self).broken(dim)


class PriorCase(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return Peeking(code_spec, conditions)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (NotNumbers, "test_the_output_has_the_declared_shape", {"grid": (3, 4)}),
        (Counting, "test_eval_changes_no_state", {}),
        (Unseeded, "test_a_seed_decides_the_outcome", {}),
    ],
)
def test_a_quantizers_suite_names_the_law(broken: type[Quantizer], law: str, words: dict[str, object]) -> None:
    case = type("TestMine", (QuantizerCase,), {"broken": broken})()
    with pytest.raises(AssertionError, match=f"TestMine breaks the law: {law[5:].replace('_', ' ')}"):
        getattr(case, law)(**words)


def test_a_prior_that_looks_ahead_is_named() -> None:
    with pytest.raises(AssertionError, match="breaks the law: probabilities of all code maps sum to one"):
        PriorCase().test_probabilities_of_all_code_maps_sum_to_one(CodeSpec((4,), (3,)))
    with pytest.raises(AssertionError, match="breaks the law: samples fit log prob"):
        PriorCase().test_samples_fit_log_prob(CodeSpec((4,), (3,)))


GOOD = dedent(
    """
    from toolkit import DataSpec, Encoder
    from torch import Tensor, nn


    class Bad(Encoder):
        "An encoder."

        def __init__(self, data: DataSpec, dim: int, *, width: int = 3) -> None:
            super().__init__()
            self.out = nn.Conv2d(data.channels, dim, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x.float())
    """
)


def package(name: str) -> PluginSuite:
    return type("TestPackage", (PluginSuite,), {"distribution": f"bad-{name}"})()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(registry.PLUGIN_PATH, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    entry_points._sources.cache_clear()
    return tmp_path


def test_the_packages_suite_names_what_shadows(alone: Path) -> None:
    folder = write(alone, "dark", GOOD, **{"bad_dark/conf/quantizer/ema.yaml": "codebook_size: 1\n"})
    with pytest.raises(AssertionError, match=r"its yaml shadows nothing\n.*ema.yaml shadows quantizer=ema"):
        package("dark").test_its_yaml_shadows_nothing(folder / "bad_dark/conf/quantizer/ema.yaml")


def test_the_packages_suite_names_an_option_that_is_not_told(alone: Path) -> None:
    write(alone, "mute", GOOD)
    with pytest.raises(AssertionError, match="say under Args: what width means"):
        package("mute").test_its_options_are_typed_and_documented(registry.find("encoder", "mute"))


def test_the_packages_suite_names_what_the_wheel_lacks(alone: Path, tmp_path: Path) -> None:
    folder = write(alone, "light", GOOD, **{"bad_light/conf/encoder/light_wide.yaml": "defaults: [light, _self_]\n"})
    project = folder / "pyproject.toml"
    project.write_text(project.read_text() + '[tool.setuptools]\npackages = ["bad_light"]\n')
    into = tmp_path / "built"
    into.mkdir()
    with pytest.raises(AssertionError, match=r"lacks bad_light/conf/encoder/light_wide.yaml: see package-data"):
        package("light").test_the_wheel_has_its_modules_and_yaml(into)


def test_the_packages_suite_names_a_missing_requirement(alone: Path) -> None:
    write(alone, "free", GOOD, requires="torch")
    with pytest.raises(AssertionError, match="declares which core it needs"):
        package("free").test_it_declares_which_core_it_needs()


def test_the_packages_suite_names_yaml_that_does_not_compose(alone: Path) -> None:
    folder = write(alone, "odd", GOOD, **{"bad_odd/conf/encoder/odd_wide.yaml": "defaults: [odd, _self_]\nwith: 3\n"})
    with pytest.raises(Exception, match=r"encoder.with.*odd"):
        package("odd").test_it_composes(folder / "bad_odd/conf/encoder/odd_wide.yaml")


def test_the_packages_suite_knows_whom_it_checks(alone: Path) -> None:
    with pytest.raises(AssertionError, match="no bad-ghost is installed"):
        package("ghost").test_it_is_registered()
