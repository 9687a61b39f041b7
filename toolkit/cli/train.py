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
from typing import Any

import hydra
import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from toolkit import hub, registry
from toolkit.blame import blame
from toolkit.cli import prior_sweep, sweeps
from toolkit.cli.config import errors, groups, source
from toolkit.cli.config.begun import begun
from toolkit.cli.config.check import validate
from toolkit.cli.config.compose import VERSION, Composed, compose, composed_node, experiment_of
from toolkit.cli.config.quote import key_of, prepare, text
from toolkit.cli.config.reopen import reopen
from toolkit.cli.flags import split
from toolkit.cli.fresh import create_folder, remove_empty
from toolkit.cli.jobs import ending_with_command, told_of_signals
from toolkit.cli.ranks import launch, torchrun
from toolkit.config import RunConfig
from toolkit.errors import RemoteError, ToolkitError, printable
from toolkit.failures import explain
from toolkit.registry import did_you_mean

_ASKING = ("--help", "--hydra-help", "--info", "--cfg")
NOW = "${now:%Y-%m-%d_%H-%M-%S}"
"""What Hydra calls the time of a run by which its folder is named."""
_LOST = ("FailedJobError", "TerminatedWorkerError", "UncompletedJobError")
"""What submitit and joblib raise for a job that ended without an error, as where memory runs out."""
CHECK = """toolkit check [experiment=NAME] [PART=NAME …] [PART.OPTION=VALUE …]
toolkit check run=DIR

Builds the parts, checks on a dummy example that they fit, and prints shapes, parameters, rate, receptive
field, and the memory that a step of training takes. Takes the words of toolkit train."""


def train(args: Sequence[str]) -> int:
    """Trains what the words describe; nothing is written before the whole configuration is valid."""
    command = partial(_train, args)
    return torchrun.join_ranks(command) if torchrun.is_torchrun() else command()


def _train(args: Sequence[str]) -> int:
    flags, words = split(args)
    run, others = _run(words)
    if run:
        return _continue(run, others, flags)
    if any(flag in flags for flag in _ASKING):
        return _answer(flags, words)
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
    unused = [flag for flag in flags if run or flag != "--config-dir"]
    if unused:
        raise ToolkitError(f"{unused[0]}: toolkit check {'run=DIR ' if run else ''}does not take this flag")
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
        title = settings.job.override_dirname.replace(",", " ")
        print(printable(f"run {settings.job.num}: {title}"), flush=True)
    values, _ = validate(cfg, [key_of(word) for word in overrides], complete=True)
    folder = Path(settings.runtime.output_dir)
    values = begun(values, experiment_of(settings), settings.overrides.hydra, _given_folder(settings))
    try:
        if settings.mode == RunMode.RUN:  # another command may have begun one since the folder was chosen
            _check_unused(str(folder), "config.yaml")
        return _start(RunConfig.read(values), folder)
    except Exception as error:
        if settings.mode == RunMode.MULTIRUN:  # reported here, next to the run's title; Hydra continues with the others
            reason = str(error) if isinstance(error, ToolkitError) else blame(error)
            print(printable(f"run {settings.job.num} failed: {reason}"), file=sys.stderr, flush=True)
            if isinstance(error, OSError):  # where Hydra raises one, it could not create a folder
                raise RemoteError(reason) from error
            raise
        _failures.append(error)  # of a single run Hydra would report in its own words
        return None


def _given_folder(settings: Any) -> str | None:
    """Hydra's --config-dir."""
    return next((source.path for source in settings.runtime.config_sources if source.provider == "command-line"), None)


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
    others = [flag for flag in flags if flag != "--multirun"]
    if others:
        raise ToolkitError(f"{', '.join(others)}: a run is continued without flags, or with -m over several priors")
    from toolkit.runs.folder import Run

    hub.refuse_training(folder)
    runs = prior_sweep.singles(words) if flags else [list(words)]
    composed = [_saved(folder, run) for run in runs]
    _print_notices(tuple(dict.fromkeys(notice for run in composed for notice in run.notices)))
    with Run(Path(folder)).blaming():
        if not flags:
            _start(composed[0].config, Path(folder))
            return 0
        starts = [(run[-1], partial(_start, one.config, Path(folder))) for run, one in zip(runs, composed, strict=True)]
        prior_sweep.train_each(starts, partial(print, flush=True))
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


def _answer(flags: dict[str, str], words: Sequence[str]) -> int:
    """Prints what was asked for, and trains nothing."""
    folder, multirun = _folder(flags), "--multirun" in flags
    if flags.get("--cfg") == "job":
        runs, total = sweeps.shown(words) if multirun else ([list(words)], 1)
        for number, run in enumerate(runs):
            if multirun:
                print(printable(f"# run {number}: {' '.join(run)}"))
            _print(compose(run, folder=folder, complete=False), flags.get("--package"))
        if total > len(runs):
            _print_notices([f"note: {total} runs in all"])
        return 0
    single = {flag: value for flag, value in flags.items() if flag != "--multirun"}
    words = sweeps.checked(words)[0] if multirun else words
    if "--hydra-help" not in flags:  # it composes nothing of ours
        composed_node(prepare(words), folder)  # Hydra would act upon what it shows
    if "--cfg" in flags:
        composed = compose(words, folder=folder, complete=False)
        key, parent, given = _where(words, composed, multirun)
        words = [*words, *([] if given else [f"{key}={text(f'{parent}/{NOW}')}"]), *_job_name(words, composed)]
    _hydra(single, words)
    return 0


def _print(composed: Composed, package: str | None) -> None:
    _print_notices(composed.notices)
    values: Any = composed.values
    for key in package.split(".") if package else ():
        if not isinstance(values, dict) or key not in values:
            known = list(values) if isinstance(values, dict) else []
            near = did_you_mean(key, known)
            raise ToolkitError(f"--package {package}: no {key}{near}; there is {', '.join(known) or 'nothing in it'}")
        values = values[key]
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).removesuffix("...\n"), end="")


def _print_notices(notices: Sequence[str]) -> None:
    for notice in notices:
        print(printable(notice), file=sys.stderr)


def _checked(words: Sequence[str], flags: dict[str, str]) -> tuple[list[str], Path]:
    """Validates every run that the words ask for; returns the words that set their folder, and that folder."""
    folder = _folder(flags)
    if not any(key_of(word) in ("dataset", "experiment") for word in words):
        raise ToolkitError(_nothing_chosen(folder))
    multirun = "--multirun" in flags
    composed = [compose(run, folder=folder) for run in (sweeps.checked(words) if multirun else [list(words)])]
    _print_notices(tuple(dict.fromkeys(notice for run in composed for notice in run.notices)))
    constants = sweeps.untitled(words) if multirun else []
    folder_words, path = _folder_words(words, composed[0], multirun)
    return [*folder_words, *_job_name(words, composed[0]), *constants], path


def _folder_words(words: Sequence[str], composed: Composed, multirun: bool) -> tuple[list[str], Path]:
    """Where the run is written: ``outputs/EXPERIMENT/TIME``, created here, unless the words or YAML say it.

    A sweep's folder is printed.
    """
    key, parent, given = _where(words, composed, multirun)
    if given is not None:
        folder = os.path.expanduser(given)
        _check_unused(folder, "*/config.yaml" if multirun else "config.yaml")
    else:
        folder = str(create_folder(parent))
    if multirun:
        print(printable(f"sweep: {folder}"), flush=True)
    return [] if folder in _typed(words, key) else [f"{key}={text(folder)}"], Path(folder)


def _where(words: Sequence[str], composed: Composed, multirun: bool) -> tuple[str, Path, str | None]:
    """Hydra's key of the folder, the folder in which one is created, and the one that words or YAML say, if they do."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    typed, written = _typed(words, key), composed.sweep_dir if multirun else composed.run_dir
    parent = Path("outputs") / (composed.experiment or ("sweep" if multirun else "custom"))
    return key, parent, typed[-1] if typed else written


def _typed(words: Sequence[str], key: str) -> list[str]:
    return [word.partition("=")[2] for word in words if key_of(word) == key]


def _job_name(words: Sequence[str], composed: Composed) -> list[str]:
    """What launchers call the jobs: the run's name, or the experiment's."""
    called = composed.values.get("name") or composed.experiment
    return [f"hydra.job.name={text(called)}"] if called and not _typed(words, "hydra.job.name") else []


def _check_unused(folder: str, runs: str) -> None:
    """ToolkitError where the folder already holds a run, or a sweep's, unless this command was to be started again."""
    if torchrun.starts_again() and runs == "config.yaml":
        return
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
        except OSError as error:  # a job's own are not raised here: Hydra itself only creates its folder
            raise ToolkitError(f"the run's folder cannot be created: {explain(error) or error}") from error
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
