"""A finished run as one object, for Python and for the commands; no Hydra, no dataset on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from toolkit import labels, registry
from toolkit.build import (
    asks_for_source,
    build_dataset,
    build_prior,
    build_prior_stage,
    build_stage,
    dropped,
)
from toolkit.causal.sampling import compiled
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.errors import ToolkitError
from toolkit.prior import Prior, SamplingOptions
from toolkit.quantizer import Quantized
from toolkit.rollout import within
from toolkit.runs.checkpoint import Checkpoint, damaged_with, found, newest, read_newest
from toolkit.runs.folder import LARGEST_EXAMPLE, Run
from toolkit.sample import BATCH, Progress, decode, decode_latents, sample, unwatched
from toolkit.spec import CodeSpec, DataSpec
from toolkit.training import PriorStage, Stage


class Sample(NamedTuple):
    """Samples from a run."""

    x: Tensor
    """``(n, channels, *axes)``, in the data's own form."""
    codes: Tensor
    """``(n, depth, *grid)``."""


def load(run: str | Path, device: str = "auto") -> Model:
    """Opens a run at its last checkpoint, with the averaged weights if there are any.

    Raises ToolkitError where the folder holds no run, the run holds no whole checkpoint, a part is not installed, or
    the weights do not fit the parts that are.
    """
    return Model(Run.open(run), choose_device(device))


def open_dataset(config: RunConfig, overrides: Mapping[str, Any] | None = None, base: Path | None = None) -> Dataset:
    """A configuration's dataset; where that is another run's codes, of the run in ``base`` if that is there already,
    else of the named run. The other run is opened on the CPU, where data is read."""
    source = None
    if asks_for_source(config):
        copied = base is not None and base.is_dir()
        run = Run.open(base if copied and base else config.dataset.options["run"], key="dataset.run")
        source = Model(run, choose_device("cpu"))
    return build_dataset(config, overrides, source)


@final
class Model:
    """An opened run.

    ``spec`` is the data that goes in and comes out, ``code_spec`` its codes, ``notices`` what the user should know
    about how it was opened. A run over another run's codes has that run as ``base`` and goes through both: data to the
    base's codes to its own, and back. ``data`` is what its own autoencoder models: the base's codes, or ``spec``.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device, self.notices = run, device, list[str]()
        self.config = run.config()
        self.notices += run.edited()
        self.data: DataSpec
        self.code_spec: CodeSpec
        self.data, self.code_spec = run.spec()
        with run.blaming():
            self.base = Model(Run.open(run.base), device) if asks_for_source(self.config) else None
            self.spec: DataSpec = self.data if self.base is None else self.base.spec
            self.checkpoint, self.stage = read_newest(partial(self._newest, run.autoencoder), self._read)
            self.notices += dropped(self.config)
        self.stage.to(device).eval()
        self.autoencoder, self.objective = self.stage.model, self.stage.objective

    def _read(self, checkpoint: Checkpoint) -> tuple[Checkpoint, Stage]:
        """A checkpoint, and stage one with its averaged weights."""
        stage = build_stage(self.config, self.data, checkpoint)
        self._check_code_spec(stage.model.code_spec)
        checkpoint.load_weights(stage, averaged=True)
        return checkpoint, stage

    @property
    def bottom(self) -> Model:
        """The model that the data goes into first: the last of the bases, or this one."""
        return self if self.base is None else self.base.bottom

    @cached_property
    def files(self) -> type[Dataset]:
        """The dataset's class, which reads and writes files of this data."""
        return registry.load("dataset", self.bottom.config.dataset.name)

    @cached_property
    def dataset(self) -> Dataset:
        """What its own autoencoder was trained on; ToolkitError where that is not on disk."""
        return open_dataset(self.config, base=self.run.base)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """The trained priors by name, except those that cannot be opened; ``notices`` says why."""
        priors = {}
        for name in self.run.priors():
            try:
                priors[name] = self._trained(name)
            except ToolkitError as e:
                self.notices.append(f"prior={name} is left out: {e}")
        return priors

    def prior(self, name: str | None = None) -> Prior:
        """A trained prior, or any without parameters; by default the configured one. ToolkitError if untrained."""
        name = name or self.config.chosen_prior().name
        if name in self.run.priors():
            return self._trained(name)
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
        return replace(self.spec, axes=self._prior_shape(self._newest(self.run.prior(name)), "axes"))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Data ``(batch, channels, *axes)`` to codes ``(batch, depth, *grid)``.

        ValueError for other shapes, ToolkitError for a continuous bottleneck, and for other axes than the run's where
        its codes have parts.
        """
        return self.quantize(self._up(x))

    def quantize(self, x: Tensor) -> Tensor:
        """``encode`` for what its own autoencoder models, which are the base's codes where there is a base."""
        if not self.code_spec.depth:
            raise ToolkitError(f"{self.run.path}: this run's bottleneck is continuous: it has no codes")
        return torch.cat([quantized.codes for quantized in self._quantized(x)])

    def decode(
        self,
        codes: Tensor,
        conditions: Mapping[str, Tensor] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Tensor:
        """Codes ``(batch, depth, *grid)`` to data ``(batch, channels, *axes)``. ValueError for codes out of range.

        ``seed`` seeds the sampling where the decoder has no mean.
        """
        self._check_codes(codes)
        generator, known = torch.Generator().manual_seed(seed), self._moved(conditions)
        x = decode(self.autoencoder, codes.to(self.device), known, generator=generator, progress=progress)
        return self._down(x, known, generator, False, progress)

    @torch.no_grad()
    def reconstruct(
        self,
        x: Tensor,
        conditions: Mapping[str, Tensor] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Tensor:
        """Data through the bottleneck and back; ``seed``: see ``decode``."""
        generator, known = torch.Generator().manual_seed(seed), self._moved(conditions)
        z = torch.cat([quantized.z for quantized in self._quantized(self._up(x))])
        x = decode_latents(self.autoencoder, z, known, generator=generator, progress=progress)
        return self._down(x, known, generator, False, progress)

    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor] | None = None,
        *,
        prior: str | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        prefix: Tensor | None = None,
        length: int | None = None,
        overlap: int | None = None,
        noise: bool = False,
        compile: bool = False,
        progress: Progress = unwatched,
    ) -> Sample:
        """Samples ``n`` examples; a seed gives the same codes on every device.

        ``prefix`` ``(n or 1, depth, positions)`` fixes the first codes in raster order. ``length``, of the data's first
        axis, may be more than the prior was trained on: its window then slides over the codes and keeps ``overlap``
        of the data, by default half; ToolkitError where the codes' grid has parts. ``compile`` speeds up sequential
        steps, after about a minute of preparation. A continuous bottleneck's latents are sampled from the unit normal,
        and there are no codes.
        """
        generator, known = torch.Generator().manual_seed(seed), self._moved(conditions)
        with compiled(compile):
            x, codes = sample(
                self.autoencoder,
                self.prior(prior) if self.code_spec.depth else None,
                n,
                known,
                SamplingOptions(temperature, top_k, top_p, guidance),
                generator=generator,
                prefix=None if prefix is None else prefix.expand(n, -1, -1),
                length=None if length is None else self._own_length(length),
                overlap=None if overlap is None else self._own_length(overlap),
                noise=noise,
                progress=progress,
            )
            x = self._down(x, known, generator, noise, progress)
        return Sample(x if length is None else x[:, :, :length], codes)

    def labels(
        self, values: Mapping[str, str], n: int, *, prior: str | None = None, length: int | None = None
    ) -> dict[str, Tensor]:
        """Conditions by label for n examples: one for all (``speaker: p225``) or several in turn; a condition per step
        takes a list or a file with a label for each of ``length`` steps, by default those of the data's first axis (see
        ``toolkit.labels``).

        ToolkitError for an unknown condition or label, for too few or too many labels, and for a condition that
        neither the decoder nor the named prior sees.
        """
        known = {condition.name: condition for condition in self.spec.conditions}
        seen = {*self.config.decoder_conditions, *self._seen_by(prior)}
        conditions = {}
        for name, text in values.items():
            if name not in known:
                have = ", ".join(known) or "none"
                raise ToolkitError(
                    f"condition.{name}: no such condition{registry.did_you_mean(name, known)} (this run's: {have})"
                )
            if name not in seen:
                raise ToolkitError(
                    f"condition.{name}: nothing here was trained to see it; train with conditions.prior=[{name}] or"
                    f" conditions.decoder=[{name}]"
                )
            conditions[name] = labels.values(known[name], text, n, self.spec.axes[0] if length is None else length)
        return conditions

    def _up(self, x: Tensor) -> Tensor:
        """Data as its own autoencoder takes it."""
        return x if self.base is None else self.base.encode(x)

    def _down(
        self, x: Tensor, conditions: Mapping[str, Tensor], generator: torch.Generator, noise: bool, progress: Progress
    ) -> Tensor:
        """Its own autoencoder's output as data, through all bases below."""
        if self.base is None:
            return x
        base = self.base
        known = within(conditions, base.data.conditions, 0, x.shape[2] * base.data.axes[0] // base.code_spec.grid[0])
        x = decode(base.autoencoder, x, known, generator=generator, noise=noise, progress=progress)
        return base._down(x, conditions, generator, noise, progress)

    def _own_length(self, length: int) -> int:
        """A length along the data's first axis, for what its own autoencoder models."""
        return -(-length * self.data.axes[0] // self.spec.axes[0])

    def _seen_by(self, prior: str | None) -> tuple[str, ...]:
        if prior is None:
            return ()
        config = self.run.prior_config(prior) if prior in self.run.priors() else self.config
        return config.prior_conditions

    def _check_code_spec(self, built: CodeSpec) -> None:
        """ToolkitError where the codes of the parts, or of the base, are not those in spec.json."""
        if built != self.code_spec:
            raise ToolkitError(f"{self.run.path} says its codes are {self.code_spec}; its parts give {built}")
        if self.base is not None:
            below = self.base.code_spec
            if (self.data.shape, {self.data.levels}) != (below.shape, set(below.codebook_sizes)):
                raise ToolkitError(
                    f"{self.run.path} is over codes {self.data.shape} of {self.data.levels} entries; those of its base"
                    f" are {below.shape} of {below.codebook_sizes}"
                )

    def _prior_shape(self, checkpoint: Checkpoint, key: str) -> tuple[int, ...]:
        """The grid or the axes that a prior was trained on; ToolkitError where its checkpoint has no valid ones.

        They are the run's own where the codes' grid has parts.
        """
        shape = checkpoint.facts.get(key)
        own = self.code_spec.grid if key == "grid" else self.data.axes
        if (
            not isinstance(shape, list)
            or len(shape) != len(own)
            or not all(type(n) is int and n > 0 for n in shape)
            or prod(shape) > LARGEST_EXAMPLE
            or (self.code_spec.parts and tuple(shape) != own)
        ):
            raise ToolkitError(
                f"{checkpoint.path}: {key}={shape} is not valid for a prior over codes on {self.code_spec.grid} of data"
                f" {self.data.axes}"
            )
        return tuple(shape)

    def _trained(self, name: str) -> Prior:
        """A prior at its last checkpoint; ToolkitError where it models codes of older weights."""
        stage = read_newest(partial(self._newest, self.run.prior(name)), partial(self._read_prior, name))
        stage.to(self.device).eval()
        return stage.model

    def _read_prior(self, name: str, checkpoint: Checkpoint) -> PriorStage:
        self._check_current(name, checkpoint)
        code_spec = replace(self.code_spec, grid=self._prior_shape(checkpoint, "grid"))
        config = self.run.prior_config(name)
        data = replace(self.data, axes=self._prior_shape(checkpoint, "axes"))
        with self.run.blaming():
            stage = build_prior_stage(config, code_spec, data, checkpoint)
            checkpoint.load_weights(stage, averaged=True)
        return stage

    def _check_current(self, name: str, checkpoint: Checkpoint) -> None:
        """ToolkitError where a prior models codes of older weights; a notice where those of its own are damaged."""
        weights_hash, run = str(checkpoint.facts.get("autoencoder")), quote(str(self.run.path))
        if weights_hash == self.checkpoint.weights_hash:
            return
        damaged = damaged_with(self.run.autoencoder, weights_hash)
        if damaged is None:
            raise ToolkitError(
                f"prior={name} was trained on codes of an older autoencoder: "
                f"toolkit train run={run} stage=prior prior={name} trains it again"
            )
        notice = f"prior={name} was trained on codes of {damaged}, which is damaged: toolkit train run={run} mends it"
        if notice not in self.notices:
            self.notices.append(notice)

    @torch.no_grad()
    def _quantized(self, x: Tensor) -> Iterator[Quantized]:
        """The bottleneck's output, batch by batch."""
        if x.dim() != 1 + len(self.data.shape) or x.shape[1] != self.data.channels or not len(x):
            raise ValueError(f"x of shape {tuple(x.shape)}: a batch (n, *{self.data.shape}) is needed")
        if tuple(x.shape[2:]) != self.data.axes:
            self.code_spec.refuse_parts(f"data of {tuple(x.shape[2:])}", f"give examples of {self.data.axes}")
        for part in x.split(BATCH):
            yield self.autoencoder.quantize(part.to(self.device))

    def _newest(self, folder: Path) -> Checkpoint:
        checkpoint = newest(folder, self.notices)
        if checkpoint is None:
            raise ToolkitError(
                f"{folder} has no checkpoint yet: toolkit train run={quote(str(self.run.path))} continues this run"
            )
        return checkpoint

    def _moved(self, conditions: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in (conditions or {}).items()}

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dim() != 2 + len(self.code_spec.grid) or codes.shape[1] > self.code_spec.depth or not len(codes):
            raise ValueError(f"codes of shape {tuple(codes.shape)}: this run's are (n, *{self.code_spec.shape})")
        if self.code_spec.parts and tuple(codes.shape[2:]) != self.code_spec.grid:
            raise ValueError(f"codes on {tuple(codes.shape[2:])}: this run's lie on {self.code_spec.parts}, flat")
        for depth, size in enumerate(self.code_spec.codebook_sizes[: codes.shape[1]]):
            low, high = int(codes[:, depth].min()), int(codes[:, depth].max())
            if low < 0 or high >= size:
                raise ValueError(f"codes at depth {depth} range over {low}..{high}: this run's are 0..{size - 1}")
