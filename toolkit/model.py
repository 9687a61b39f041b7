"""A finished run as one object, for Python and for the commands; no Hydra, no dataset on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import NamedTuple, final

import torch
from torch import Tensor

from toolkit import registry
from toolkit.build import build_autoencoder, build_objective, build_prior
from toolkit.checkpoint import Checkpoint, newest
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.errors import ToolkitError
from toolkit.prior import Prior
from toolkit.quantizer import Quantized
from toolkit.run import Run
from toolkit.sample import BATCH, decode, decode_latents, sample
from toolkit.spec import DataSpec, LatentSpec
from toolkit.train import PriorStage, Stage


class Sample(NamedTuple):
    """What was drawn."""

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


@final
class Model:
    """An opened run.

    ``spec`` is the data it models, ``latent`` the codes it makes, ``notices`` what a person should know about how
    it was opened.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device, self.notices = run, device, list[str]()
        self.config = run.config()
        self.spec: DataSpec
        self.latent: LatentSpec
        self.spec, self.latent = run.spec()
        try:
            with _quiet_seed():
                autoencoder = build_autoencoder(self.config, self.spec)
                self.stage = Stage(build_objective(self.config, autoencoder), autoencoder)
        except registry.RegistryError as e:
            raise ToolkitError(f"{e}\nthis run was trained with {', '.join(run.distributions())}") from e
        self.checkpoint = self._newest(run.autoencoder)
        self.checkpoint.load_weights(self.stage, averaged=True)
        self.stage.to(device).eval()
        self.autoencoder, self.objective = self.stage.model, self.stage.objective

    @cached_property
    def files(self) -> type[Dataset]:
        """The dataset's class, which reads and writes files of this data."""
        return registry.load("dataset", self.config["dataset"]["name"])

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """The trained priors by name, but for those that cannot be opened; ``notices`` says why."""
        found = {}
        for name in self.run.priors():
            try:
                found[name] = self._trained(name)
            except ToolkitError as e:
                self.notices.append(f"prior={name} is left out: {e}")
        return found

    def prior(self, name: str | None = None) -> Prior:
        """A trained prior, or any without parameters; by default the configured one. ToolkitError if untrained."""
        name = name or self.config["prior"]["name"]
        if name in self.run.priors():
            return self._trained(name)
        prior = build_prior({**self.config, "prior": {"name": name}}, self.latent, self.spec).to(self.device)
        if any(True for _ in prior.parameters()):
            have = ", ".join(self.run.priors()) or "none"
            raise ToolkitError(
                f"prior={name} was not trained on this run (trained: {have}): "
                f"toolkit train run={quote(str(self.run.path))} stage=prior prior={name}"
            )
        return prior

    def sampled_spec(self, name: str | None = None) -> DataSpec:
        """The data that a prior's samples are: it may have been trained on longer or larger examples."""
        name = name or self.config["prior"]["name"]
        if name not in self.run.priors():
            return self.spec
        return replace(self.spec, axes=tuple(self._newest(self.run.prior(name)).facts["axes"]))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Data ``(batch, channels, *axes)`` to codes ``(batch, depth, *grid)``.

        ValueError for other shapes, ToolkitError for a continuous bottleneck.
        """
        if not self.latent.depth:
            raise ToolkitError(f"{self.run.path}: this run's bottleneck is continuous: it has no codes")
        return torch.cat([made.codes for made in self._quantized(x)])

    def decode(self, codes: Tensor, conditions: Mapping[str, Tensor] | None = None) -> Tensor:
        """Codes ``(batch, depth, *grid)`` to data ``(batch, channels, *axes)``. ValueError for codes out of range."""
        self._check_codes(codes)
        return decode(self.autoencoder, codes.to(self.device), self._moved(conditions))

    def reconstruct(self, x: Tensor, conditions: Mapping[str, Tensor] | None = None) -> Tensor:
        """Data through the bottleneck and back."""
        z = torch.cat([made.z for made in self._quantized(x)])
        return decode_latents(self.autoencoder, z, self._moved(conditions))

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
        noise: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Sample:
        """Draws ``n`` examples; a seed gives the same codes on every device.

        A continuous bottleneck's latents are drawn from the unit normal, and there are no codes.
        """
        x, codes = sample(
            self.autoencoder,
            self.prior(prior) if self.latent.depth else None,
            n,
            self._moved(conditions),
            generator=torch.Generator().manual_seed(seed),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            noise=noise,
            progress=progress,
        )
        return Sample(x, codes)

    def labels(self, values: Mapping[str, str], n: int, *, prior: str | None = None) -> dict[str, Tensor]:
        """Conditions by label for n examples: one for all (``speaker: p225``) or several that take turns.

        ToolkitError for a condition or a label that this run does not know, and for a condition that neither the
        decoder nor the named prior sees.
        """
        known = {condition.name: condition for condition in self.spec.conditions if not condition.real}
        seen = {*self.config["conditions"]["decoder"], *self._seen_by(prior)}
        made = {}
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
            words = [text] if text in known[name].labels else [word.strip() for word in text.split(",")]
            try:
                indices = [known[name].index(word) for word in words]
            except ValueError as e:
                raise ToolkitError(str(e)) from e
            made[name] = torch.tensor([indices[i % len(indices)] for i in range(n)])
        return made

    def _seen_by(self, prior: str | None) -> list[str]:
        if prior is None:
            return []
        config = self.run.prior_config(prior) if prior in self.run.priors() else self.config
        return list(config["conditions"]["prior"])

    def _trained(self, name: str) -> Prior:
        """A prior at its last checkpoint; ToolkitError where it models the codes of older weights."""
        checkpoint = self._newest(self.run.prior(name))
        if checkpoint.facts.get("autoencoder") != self.checkpoint.weights_hash:
            raise ToolkitError(
                f"prior={name} was trained on codes of an older autoencoder: "
                f"toolkit train run={quote(str(self.run.path))} stage=prior prior={name} trains it again"
            )
        latent = LatentSpec(tuple(checkpoint.facts["grid"]), self.latent.codebook_sizes)
        with _quiet_seed():
            stage = PriorStage(build_prior(self.run.prior_config(name), latent, self.spec))
        checkpoint.load_weights(stage, averaged=True)
        stage.to(self.device).eval()
        return stage.model

    @torch.no_grad()
    def _quantized(self, x: Tensor) -> Iterator[Quantized]:
        """What the bottleneck makes of data, batch by batch."""
        if x.dim() != 1 + len(self.spec.shape) or x.shape[1] != self.spec.channels or not len(x):
            raise ValueError(f"x of shape {tuple(x.shape)}: a batch (n, *{self.spec.shape}) is needed")
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
        if codes.dim() != 2 + len(self.latent.grid) or codes.shape[1] > self.latent.depth or not len(codes):
            raise ValueError(f"codes of shape {tuple(codes.shape)}: this run's are (n, *{self.latent.shape})")
        for depth, size in enumerate(self.latent.codebook_sizes[: codes.shape[1]]):
            low, high = int(codes[:, depth].min()), int(codes[:, depth].max())
            if low < 0 or high >= size:
                raise ValueError(f"codes at depth {depth} range over {low}..{high}: this run's are 0..{size - 1}")


@contextmanager
def _quiet_seed() -> Iterator[None]:
    """Building draws weights that are thrown away: the caller's random numbers stay where they were."""
    with torch.random.fork_rng([]):
        yield
