"""``toolkit check``: checks that the parts fit, and shows shapes and sizes."""

from __future__ import annotations

from math import prod
from typing import Any

from toolkit.cli.report import number, show_plugin_notes, table
from toolkit.config import RunConfig


def check(config: RunConfig) -> int:
    """Builds the configuration's parts, and prints shapes, parameters, rate, receptive field, and what memory a step of
    training takes; trains nothing.
    """
    import torch

    from toolkit.build import build_prior, build_stage
    from toolkit.model import open_dataset
    from toolkit.stages.refusals import check_run, check_second_stage, codes_of_prior, data_of_prior

    show_plugin_notes()
    torch.manual_seed(config.seed)
    dataset = open_dataset(config)
    data = dataset.spec
    stage = build_stage(config, data, None)
    check_run(config, dataset, stage)
    model, prior_data = stage.model, data
    latents = (model.quantizer.channels, *model.grid)
    rows = [
        _row("dataset", config, "", _shape(data.shape), 0),
        _row("encoder", config, _shape(data.shape), _shape(latents), _count(model.encoder)),
        _row("quantizer", config, _shape(latents), _shape(model.code_spec.shape), _count(model.quantizer)),
        _row(
            "decoder",
            config,
            _shape((model.quantizer.dim, *model.grid)),
            _shape(data.shape),
            _count(model.decoder),
        ),
        _row("objective", config, _shape(data.shape), "nats", _count(stage.objective)),
    ]
    read = data_of_prior(config, dataset, model.code_spec)
    if read is not None:
        prior_data, code_spec = read.spec, codes_of_prior(model, read.spec)
        prior = build_prior(config, code_spec, prior_data)
        check_second_stage(config, read, model, prior)
        rows.append(_row("prior", config, _shape(code_spec.shape), "nats", _count(prior)))
    table("the parts fit", ("part", "name", "takes", "gives", "parameters"), rows)
    facts = [
        ("codes per example", f"{prod(model.code_spec.shape):,}"),
        ("codebook sizes", _sizes(model.code_spec.codebook_sizes)),
    ]
    if model.code_spec.parts:
        facts.append(("parts of the grid", ", ".join(_shape(part) for part in model.code_spec.parts)))
    if model.code_spec.depth:
        facts.append(("rate, bits per example", number(model.code_spec.rate)))
        facts.append(("rate, bits per dim", f"{model.code_spec.rate / data.dims:.4f}"))
    if model.code_spec.depth and data.rates and data.rates[0]:
        facts.append(("rate, bits per second", number(model.code_spec.rate * data.rates[0] / data.axes[0])))
    field = receptive_field(model)
    if field:
        one = "a latent" if model.code_spec.parts else "a code"
        facts.append((f"{one} sees, of the data", _shape(field)))
    if any(data.varying[:1]):
        facts += [("longer data", text) for text in _chunks(model)]
        facts += _streams(model)
    table("codes", ("", "value"), facts)
    _show_memory(config, data, prior_data)
    return 0


def _show_memory(config: RunConfig, data: Any, prior_data: Any) -> None:
    """What a step of each stage takes, before any is taken."""
    from toolkit.estimate import StepMemory, memory_by_stage

    rows, ranks = list[tuple[str, ...]](), config.trainer.ranks
    for stage, known in memory_by_stage(config, data, prior_data).items():
        if isinstance(known, StepMemory):
            parts = known.weights, known.gradients, known.moments, known.averages, known.activations, known.peak
            rows.append((stage, *(_size(part) for part in parts)))
        else:
            rows.append(
                (stage, *[""] * 5, f"not known: {str(known).splitlines()[0] if str(known) else type(known).__name__}")
            )
    if rows:
        per = f", on each of {ranks} ranks{', the prior sharded' if config.trainer.shard else ''}" if ranks > 1 else ""
        columns = ("stage", "weights", "gradients", "optimizer", "averages", "activations", "at its peak")
        table(f"memory of a training step, MiB{per}", columns, rows)


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.1f}"


def _chunks(model: Any) -> list[str]:
    """How data that is longer than this goes through: in chunks, each with the context of its part, or whole."""
    from toolkit.chunks import whole_decoding, whole_encoding

    encoding, decoding = whole_encoding(model), whole_decoding(model)
    before, after = model.encoder.context or (0, 0)
    earlier, later = model.decoder.context or (0, 0)
    return [
        f"encoded whole: {encoding}" if encoding else f"encoded in chunks, {before} positions before and {after} after",
        f"decoded whole: {decoding}" if decoding else f"decoded in chunks, {earlier} codes before and {later} after",
    ]


def _streams(model: Any) -> list[tuple[str, str]]:
    """What each end of a stream sees, and how long data takes; of a run over another's codes, in these codes."""
    from toolkit.chunks import decoder_context, encoder_context
    from toolkit.flow import Flow
    from toolkit.streams import (
        decoder_latency,
        decoding_context,
        decoding_refusal,
        encoder_latency,
        encoding_refusal,
        in_ms,
    )

    flow = Flow(model)
    refused = encoding_refusal(flow) or decoding_refusal(flow)
    if refused:
        return [("a stream", f"refused: {refused}")]
    before, after = encoder_context(model)
    earlier, later = decoding_context(model) or decoder_context(model)
    latency = encoder_latency(flow) + decoder_latency(flow)
    ms = in_ms(latency, model.data)
    return [
        ("a stream's codes", f"context {before} positions, look-ahead {after}"),
        ("a stream's data", f"context {earlier} codes, look-ahead {later}"),
        ("a stream's latency", f"{latency} positions" if ms is None else f"{latency} positions, {ms:,.1f} ms"),
    ]


LARGEST = 1 << 22
"""Numbers in an example above which the receptive field is not measured: it takes a real pass."""


def receptive_field(model: Any) -> tuple[int, ...] | None:
    """Extent, along each axis of the data, of what the latent at the middle of the grid depends on.

    Measured by the gradient. None where the data is too large, or cannot be differentiated.
    """
    import torch

    from toolkit.nn.receptive_field import receptive_field as measured

    data, encoder = model.data, model.encoder
    if not data.ordered or data.dims > LARGEST:
        return None
    encoder.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *data.shape, generator=generator) * ((data.levels or 2) - 1)
    field = measured(model.encode, x, tuple(n // 2 for n in model.grid))
    return tuple(map(len, field)) if field else None


def _row(kind: str, config: RunConfig, takes: str, gives: str, parameters: int) -> tuple[str, ...]:
    name: str = getattr(config, kind).name
    if kind == "decoder" and config.likelihood:
        name += f" + {config.likelihood.name}"
    return kind, name, takes, gives, f"{parameters:,}" if parameters else ""


def _count(part: Any) -> int:
    return sum(p.numel() for p in part.parameters())


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _sizes(sizes: tuple[int, ...]) -> str:
    same = len(set(sizes)) == 1 and len(sizes) > 1
    return f"{len(sizes)} x {sizes[0]}" if same else ", ".join(map(str, sizes)) or "none (continuous)"
