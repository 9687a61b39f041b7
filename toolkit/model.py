"""A finished run as one object, for Python and for the commands; no Hydra, no dataset on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from toolkit.build import asks_for_source, build_dataset, make_dataset
from toolkit.causal.sampling import compiled
from toolkit.cells import Sample as Sample
from toolkit.cells import ShownSample
from toolkit.coding import read, write
from toolkit.coding.codec import Codec
from toolkit.coding.container import Header, UnreadableError, unpack
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.errors import ToolkitError
from toolkit.flow import Drawing, Flow, at_once
from toolkit.given import Given, check_data, codes_of, known_conditions
from toolkit.opened import Opened
from toolkit.prior import SamplingOptions
from toolkit.runs.folder import Run
from toolkit.sample import Progress, sample, unwatched
from toolkit.schema import signature
from toolkit.streams import StreamDecoder, StreamEncoder, lead


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
class Model(Opened):
    """An opened run, and what goes through it: data to codes and back, samples, files.

    What it is made of, with ``spec``, ``code_spec``, ``notices`` and ``base``: ``toolkit.opened.Opened``.
    """

    @property
    def lead(self) -> int:
        """How many positions of ``spec`` the first code has fewer than the others; see ``Encoder.lead``."""
        return lead(self._flow)

    @cached_property
    def dataset(self) -> Dataset:
        """What its own autoencoder was trained on; ToolkitError where that is not on disk."""
        return open_dataset(self.config, base=self.run.base)

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
        conditions: Mapping[str, Given] | None = None,
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
        conditions: Mapping[str, Given] | None = None,
        *,
        seed: int = 0,
        progress: Progress = unwatched,
    ) -> Iterator[Tensor]:
        """``decode`` for codes that come in pieces ``(batch, depth, positions, …)``; see ``encode_pieces``.

        A tensor of conditions per step has them for all positions; those of labels are as of one example.
        """
        checked = (codes_of(codes, self.code_spec) for codes in pieces)
        return self._flow.decoded(checked, self._conditions(conditions, 1), self._drawing(seed, progress))

    def stream_encoder(self, conditions: Mapping[str, Given] | None = None) -> StreamEncoder:
        """Data that arrives to codes as soon as they are certain; see ``toolkit.streams``.

        No encoder sees conditions: they are checked, so that both ends of a stream are opened alike. ToolkitError where
        a part needs the whole.
        """
        self._require_codes()
        return StreamEncoder(self._flow, self.spec, self.code_spec, partial(self._conditions, conditions))

    def stream_decoder(self, conditions: Mapping[str, Given] | None = None, *, seed: int = 0) -> StreamDecoder:
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
        conditions: Mapping[str, Given] | None = None,
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
        conditions: Mapping[str, Given] | None = None,
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
        conditions: Mapping[str, Given] | None = None,
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
        as ``{"class": "dress,hat"}``, or a list of texts, such as ``{"caption": ["a red star", "a blue ring"]}``, which
        are repeated over the examples. ToolkitError for an unknown one.
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
        conditions: Mapping[str, Given] | None = None,
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

    def _conditions(
        self, given: Mapping[str, Given] | None, n: int, length: int | None = None, prior: str | None = None
    ) -> dict[str, Tensor]:
        """Conditions of n examples as tensors on the device."""
        known = known_conditions(given or {}, self.spec, self.seen(prior), n, length)
        return {name: value.to(self.device) for name, value in known.items()}
