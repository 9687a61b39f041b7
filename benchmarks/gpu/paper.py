"""The paper's CIFAR-10 model, as its experiment has it, in the loops that are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.cases import SPEC, Images, composed, updates
from benchmarks.gpu.rows import NotThereError
from benchmarks.gpu.setting import Setting
from toolkit.build import build_autoencoder, build_objective
from toolkit.training import Metrics, Stage

BATCH = 128
Step = Callable[[], object]
_NARROW = ["encoder.hidden=8", "decoder.hidden=8"]


@dataclass(frozen=True)
class Bare:
    """A plain loop over the same modules: images already on the device, no figures, no log."""

    batch: int = BATCH
    bf16: bool = True
    channels_last: bool = False
    compile: bool = False
    graph: bool = False

    def step(self, setting: Setting) -> Step:
        stage = model(setting)
        if self.channels_last:
            stage = stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = torch.compile(stage) if self.compile else stage
        return self.over(lambda x: forward(x, {}).loss, stage, setting)

    def over(self, loss_of: Callable[[Tensor], Tensor], module: nn.Module, setting: Setting) -> Step:
        fused = setting.is_cuda
        optimizer = torch.optim.Adam(module.parameters(), 2e-4, fused=fused, capturable=self.graph and fused)
        batch = 2 if setting.dry else self.batch
        x = Images(batch).x.to(setting.device)

        def step() -> None:
            with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
                loss = loss_of(x)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=not self.graph)

        return captured(step) if self.graph and setting.is_cuda else step


def captured(step: Step) -> Step:
    """The step as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def loop(words: Sequence[str], batch: int, setting: Setting) -> Step:
    """toolkit's training loop with its loader, by the words of ``toolkit train``."""
    words = [f"trainer.{word}" for word in words]
    config, stage = composed(_words(words, setting)), _stage(words, setting)
    examples, size = Images(64 if setting.dry else 45_000), 2 if setting.dry else batch
    updating: Iterator[Metrics] = updates(stage, config.trainer, examples, setting, batch_size=size)
    return lambda: next(updating)


def peer(setting: Setting) -> Step:
    """A bare loop in bfloat16 whose quantizers are vector-quantize-pytorch's, ten beside one another."""
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        raise NotThereError("vector-quantize-pytorch") from None
    stage = model(setting)
    encoder, decoder = stage.model.encoder, stage.model.decoder
    options = {"codebook_size": 512, "decay": 0.99, "accept_image_fmap": True, "rotation_trick": False}
    quantizers = nn.ModuleList(VectorQuantize(dim=32, **options) for _ in range(10)).to(setting.device)
    scale = stage.model.data.scale

    def loss_of(x: Tensor) -> Tensor:
        parts = encoder(scale(x)).chunk(len(quantizers), 1)
        quantized = [quantizer(part.float()) for quantizer, part in zip(quantizers, parts, strict=True)]
        z = torch.cat([codes_of[0] for codes_of in quantized], 1)
        nll: Tensor = -decoder(z, {}).log_prob(x).mean()
        return nll + sum(codes_of[2].sum() for codes_of in quantized)

    return Bare().over(loss_of, nn.ModuleList([encoder, decoder, quantizers]), setting)


def model(setting: Setting) -> Stage:
    return _stage([], setting).to(setting.device).train()


def operations(setting: Setting) -> float:
    """Of the forward and backward pass of one image."""
    stage, x = model(setting), Images(2).x.to(setting.device)
    with FlopCounterMode(display=False) as counter:
        stage(x, {}).loss.backward()
    return counter.get_total_flops() / len(x)


def _stage(words: Sequence[str], setting: Setting) -> Stage:
    config = composed(_words(words, setting))
    torch.manual_seed(0)
    autoencoder = build_autoencoder(config, SPEC)
    return Stage(build_objective(config, autoencoder), autoencoder)


def _words(words: Sequence[str], setting: Setting) -> list[str]:
    return ["experiment=image_cifar10_vqvae", *(_NARROW if setting.dry else []), *words]
