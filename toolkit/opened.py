"""An opened run: its parts with their weights, and what is known of data, codes and priors; no dataset on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from shlex import quote
from typing import Self

import torch
from torch import Tensor

from toolkit.build import asks_for_source, build_prior, build_stage, dropped, files_of
from toolkit.cells import run_cell
from toolkit.config import PartConfig
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.given import described, known_conditions
from toolkit.prior import Prior
from toolkit.runs.checkpoint import Checkpoint, found, read_newest
from toolkit.runs.chosen import which_it_is
from toolkit.runs.folder import Run
from toolkit.runs.spec_file import check_codes
from toolkit.spec import CodeSpec, DataSpec
from toolkit.trained import TrainedPriors, checkpoint_of
from toolkit.training import Stage


class Opened:
    """A run that was opened; ``toolkit.model.Model`` adds what goes through it.

    ``spec`` is the data that goes in and comes out, ``code_spec`` its codes, ``notices`` what the user should know
    about how it was opened. A run over another run's codes has that run as ``base`` and goes through both: data to the
    base's codes to its own, and back. ``data`` is what its own autoencoder models: the base's codes, or ``spec``.
    """

    def __init__(
        self,
        run: Run,
        device: torch.device,
        checkpoint: str | int | None = None,
        prior_checkpoint: str | int | None = None,
    ) -> None:
        self.run, self.device, self.notices = run, device, list[str]()
        self.config = run.config()
        self.notices += run.edited()
        if run.origin:
            self.notices.append(
                f"{run.origin} stays as it is: what is made of it goes to {run.results}, unless out= says"
            )
        self.data: DataSpec
        self.code_spec: CodeSpec
        self.data, self.code_spec = run.spec()
        with run.blaming():
            self.spec: DataSpec = self.data if self.base is None else self.base.spec
            chosen = partial(checkpoint_of, run, run.autoencoder, checkpoint, self.notices)
            self.checkpoint, self.stage = read_newest(chosen, self._read)
            self.notices += which_it_is(self.checkpoint)
            self.notices += dropped(self.config)
        self.stage.to(device).eval()
        self.autoencoder, self.objective = self.stage.model, self.stage.objective
        self._trained = TrainedPriors(
            run, self.data, self.code_spec, self.checkpoint, device, self.notices, prior_checkpoint
        )

    def __repr__(self) -> str:
        """Parts, shapes and rate."""
        parts = ", ".join(f"{kind}={getattr(self.config, kind).name}" for kind in ("encoder", "quantizer", "decoder"))
        trained = ", ".join(self.run.priors()) or "none"
        return f"Model({str(self.run.path)!r}: {parts}; priors: {trained}; {described(self.spec, self.code_spec)})"

    def _repr_html_(self) -> str:
        """Parts with shapes and parameters, rate, and the last sheet that training has plotted."""
        return run_cell(self.run, self.config, self.autoencoder, self.spec, self.checkpoint.step)

    def _read(self, checkpoint: Checkpoint) -> tuple[Checkpoint, Stage]:
        """A checkpoint, and stage one with its averaged weights."""
        stage = build_stage(self.config, self.data, checkpoint)
        below = self.base.code_spec if self.base else None
        check_codes(stage.model.code_spec, self.data, self.code_spec, below, self.run.path)
        checkpoint.load_weights(stage, averaged=True)
        return checkpoint, stage

    @property
    def prior_steps(self) -> dict[str, int]:
        """The steps of the priors' checkpoints, as they are opened."""
        return self._trained.steps()

    @cached_property
    def base(self) -> Self | None:
        """The run whose codes are this one's data."""
        return self.__class__(Run.open(self.run.base), self.device) if asks_for_source(self.config) else None

    @property
    def bottom(self) -> Self:
        """The model that the data goes into first: the last of the bases, or this one."""
        return self if self.base is None else self.base.bottom

    @property
    def stack(self) -> list[Self]:
        """This model, and those below it."""
        return [self] if self.base is None else [self, *self.base.stack]

    @cached_property
    def files(self) -> type[Dataset]:
        """The class that reads and writes files of this data: the dataset's own, or one that it names."""
        return files_of(self.bottom.config.dataset)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """The trained priors by name, except those that cannot be opened; ``notices`` says why."""
        priors = {}
        for name in self.run.priors():
            try:
                priors[name] = self._trained.open(name)
            except ToolkitError as e:
                self.notices.append(f"prior={name} is left out: {e}")
        return priors

    def prior(self, name: str | None = None) -> Prior:
        """A trained prior, or any without parameters; by default the configured one. ToolkitError if untrained."""
        name = name or self.config.chosen_prior().name
        if name in self.run.priors():
            return self._trained.open(name)
        prior = build_prior(replace(self.config, prior=PartConfig(name, {})), self.code_spec, self.data).to(self.device)
        if any(True for _ in prior.parameters()):
            have = ", ".join(self.run.priors()) or "none"
            lost = f"has checkpoints, but {self.run.prior(name) / 'config.yaml'} is gone"
            why = lost if found(self.run.prior(name)) else f"was not trained on this run (trained: {have})"
            again = f"toolkit train run={quote(str(self.run.path))} stage=prior prior={name}"
            raise ToolkitError(f"prior={name} {why}: {again}")
        return prior

    def sampled_spec(self, name: str | None = None) -> DataSpec:
        """The spec of a prior's samples: it may have been trained on longer or larger examples."""
        name = name or self.config.chosen_prior().name
        if name not in self.run.priors() or self.base is not None:
            return self.spec
        return replace(self.spec, axes=self._trained.axes(name))

    def seen(self, prior: str | None) -> set[str]:
        """The conditions that the decoder or a prior sees."""
        config = self.run.prior_config(prior) if prior in self.run.priors() and prior else self.config
        return {*self.config.decoder_conditions, *(config.prior_conditions if prior else ())}

    def labels(
        self, values: Mapping[str, str], n: int, *, prior: str | None = None, length: int | None = None
    ) -> dict[str, Tensor]:
        """Conditions by label for n examples: one for all (``speaker: p225``) or several in turn; a condition per step
        takes a list or a file with a label for each of ``length`` steps, by default those of the data's first axis (see
        ``toolkit.labels``).

        ToolkitError for an unknown condition or label, for too few or too many labels, and for a condition that
        neither the decoder nor the named prior sees.
        """
        return known_conditions(values, self.spec, self.seen(prior), n, length)

    @property
    def _weights(self) -> str:
        """Hash of all weights between data and codes."""
        return "+".join(model.checkpoint.weights_hash for model in self.stack)
