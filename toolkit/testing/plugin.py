"""The laws of packages with components, as tests that a plugin's tests inherit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement

from toolkit import registry, schema
from toolkit.entry_points import PLUGIN_PATH, Source, checkout, sources
from toolkit.errors import ToolkitError
from toolkit.registry import COMMAND, CORE, FAMILY, HOSTS, LISTS, PARTS, REGISTERED, Registration
from toolkit.testing.laws import Laws

LEFT_BEHIND = (".git", ".venv*", "*.egg-info", "build", "dist", "outputs", "__pycache__", ".*_cache")


class PluginSuite(Laws):
    """Subclass it as ``class TestPackage(PluginSuite)`` and name the ``distribution``, installed or on
    ``TOOLKIT_PLUGIN_PATH``. The suites of their kinds check what its components compute."""

    distribution: ClassVar[str]
    """Name in its pyproject.toml, such as ``my-plugin``."""
    model: ClassVar[Sequence[str]] = (
        "dataset=waves",
        "encoder=patch",
        "quantizer=vq",
        "decoder=patch",
        "likelihood=categorical",
        "prior=categorical",
        "dim=8",
    )
    """Words of a model, of which each component replaces a part: by default of waves, of two axes and eight levels.
    Parts of another rank or of real-valued data have a model of their own, such as ``("dataset=mine", "encoder=conv",
    "quantizer=vq", "decoder=conv", "likelihood=normal", "prior=categorical", "dim=8")``."""
    beside: ClassVar[Mapping[str, Sequence[str]]] = {}
    """By component, further words that it needs to fit into the model, such as
    ``{"decoder=mine": ["encoder=mine"]}``, or of an experiment, ``{"experiment=mine": ["dataset.root=…"]}``."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per component, per family and per YAML file."""
        if "component" in metafunc.fixturenames:
            components = list(self._registrations())
            metafunc.parametrize("component", components, ids=[f"{c.kind}={c.name}" for c in components])
        if "family" in metafunc.fixturenames:
            families = list(self._source().registrations(FAMILY))
            metafunc.parametrize("family", families, ids=[family.name for family in families])
        if "command" in metafunc.fixturenames:
            commands = list(self._source().registrations(COMMAND))
            metafunc.parametrize("command", commands, ids=[command.name for command in commands])
        if "yaml" in metafunc.fixturenames:
            files = list(self._yaml())
            metafunc.parametrize("yaml", files, ids=[f"{file.parent.name}={file.stem}" for file in files])

    def test_it_is_registered(self) -> None:
        assert self._source().groups, f"{self.distribution} has no entry points of the groups toolkit.KIND"
        assert not self._source().problem, self._source().problem

    def test_it_declares_which_core_it_needs(self) -> None:
        """So that pip installs a compatible core, and another one is rejected with a clear message."""
        assert self._source().requires, f'{self.distribution}: add "{CORE}>=0.2,<0.3" to its dependencies'

    def test_listing_it_imports_neither_it_nor_torch(self) -> None:
        packages = sorted({part.target.partition(":")[0].partition(".")[0] for part in self._source().parts()})
        code = (
            "import sys; from toolkit import registry, schema\n"
            "[schema.read(one) for kind in registry.REGISTERED for one in registry.registrations(kind)\n"
            f" if one.distribution == {self._source().name!r}]\n"
            f"registry.conf_folders(); print(*sorted({{'torch', *{packages!r}}} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        imported = done.stdout.split()
        assert imported == [], f"reading its signatures imports {', '.join(imported)}"

    def test_it_loads(self, component: Registration) -> None:
        registry.load(component.kind, component.name)

    def test_its_families_load(self, family: Registration) -> None:
        """And say what they are of; ``FamilySuite`` checks what they hold."""
        registry.load(FAMILY, family.name)()
        assert schema.read(family).doc, f"{family} has no docstring"

    def test_its_commands_load(self, command: Registration) -> None:
        """Under names that the core does not have, and with a line that says what they do."""
        from toolkit.cli.own_commands import problems, summaries

        assert not problems(), "\n".join(problems())
        registry.load_command(command.name)
        assert not summaries()[command.name].startswith("("), f"{command} has no docstring"

    def test_its_name_is_unique(self, component: Registration) -> None:
        from toolkit.cli.config.groups import claims

        own = registry.key(component.kind)
        others = claims(own.replace(".", "/"), component.name)
        assert not others, f"{' and '.join(others)} has a {component.name}.yaml for {own}: rename it"

    def test_its_options_are_typed_and_documented(self, component: Registration) -> None:
        """Every option has a plain type, and a line under "Args:", or in its annotation, that explains it."""
        signature = schema.read(component)
        undocumented = [option.name for option in signature.options if not option.doc]
        assert signature.doc, f"{component} has no docstring"
        assert not undocumented, f"{component}: say under Args: what {', '.join(undocumented)} means"

    def test_it_fits_into_a_model(self, component: Registration, tmp_path: Path) -> None:
        """A model with it is composed and built, and its parts fit."""
        self._check_fit(component, tmp_path)

    def test_its_options_refuse_numbers_or_work_with_them(self, component: Registration, tmp_path: Path) -> None:
        """Each is tried with -1, 0, NaN, infinity and 1e30, a count with -1, 0 and 2**62: it is refused by an error
        that names the option, or the model has a finite loss. What its type accepts must not be too much to allocate.
        """
        options = [option for option in schema.read(component).options if not option.nested]
        accepted = [pair for option in options for pair in self._accepted(component, option)]
        if not accepted:
            return
        from toolkit.cli.config.compose import compose
        from toolkit.testing.options import outcome, with_option

        config = compose(self._model_with(component)).config
        for name, value in accepted:
            one = f"{registry.key(component.kind)}.{name}={value}"
            try:
                reason, wrong = outcome(with_option(config, component, name, value))
            except Exception as error:
                raise AssertionError(f"{one} is not refused, and fails: {type(error).__name__}: {error}") from error
            if reason and name not in reason:
                self._check_fit(component, tmp_path)
            assert not reason or name in reason, f"{one} is refused without its name: {reason}"
            assert not wrong, f"{one} is accepted, and {', '.join(wrong)} is NaN or infinite"

    def test_it_composes(self, yaml: Path) -> None:
        from toolkit.cli.config.compose import compose
        from toolkit.cli.config.groups import kind_of

        group = self._group(yaml)
        word = f"{group.replace('/', '.')}={yaml.stem}"
        assert group == "experiment" or kind_of(group), f"{yaml}: {group} is neither a kind of part nor experiment"
        base = [] if group == "experiment" else [*self.model, *self._around(group.replace("/", "."))]
        compose([*base, f"{group}={yaml.stem}", *self.beside.get(word, ())], complete=False)

    def test_its_yaml_shadows_nothing(self, yaml: Path) -> None:
        """No YAML file shadows a registered name, nor another package's file."""
        from toolkit.cli.config.groups import claims, kind_of

        kind, owners = kind_of(self._group(yaml)), claims(self._group(yaml), yaml.stem)
        names = registry.names(kind) if kind else ()
        assert yaml.stem not in names, f"{yaml} shadows {kind}={yaml.stem}, which is registered: rename it"
        assert len(owners) == 1, f"{yaml} exists in {' and '.join(owners)}: rename it"

    def test_the_wheel_has_its_modules_and_yaml(self, tmp_path: Path) -> None:
        """Skipped where the folder to build it from is not known."""
        project = self._project()
        if project is None:
            pytest.skip("its folder is not known")
        shutil.copytree(project, tmp_path / "source", ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        words = ["wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(tmp_path / "source")]
        words += ["--no-build-isolation"] if _can_build(project) else []
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"it does not build:\n{done.stdout}{done.stderr}"
        (wheel,) = tmp_path.glob("*.whl")
        files = set(zipfile.ZipFile(wheel).namelist())
        wanted = {self._inside(file) for file in self._yaml()}
        wanted |= {self._inside(schema.read(part).file) for part in self._source().parts() if part.kind in REGISTERED}
        missing = sorted(wanted - files)
        assert not missing, f"{wheel.name} lacks {', '.join(missing)}: see package-data in its pyproject.toml"

    def _check_fit(self, component: Registration, folder: Path) -> None:
        words = self._model_with(component)
        try:
            _build(words, folder / "run")
        except ToolkitError as error:
            raise AssertionError(self._unfit(component, words, error)) from error

    def _unfit(self, component: Registration, words: Sequence[str], error: ToolkitError) -> str:
        """Why a component does not fit, and what to change: itself, or the model that it is tried in."""
        own = f"{registry.key(component.kind)}={component.name}"
        return (
            f"{own} does not fit into the suite's model: {error}\nthe model is {' '.join(words)}\n"
            "where that is right, as for parts of another rank or of real-valued data, say which model it fits into:"
            f' model = ("dataset=…", …) of your class for all parts, or beside = {{"{own}": ["encoder=…", …]}} for this'
        )

    def _accepted(self, component: Registration, option: schema.Option) -> Iterator[tuple[str, Any]]:
        """Values out of the ordinary that the option's type accepts."""
        from toolkit.testing.options import HUGE, refusal, tried

        for value, number in tried(option):
            one = f"{registry.key(component.kind)}.{option.name}={value}"
            if not refusal(partial(option.convert, value)):
                assert number != HUGE, f"{one} is accepted: say the most in its type, as those of toolkit.ranges do"
                yield option.name, value

    def _model_with(self, component: Registration) -> list[str]:
        own = registry.key(component.kind)
        word = f"{own}={component.name}"
        beside = [*self._around(own), *self.beside.get(word, ())]
        for option in schema.read(component).options:
            key = f"{own}.{option.name}"
            if option.required and not any(other.startswith(f"{key}=") for other in beside):
                pytest.skip(f'{key} has no default: name one, beside = {{"{word}": ["{key}=…"]}}')
        return [*self.model, word if component.kind not in LISTS else f"{component.kind}=[{component.name}]", *beside]

    def _around(self, key: str) -> list[str]:
        """The words that choose the part inside which a key's part stands."""
        return [f"{kind}={name}" for inner, (kind, name) in HOSTS.items() if key == f"{kind}.{inner}"]

    def _source(self) -> Source:
        name = self.distribution.lower().replace("_", "-")
        for source in sources():
            if source.name.lower().replace("_", "-") == name:
                return source
        have = ", ".join(source.name for source in sources())
        raise AssertionError(f"no {self.distribution} is installed or on {PLUGIN_PATH} (installed: {have})")

    def _registrations(self) -> Iterator[Registration]:
        for kind in PARTS:
            yield from self._source().registrations(kind)

    def _yaml(self) -> Iterator[Path]:
        for folder in self._folders():
            yield from sorted(folder.rglob("*.yaml"))

    def _folders(self) -> list[Path]:
        return [folder for owner, folder in registry.conf_folders() if owner == self._source().name]

    def _group(self, yaml: Path) -> str:
        (folder,) = (folder for folder in self._folders() if yaml.is_relative_to(folder))
        return yaml.parent.relative_to(folder).as_posix()

    def _project(self) -> Path | None:
        """The folder with its pyproject.toml."""
        if self._source().folder:
            return self._source().folder
        for installed in distributions(name=self.distribution):
            project = checkout(installed)
            if project:
                return project.parent
        return None

    def _inside(self, file: Path) -> str:
        """A file's name in the wheel."""
        package = next(
            parent for parent in reversed(file.parents) if (parent / "__init__.py").is_file() or parent == file.parent
        )
        return file.relative_to(package.parent if (package / "__init__.py").is_file() else package).as_posix()


def _build(words: Sequence[str], run: Path) -> None:
    """A model of these words, all of it."""
    from toolkit.build import build_autoencoder, build_loggers, build_metrics, build_objective, build_prior
    from toolkit.cli.config.compose import compose
    from toolkit.model import open_dataset

    config = compose(words).config
    data = open_dataset(config).spec
    model = build_autoencoder(config, data)
    build_objective(config, model)
    build_metrics(config, model)
    for _, logger in build_loggers(config, run):
        logger.close("stopped")
    if model.code_spec.depth:
        build_prior(config, model.code_spec, data)


def _can_build(project: Path) -> bool:
    """Whether a project's build requirements are installed; else pip fetches them."""
    build = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8")).get("build-system", {})
    try:
        needed = [Requirement(text) for text in build.get("requires", ["setuptools"])]
        return all(requirement.specifier.contains(version(requirement.name)) for requirement in needed)
    except PackageNotFoundError:
        return False
