"""A finished run as one object, for Python and for the commands; no Hydra, no dataset on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from typing import Any, final

import torch
from torch import Tensor

from toolkit.build import asks_for_source, build_dataset, build_prior, build_stage, dropped, files_of, make_dataset
from toolkit.causal.sampling import compiled
from toolkit.cells import Sample as Sample
from toolkit.cells import ShownSample, run_cell
from toolkit.coding import read, write
from toolkit.coding.codec import Codec
from toolkit.coding.container import Header, UnreadableError, unpack
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.errors import ToolkitError
from toolkit.flow import Drawing, Flow, at_once
from toolkit.given import check_data, codes_of, described, known_conditions
from toolkit.prior import Prior, SamplingOptions
from toolkit.runs.checkpoint import Checkpoint, found, read_newest
from toolkit.runs.chosen import which_it_is
from toolkit.runs.folder import Run
from toolkit.runs.spec_file import check_codes
from toolkit.sample import Progress, sample, unwatched
from toolkit.schema import signature
from toolkit.spec import CodeSpec, DataSpec
from toolkit.streams import StreamDecoder, StreamEncoder, lead
from toolkit.trained import TrainedPriors, checkpoint_of
from toolkit.training import Stage


def load(
    run: str | Path,
    device: str = "auto",
    *,
    checkpoint: str | int | None = None,
    prior_checkpoint: str | int | None = None,
) -> Model:
    """Opens a run, a folder or ``hub:owner/name@REVISION``, with the averaged weights if there are any.

    ``checkpoint``: the autoencoder's, ``best``, ``last`` or a step that is kept; None: its best where one is kept
    (``trainer.best``), else the last. ``prior_checkpoint``: the same of its priors. Raises ToolkitError where the
    folder or the Hub holds no run, the run holds no whole checkpoint or not the one asked for, a part is not installed,
    or the weights do not fit the parts that are.
    """
    return Model(Run.open(run), choose_device(device), checkpoint, prior_checkpoint)


def open_dataset(config: RunConfig, overrides: Mapping[str, Any] | None = None, base: Path | None = None) -> Dataset:
    """A configuration's dataset; where that is another run's codes, of the run in ``base`` if that is there already,
    else of the named run. The other run is opened on the CPU, where data is read."""
    source = None
    if asks_for_source(config):
        copied = base is not None and base.is_dir()
        source = _source(base if copied and base else config.dataset.options["run"])
    return build_dataset(config, overrides, source)


def open_part(chosen: PartConfig) -> Dataset:
    """A dataset by itself, likewise."""
    asks = "source" in signature("dataset", chosen.name).given
    return make_dataset(chosen, _source(chosen.options["run"]) if asks else None)


def _source(run: str | Path) -> Model:
    return Model(Run.open(run, key="dataset.run"), choose_device("cpu"))


@final
class Model:
    """An opened run.

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
            self.base = Model(Run.open(run.base), device) if asks_for_source(self.config) else None
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

    @property
    def bottom(self) -> Model:
        """The model that the data goes into first: the last of the bases, or this one."""
        return self if self.base is None else self.base.bottom

    @property
    def lead(self) -> int:
        """How many positions of ``spec`` the first code has fewer than the others; see ``Encoder.lead``."""
        return lead(self._flow)

    @cached_property
    def files(self) -> type[Dataset]:
        """The class that reads and writes files of this data: the dataset's own, or one that it names."""
        return files_of(self.bottom.config.dataset)

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

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Data ``(batch, channels, *axes)`` to codes ``(batch, depth, *grid)`` int64.

        x is in the data's own form: integers ``0..levels-1`` of any type, or floats in [-1, 1] where ``spec.levels`` is
        None. Other axes than the run's give another grid. ValueError for other channels and values, ToolkitError for a
        continuous bottleneck, and for other axes where the codes have parts.
        """
        check_data(x, self.spec)
        return torch.cat([torch.cat(list(self.encode_pieces([part])), 2) for part in self._split(x)])

    def encode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """``encode`` for examples that come in pieces ``(batch, channels, positions, …)`` along their first axis.

        Codes come in pieces, too, as soon as there are any: with parts that declare their ``context``, memory does not
        grow with the examples' length.
        """
        self._require_codes()
        return self._flow.encoded(pieces)

    def quantize(self, x: Tensor) -> Tensor:
        """``encode`` for what its own autoencoder models, which are the base's codes where there is a base."""
        self._require_codes()
        check_data(x, self.data)
        flow = Flow(self.autoencoder)
        return torch.cat([torch.cat(list(flow.encoded([part])), 2) for part in self._split(x)])

    def decode(
        self,
        codes: Tensor,
        conditions: Mapping[str, Tensor | str] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Tensor:
        """Codes ``(batch, depth, *grid)``, of any integer type, to data ``(batch, channels, *axes)``.

        Fewer depths than all decode more coarsely. ``conditions`` by name: a tensor with a value for each example, or
        a label as the commands take it. ``seed`` seeds the sampling where the decoder has no mean. ValueError for
        other types, other shapes, and codes out of range; ToolkitError for an unknown condition or label.
        """
        codes = codes_of(codes, self.code_spec)
        drawing, known = self._drawing(seed, progress), self._conditions(conditions, len(codes))
        return torch.cat(list(self._flow.decoded([codes], known, drawing)), 2)

    def decode_pieces(
        self,
        pieces: Iterable[Tensor],
        conditions: Mapping[str, Tensor | str] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Iterator[Tensor]:
        """``decode`` for codes that come in pieces ``(batch, depth, positions, …)``; see ``encode_pieces``.

        A tensor of conditions per step has them for all positions; those of labels are as of one example.
        """
        checked = (codes_of(codes, self.code_spec) for codes in pieces)
        return self._flow.decoded(checked, self._conditions(conditions, 1), self._drawing(seed, progress))

    def stream_encoder(self, conditions: Mapping[str, Tensor | str] | None = None) -> StreamEncoder:
        """Data that arrives to codes as soon as they are certain; see ``toolkit.streams``.

        No encoder sees conditions: they are checked, so that both ends of a stream are opened alike. ToolkitError where
        a part needs the whole.
        """
        self._require_codes()
        return StreamEncoder(self._flow, self.spec, self.code_spec, partial(self._conditions, conditions))

    def stream_decoder(self, conditions: Mapping[str, Tensor | str] | None = None, *, seed: int = 0) -> StreamDecoder:
        """Codes that arrive to data as soon as it is certain; see ``toolkit.streams``.

        Where a decoder has no mean, the i-th stream is drawn with the seed ``seed + i``. A tensor of conditions per
        step has them for all positions.
        """
        self._require_codes()
        return StreamDecoder(self._flow, self.spec, self.code_spec, partial(self._conditions, conditions), seed)

    @torch.no_grad()
    def reconstruct(
        self,
        x: Tensor,
        conditions: Mapping[str, Tensor | str] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Tensor:
        """Data, as ``encode`` takes it, through the bottleneck and back; ``conditions``, ``seed``: see ``decode``."""
        check_data(x, self.spec)
        drawing, known = self._drawing(seed, progress), self._conditions(conditions, len(x))
        z = torch.cat([torch.cat([q.z for q in self._flow.quantized([part])], 2) for part in self._split(x)])
        return torch.cat(list(self._flow.unfolded([z], known, drawing)), 2)

    def reconstruct_pieces(
        self,
        pieces: Iterable[Tensor],
        conditions: Mapping[str, Tensor | str] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Iterator[Tensor]:
        """``reconstruct`` for examples that come in pieces; see ``encode_pieces`` and ``decode_pieces``."""
        z = (quantized.z for quantized in self._flow.quantized(pieces))
        return self._flow.unfolded(z, self._conditions(conditions, 1), self._drawing(seed, progress))

    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor | str] | None = None,
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

        ``conditions`` by name: a tensor with a value for each example, or a label as ``toolkit sample`` takes it, such
        as ``{"class": "dress,hat"}``, which is repeated over the examples. ToolkitError for an unknown one.
        ``prefix`` ``(n or 1, depth, positions)`` fixes the first codes in raster order. ``length``, of the data's first
        axis, may be more than the prior was trained on: its window then slides over the codes and keeps ``overlap``
        of the data, by default half; ToolkitError where the codes' grid has parts. ``compile`` speeds up sequential
        steps, after about a minute of preparation. A continuous bottleneck's latents are sampled from the unit normal,
        and there are no codes.
        """
        name = prior or self.config.chosen_prior().name if self.code_spec.depth else None
        steps = length or self.sampled_spec(name).axes[0] if name else length
        generator, known = torch.Generator().manual_seed(seed), self._conditions(conditions, n, steps, name)
        with compiled(compile):
            x, codes = sample(
                self.autoencoder,
                self.prior(name) if name else None,
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
            x = torch.cat(list(self._flow.lowered([x], known, Drawing(generator, noise, progress))), 2)
        made = Sample(x if length is None else x[:, :, :length], codes)
        return ShownSample.of(made, self.files, self.spec)

    def codec(self, prior: str | None = None, *, lossless: bool = False, depth: int | None = None) -> Codec:
        """What examples are compressed by; see ``compress``. ToolkitError for a prior that is not trained."""
        self._require_codes()
        if depth is not None and not 0 < depth <= self.code_spec.depth:
            raise ToolkitError(f"depth={depth}: this run's codes have depths 1 to {self.code_spec.depth}")
        if depth is not None and lossless:
            raise ToolkitError(f"depth={depth}: lossless=true needs all codes; leave one of them out")
        name = prior or self.config.chosen_prior().name
        hashed = self._trained.weights_hash(name) if name in self.run.priors() else ""
        autoencoders = tuple(model.autoencoder for model in self.stack)
        seen = frozenset(self.seen(name))
        return Codec(autoencoders, self.prior(name), name, self._weights, hashed, lossless, depth, seen)

    def compress(
        self,
        x: Tensor,
        conditions: Mapping[str, Tensor | str] | None = None,
        *,
        prior: str | None = None,
        lossless: bool = False,
        depth: int | None = None,
    ) -> bytes:
        """Data, as ``encode`` takes it, as the bytes of a file: its codes under a prior, by default the configured one.

        ``lossless`` writes the data behind the codes, under the likelihood, so that ``decompress`` gives back x itself,
        not its reconstruction. ``depth`` keeps the first codes of each position. ToolkitError where prior or likelihood
        have no probabilities, number by number.
        """
        codec = self.codec(prior, lossless=lossless, depth=depth)
        known = self._conditions(conditions, len(x), None, codec.prior_name)
        return write.compress(codec, write.rows_of(codec, x, self.encode(x), known)).data

    def decompress(self, data: bytes, *, seed: int = 0) -> Tensor:
        """Data ``(n, channels, *axes)`` from what ``compress`` gave; ``seed``: see ``decode``.

        ToolkitError where it is damaged, was written by other weights or on a machine that rounds otherwise, and where
        its examples differ in their axes, which ``toolkit decompress`` writes as files.
        """
        header, stream = unpack(data)
        codec = self.codec_of(header)
        rows = read.decompress(codec, header, stream)
        if len({row.example.axes for row in rows}) > 1:
            raise ToolkitError("its examples differ in their axes: toolkit decompress writes each to a file")
        if header.lossless:
            return torch.stack([row.x for row in rows if row.x is not None])
        known = {name: torch.stack([row.conditions[name] for row in rows]) for name in rows[0].conditions}
        return self.decode(torch.stack([row.codes for row in rows]).to(self.device), known, seed=seed)

    def codec_of(self, header: Header) -> Codec:
        """What a file's examples were compressed by. ToolkitError where that was another run, or an untrained prior."""
        if header.weights != self._weights:
            raise UnreadableError("it was written by another run, or by other weights of this one")
        kept = header.depth if header.depth < self.code_spec.depth else None
        return self.codec(header.prior, lossless=header.lossless, depth=kept)

    @property
    def _weights(self) -> str:
        """Hash of all weights between data and codes."""
        return "+".join(model.checkpoint.weights_hash for model in self.stack)

    @property
    def stack(self) -> list[Model]:
        """This model, and those below it."""
        return [self] if self.base is None else [self, *self.base.stack]

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

    @cached_property
    def _flow(self) -> Flow:
        return Flow(self.autoencoder, None if self.base is None else replace(self.base._flow, fitting=True))

    def whole_because(self) -> list[str]:
        """Why an example goes through the parts whole, however long it is; nothing where it goes in chunks."""
        return self._flow.whole()

    def _drawing(self, seed: int, progress: Progress = unwatched) -> Drawing:
        return Drawing(torch.Generator().manual_seed(seed), progress=progress)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = x.split(at_once(x.shape[2], self.spec.axes[0]))
        return parts

    def _require_codes(self) -> None:
        if not self.code_spec.depth:
            raise ToolkitError(f"{self.run.path}: this run's bottleneck is continuous: it has no codes")

    def _own_length(self, length: int) -> int:
        """A length along the data's first axis, for what its own autoencoder models."""
        return -(-length * self.data.axes[0] // self.spec.axes[0])

    def seen(self, prior: str | None) -> set[str]:
        """The conditions that the decoder or a prior sees."""
        config = self.run.prior_config(prior) if prior in self.run.priors() and prior else self.config
        return {*self.config.decoder_conditions, *(config.prior_conditions if prior else ())}

    def _conditions(
        self, given: Mapping[str, Tensor | str] | None, n: int, length: int | None = None, prior: str | None = None
    ) -> dict[str, Tensor]:
        """Conditions of n examples as tensors on the device."""
        known = known_conditions(given or {}, self.spec, self.seen(prior), n, length)
        return {name: value.to(self.device) for name, value in known.items()}
