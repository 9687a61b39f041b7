"""``toolkit train``: from words to one run, a sweep of runs, or the continuation of a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from shlex import quote

import hydra
import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from toolkit import registry
from toolkit.blame import blame
from toolkit.cli.config import errors, groups, source
from toolkit.cli.config.check import validate
from toolkit.cli.config.compose import VERSION, Composed, compose
from toolkit.cli.config.quote import key_of, prepare, text
from toolkit.cli.config.reopen import reopen
from toolkit.cli.flags import split
from toolkit.cli.fresh import create_folder, remove_empty
from toolkit.cli.jobs import ending_with_command, told_of_signals
from toolkit.cli.ranks import launch, torchrun
from toolkit.config import RunConfig
from toolkit.errors import RemoteError, ToolkitError

_ASKING = ("--help", "--hydra-help", "--info", "--cfg")
_MOST_CHECKED = 64
_LOST = ("FailedJobError", "TerminatedWorkerError", "UncompletedJobError")
"""What submitit and joblib raise for a job that ended without an error, as where memory runs out."""
CHECK = """toolkit check [experiment=NAME] [PART=NAME …] [PART.OPTION=VALUE …]
toolkit check run=DIR

Builds the parts, checks on a dummy example that they fit, and prints shapes, parameters, rate and receptive
field. Takes the words of toolkit train."""


def train(args: Sequence[str]) -> int:
    """Trains what the words describe; nothing is written before the whole configuration is valid."""
    command = partial(_train, args)
    return torchrun.join_ranks(command) if torchrun.is_torchrun() else command()


def _train(args: Sequence[str]) -> int:
    flags, words = split(args)
    run, others = _run(words)
    if run:
        return _continue(run, others, flags)
    if flags.get("--cfg") == "job":
        return _print(compose(words, folder=_folder(flags), complete=False))
    if any(flag in flags for flag in _ASKING):
        _hydra(flags, words)
        return 0
    more, folder = _checked(words, flags)
    try:
        _hydra(flags, [*words, *more])
    except BaseException:
        remove_empty(folder)
        raise
    return 0


def check(args: Sequence[str]) -> int:
    """Checks that the parts that the words describe, or those of ``run=DIR``, fit."""
    flags, words = split(args)
    if "--help" in flags:
        print(CHECK)
        return 0
    run, words = _run(words)
    composed = _saved(run, words) if run else compose(words, folder=_folder(flags))
    _print_notices(composed.notices)
    from toolkit.cli.check import check as check_parts

    return check_parts(composed.config)


def job(cfg: DictConfig) -> float | None:
    """One run, as Hydra's launcher starts it, possibly in another process; returns what a sweeper may minimize."""
    _set_start_method()
    with ending_with_command():
        return _job(cfg)


def _job(cfg: DictConfig) -> float | None:
    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    if settings.mode == RunMode.MULTIRUN:
        print(f"run {settings.job.num}: {settings.job.override_dirname.replace(',', ' ')}", flush=True)
    values, _ = validate(cfg, [key_of(word) for word in overrides], complete=True)
    folder = Path(settings.runtime.output_dir)
    try:
        if settings.mode == RunMode.RUN:  # another command may have begun one since the folder was chosen
            _check_unused(str(folder), "config.yaml")
        return _start(RunConfig.read(values), folder)
    except Exception as error:
        if settings.mode == RunMode.MULTIRUN:  # reported here, next to the run's title; Hydra continues with the others
            reason = str(error) if isinstance(error, ToolkitError) else blame(error)
            print(f"run {settings.job.num} failed: {reason}", file=sys.stderr, flush=True)
            if isinstance(error, OSError):  # where Hydra raises one, it could not create a folder
                raise RemoteError(reason) from error
            raise
        _failures.append(error)  # of a single run Hydra would report in its own words
        return None


_failures: list[Exception] = []


def _set_start_method() -> None:
    """Undoes joblib's start method in its processes: neither ranks nor loading workers can start with it."""
    methods = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method() not in methods:
        multiprocessing.set_start_method(methods[0], force=True)


def _start(config: RunConfig, folder: Path) -> float | None:
    if torchrun.is_torchrun():
        return torchrun.train(config, folder)
    if config.trainer.ranks > 1:
        return launch.train(config, folder)
    from toolkit.cli.job import train_run  # here, so that a mistake is reported without loading torch

    return train_run(config, folder)


def _continue(folder: str, words: Sequence[str], flags: dict[str, str]) -> int:
    if flags:
        raise ToolkitError(f"{', '.join(flags)}: a run is continued without flags")
    from toolkit.runs.folder import Run

    composed = _saved(folder, words)
    _print_notices(composed.notices)
    with Run(Path(folder)).blaming():
        _start(composed.config, Path(folder))
    return 0


def _run(words: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that ``run=`` names, if any, and the other words."""
    runs = [word.partition("=")[2] for word in words if key_of(word) == "run"]
    return runs[-1] if runs else "", [word for word in words if key_of(word) != "run"]


def _saved(folder: str, words: Sequence[str]) -> Composed:
    from toolkit.runs.folder import Run

    run = Run.open(folder)
    with run.blaming():
        return reopen(run.config_values(), words)


def _folder(flags: dict[str, str]) -> str | None:
    folder = flags.get("--config-dir")
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise ToolkitError(f"--config-dir {folder}: no such folder")
    return str(Path(folder).resolve())


def _print(composed: Composed) -> int:
    _print_notices(composed.notices)
    print(yaml.safe_dump(composed.values, sort_keys=False, allow_unicode=True), end="")
    return 0


def _print_notices(notices: Sequence[str]) -> None:
    for notice in notices:
        print(notice, file=sys.stderr)


def _checked(words: Sequence[str], flags: dict[str, str]) -> tuple[list[str], Path]:
    """Validates every run that the words ask for; returns the words that set their folder, and that folder."""
    folder = _folder(flags)
    if not any(key_of(word) in ("dataset", "experiment") for word in words):
        raise ToolkitError(_nothing_chosen(folder))
    multirun = "--multirun" in flags
    runs = _singles(words) if multirun else [list(words)]
    composed = [compose(run, folder=folder) for run in runs[:_MOST_CHECKED]]
    _print_notices(tuple(dict.fromkeys(notice for run in composed for notice in run.notices)))
    constants = _constants(words) if multirun else []
    folder_words, path = _folder_words(words, composed[0].experiment, multirun)
    return [*folder_words, *constants], path


def _folder_words(words: Sequence[str], experiment: str | None, multirun: bool) -> tuple[list[str], Path]:
    """Where the run is written: ``outputs/EXPERIMENT/TIME``, created here, unless the words say it.

    A sweep's folder is printed.
    """
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    given = [word.partition("=")[2] for word in words if key_of(word) == key]
    if given:
        folder = given[-1]
        _check_unused(folder, "*/config.yaml" if multirun else "config.yaml")
    else:
        folder = str(create_folder(Path("outputs") / (experiment or ("sweep" if multirun else "custom"))))
    if multirun:
        print(f"sweep: {folder}", flush=True)
    return [] if given else [f"{key}={text(folder)}"], Path(folder)


def _constants(words: Sequence[str]) -> list[str]:
    """Keeps the words that all runs of a sweep share out of the runs' titles."""
    parsed = OverridesParser.create().parse_overrides(prepare(words, multirun=True))
    keys = ",".join(text(override.key_or_group) for override in parsed if not override.is_sweep_override())
    return [f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"]


def _singles(words: Sequence[str]) -> list[list[str]]:
    """A sweep's words as words of single runs: every value once, with the first values of the others."""
    overrides = OverridesParser.create().parse_overrides(prepare(words, multirun=True))
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_discrete_sweep()
        else [str(override.input_line)]
        for override in overrides
        if not override.is_sweep_override() or override.is_discrete_sweep()
    ]
    first = [choices[0] for choices in values]
    changed = [[*first[:i], value, *first[i + 1 :]] for i, choices in enumerate(values) for value in choices[1:]]
    return [first, *changed]


def _check_unused(folder: str, runs: str) -> None:
    """ToolkitError where the folder already holds a run, or a sweep's."""
    config = min(Path(folder).glob(runs), default=None)
    if config:
        cure = f"continue it with toolkit train run={quote(str(config.parent))}, or take another folder"
        raise ToolkitError(f"{folder} holds a run: {cure}")


def _nothing_chosen(folder: str | None) -> str:
    experiments = ", ".join(groups.presets("experiment", folder)) or "none"
    lines = ["nothing chosen: add experiment=NAME, or dataset=NAME and the other parts"]
    lines += [f"experiments: {experiments}", f"datasets: {', '.join(registry.names('dataset')) or 'none'}"]
    return "\n".join(lines)


def _hydra(flags: dict[str, str], words: Sequence[str]) -> None:
    multirun = "--multirun" in flags
    arguments = [part for flag, value in flags.items() for part in ([flag, value] if value else [flag])]
    overrides = [] if "--hydra-help" in flags else prepare(words, multirun)  # it composes nothing of ours
    with source.installed(), _argv([*arguments, *overrides]), told_of_signals() if multirun else nullcontext():
        try:
            hydra.main(config_path="pkg://toolkit.conf", config_name="train", **VERSION)(job)()
        except HydraException as error:
            raise errors.explain(error, words) from error
        except BrokenPipeError:  # of --help, to a reader that has closed the pipe
            raise
        except OSError as error:  # outside the job, Hydra only creates its folder
            raise ToolkitError(f"the run's folder cannot be created: {error}") from error
        except SystemExit as stop:  # after --help and the like
            if stop.code:
                raise
        except Exception as error:
            if type(error).__name__ not in _LOST:
                raise
            raise ToolkitError(_lost(error)) from error
    if _failures:
        raise _failures.pop()


def _lost(error: Exception) -> str:
    reason = " ".join(str(error).split("\n---")[0].split())
    again = "toolkit train run=DIR continues a run of it from its last checkpoint, or starts it again"
    return f"a job of the sweep was lost: {reason}\n{again}"


@contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    """Sets up what Hydra reads, the arguments and how to raise errors, and restores them and logging afterwards."""
    before, log = sys.argv, logging.getLogger()
    handlers, level = list(log.handlers), log.level
    sys.argv = [before[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        log.handlers[:] = handlers
        log.setLevel(level)
