"""Metrics and pictures in MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, final

from toolkit.logger import Logger, Status

TAG = "toolkit.run"
"""Of MLflow's runs: the folder that they are of."""
NOT_A_NAME = re.compile(r"[^\w/. -]")
"""What MLflow refuses in the name of a metric."""
LONGEST = 500
"""Characters of a parameter, which MLflow limits."""
STATES = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@final
class MLflowLogger(Logger):
    """A run of MLflow: metrics as ``STAGE/SPLIT/NAME``, pictures as artifacts in ``STAGE/``, and the configuration as
    parameters.

    A run that is continued goes on in the same one. Needs the extra of that name.

    Args:
        uri: of the tracking server; empty: the file ``mlflow.db`` in the run's folder.
        experiment: where it is kept there.
    """

    def __init__(
        self, run: Path, config: Mapping[str, Any], *, uri: str = "", experiment: str = "discrete-toolkit"
    ) -> None:
        self._library = _library()
        self._run, self._config = run, config
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._id = ""

    @classmethod
    def missing_dependencies(cls) -> list[str]:
        try:
            _library()
        except ValueError as error:
            return [str(error)]
        return []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._open()
        for name, value in metrics.items():
            key = NOT_A_NAME.sub("_", f"{stage}/{split}/{name}")
            self._client.log_metric(self._id, key, value, step=step)

    def picture(self, stage: str, step: int, path: Path) -> None:
        self._open()
        self._client.log_artifact(self._id, str(path), stage)

    def close(self, status: Status) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id, STATES[status])
            self._client = None

    def _open(self) -> None:
        if self._client is not None:
            return
        folder = self._run.resolve()
        self._client = self._library.MlflowClient(tracking_uri=self._uri or f"sqlite:///{folder / 'mlflow.db'}")
        known = self._client.get_experiment_by_name(self._experiment)
        experiment = known.experiment_id if known else self._create(folder)
        earlier = self._client.search_runs([experiment], f"tags.`{TAG}` = '{str(folder).replace(chr(39), '')}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {TAG: str(folder).replace("'", ""), **dict.fromkeys(self._config.get("tags", []), "true")}
        called = self._config.get("name") or folder.name
        self._id = self._client.create_run(experiment, tags=tags, run_name=called).info.run_id
        for key, value in _flat(self._config):
            self._client.log_param(self._id, key, value)

    def _create(self, folder: Path) -> str:
        """The experiment, whose artifacts are in the run's folder where no server has them."""
        place = None if self._uri else (folder / "mlflow").as_uri()
        created: str = self._client.create_experiment(self._experiment, artifact_location=place)
        return created


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if f"{path}{key}" == "experiment.instead_of":  # the run has other values than these
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(value)[:LONGEST]


def _library() -> Any:
    try:
        return import_module("mlflow")
    except ImportError as e:
        raise ValueError("needs the extra: pip install 'discrete-toolkit[mlflow]'") from e
