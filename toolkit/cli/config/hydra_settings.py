"""What YAML may set of Hydra: where runs are written, how a sweep is searched and launched. All else could run code.

The words of the command line are the user's own, and may set more; a file may be a stranger's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toolkit.cli.config import errors
from toolkit.cli.config.quote import key_of
from toolkit.errors import ToolkitError
from toolkit.registry import did_you_mean

FOLDERS = ("run", "sweep")
_LAUNCHER = """n_jobs backend prefer require verbose timeout pre_dispatch batch_size temp_folder max_nbytes mmap_mode
submitit_folder timeout_min cpus_per_task gpus_per_node tasks_per_node mem_gb nodes name stderr_to_stdout partition qos
comment constraint exclude gres cpus_per_gpu gpus_per_task mem_per_gpu mem_per_cpu account signal_delay_s
max_num_timeout array_parallelism"""
_SWEEPER = "max_batch_size params sampler direction study_name n_trials n_jobs max_failure_rate search_space"
PLUGINS: Mapping[str, frozenset[str]] = {
    "launcher": frozenset(_LAUNCHER.split()),
    "sweeper": frozenset(_SWEEPER.split()),
}
"""What YAML may set of a launcher and a sweeper: no command for a shell, no function by name, no database."""
SAMPLER = "hydra/sweeper/sampler"

_POPULATED = ("runtime", "overrides")
"""What Hydra fills in itself, besides these of ``hydra.job``."""
_POPULATED_OF_JOB = ("override_dirname", "config_name")
_GROUPS = ("hydra.launcher", "hydra.sweeper", SAMPLER.replace("/", "."))


def check(settings: DictConfig, usual: Mapping[str, Any], words: Sequence[str]) -> None:
    """ToolkitError where YAML has set more of Hydra than it may.

    ``usual``: the same settings where nothing was chosen; ``words``: the overrides of the command line.
    """
    typed = [key for key in map(key_of, words) if key not in _GROUPS]
    values = plain(settings)
    for section, value in values.items():
        if value == usual.get(section):
            continue
        if section in PLUGINS:
            _check_plugin(section, settings[section], value, typed)
        elif section not in (*FOLDERS, *_POPULATED):
            for path in _changes(f"hydra.{section}", usual.get(section), value):
                if not _typed(path, typed) and path not in [f"hydra.job.{key}" for key in _POPULATED_OF_JOB]:
                    raise _refused(path)
    for kind in ("task", "hydra"):
        for word in values["overrides"][kind]:
            if word not in words:
                raise _refused(f"hydra.overrides.{kind}")


def given_folder(settings: DictConfig, usual: Mapping[str, Any], section: str) -> str | None:
    """The folder that YAML sets for runs or sweeps; None where it sets none."""
    if plain(settings)[section]["dir"] == usual[section]["dir"]:
        return None
    try:
        return str(settings[section].dir)
    except OmegaConfBaseException as error:
        raise errors.explain(error, []) from error


def plain(settings: Any) -> dict[str, Any]:
    """Settings as plain values, interpolations as they are written."""
    values: Any = OmegaConf.to_container(settings, resolve=False, enum_to_str=True)
    return dict(values)


def _check_plugin(section: str, node: DictConfig, values: Any, typed: Sequence[str]) -> None:
    """Checks a launcher or a sweeper: one that is registered, with the options that YAML may set."""
    path, known = f"hydra.{section}", _registered(f"hydra/{section}")
    target = values.get("_target_") if isinstance(values, Mapping) else None
    if target not in known:
        raise ToolkitError(f"{path}._target_={target}: {_no_code(f'hydra/{section}')}")
    for key, value in values.items():
        usual = known[target].get(key)
        if value == usual or (key == "_target_") or _typed(f"{path}.{key}", typed):
            continue
        if key not in PLUGINS[section]:
            near = did_you_mean(key, PLUGINS[section] & known[target].keys())
            if key in known[target]:
                cure = f"{path}.{key} is not for YAML, where it could run code: give it on the command line"
                raise ToolkitError(f"{path}.{key}: {cure}")
            raise ToolkitError(f"{path}.{key}: this {section} has no {key}{near}")
        resolved = OmegaConf.to_container(node[key], resolve=True) if OmegaConf.is_config(node[key]) else node[key]
        if key == "sampler":
            _check_sampler(resolved)
        elif key in ("params", "search_space"):
            _check_searched(f"{path}.{key}", resolved)
        else:
            _check_text(f"{path}.{key}", resolved)


def _check_sampler(value: Any) -> None:
    path, known = SAMPLER.replace("/", "."), _registered(SAMPLER)
    if value is None:
        return
    target = value.get("_target_") if isinstance(value, Mapping) else value
    if target not in known:
        raise ToolkitError(f"{path}._target_={target}: {_no_code(SAMPLER)}")
    for key, option in value.items():
        if key.startswith("_") and option != known[target].get(key, target):
            raise ToolkitError(f"{path}.{key}: {_no_code(SAMPLER)}")
        _check_text(f"{path}.{key}", option)


def _check_searched(path: str, value: Any) -> None:
    """A search is over options and parts, never over Hydra's own settings or over experiments, which may have some."""
    for key in value or {}:
        head = key_of(str(key)).partition(".")[0]
        if head in ("hydra", "experiment"):
            raise ToolkitError(f"{path}.{key}: YAML may search options and parts, not {head}")


def _check_text(path: str, value: Any) -> None:
    """Numbers and lines of text: a line break would begin another line of a job's script."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if str(key).startswith("_"):
                raise ToolkitError(f"{path}.{key}: no configuration can name code")
            _check_text(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_text(path, item)
    elif not str(value).isprintable():
        raise ToolkitError(f"{path}={value!r}: give one line of text")


def _registered(group: str) -> dict[str, dict[str, Any]]:
    """The launchers, sweepers or samplers that are installed: their options by class."""
    nodes: Any = ConfigStore.instance().repo
    for name in group.split("/"):
        nodes = nodes.get(name, {})
    options = [plain(OmegaConf.create(node.node)) for name, node in nodes.items() if name.endswith(".yaml")]
    return {values["_target_"]: values for values in options if isinstance(values.get("_target_"), str)}


def _changes(path: str, usual: Any, value: Any) -> Iterator[str]:
    """The dotted keys in which a setting is not as usual."""
    if not isinstance(value, Mapping):
        if value != usual:
            yield path
        return
    before = usual if isinstance(usual, Mapping) else {}
    for key in {**before, **value}:
        yield from _changes(f"{path}.{key}", before.get(key), value.get(key))


def _typed(path: str, typed: Sequence[str]) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in typed)


def _refused(path: str) -> ToolkitError:
    allowed = ", ".join((*FOLDERS, *sorted(PLUGINS)))
    return ToolkitError(
        f"{path}: YAML may set hydra.{{{allowed}}} alone, as anything else could run code;"
        " take it out of the experiment or preset that sets it"
    )


def _no_code(group: str) -> str:
    names = ConfigStore.instance().list(group)
    choices = ", ".join(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
    return f"no configuration can name code; choose {group}=NAME: {choices}"
