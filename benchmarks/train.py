"""Speed of training, side by side in one process.

    python benchmarks/train.py [--root data] [--steps 20] [--rounds 9] [--threads 2] [--compile] [--out results.json]

The model is ``experiment=image_cifar10_notebook`` (0.7 M parameters, batches of 32). Every contestant takes ``steps``
steps in turn, ``rounds`` times; a ratio is the median over rounds of the other's seconds over toolkit's seconds, so
above 1 means that toolkit is faster. Without ``--root`` the images are noise, which costs the same.

    loop      toolkit train's loop (loader, figures, log, recorder)
    bare      a plain PyTorch loop over the same modules and images: what the loop is measured against
    notebook  the same layers as ports of the public notebook write them, one-hot matrices in the quantizer
    pythae    pythae.models.VQVAE with the same encoder and decoder (where pythae is installed)

``--compile`` lets each of them, compiled by torch, run beside them. The share of the limit is a step's convolutions and
matrix products per second over what one large matrix product reaches.

On a GPU, ``--paper`` times ``experiment=image_cifar10_vqvae`` in float32 and bfloat16, with and without compile:
images per second, and the share of the matrix products' own limit that this is.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toolkit
from toolkit.batches import TrainBatches
from toolkit.build import build_autoencoder, build_objective
from toolkit.cli.config.compose import compose
from toolkit.device import resolve_precision
from toolkit.optimization import Optimization
from toolkit.runs.folder import Run
from toolkit.stages.recorder import Recorder
from toolkit.training import Stage, train_steps

Steps = Callable[[int], None]


class Images:
    """Images held in memory, as a dataset of one split."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def size(self, split: str) -> int:
        return len(self.x)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": self.x[index]}


class Silent:
    """A report that nobody reads."""

    def begin(self, stage: str, done: int, steps: int) -> None: ...
    def step(self, done: int) -> None: ...
    def metrics(self, split: str, step: int, metrics: Any) -> None: ...
    def note(self, text: str) -> None: ...


def images(root: str | None) -> Images:
    if root is None:
        return Images(torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8))
    from toolkit_image.cifar10 import CIFAR10Dataset

    dataset = CIFAR10Dataset(root=root)
    return Images(torch.stack([dataset.example("train", i, None)["x"] for i in range(dataset.size("train"))]))


def stage_of(words: list[str]) -> tuple[Stage, Any]:
    """The experiment's first stage and its trainer options."""
    from toolkit_image.cifar10 import CIFAR10Dataset

    config = compose(words).config
    torch.manual_seed(0)
    model = build_autoencoder(config, CIFAR10Dataset().spec)
    return Stage(build_objective(config, model), model), config.trainer


def toolkit_loop(data: Images, words: list[str], folder: Path, device: torch.device) -> Steps:
    stage, options = stage_of(words)
    optimization = Optimization(stage.to(device), options)
    batches = TrainBatches(data, device, batch_size=options.batch_size, seed=0, workers=options.workers)
    run = Run(folder)
    recorder = Recorder(run, "autoencoder", run.autoencoder, optimization, Silent())
    updates = train_steps(stage, batches, optimization)

    def take(steps: int) -> Iterator[dict[str, Tensor]]:
        for _ in range(steps):
            yield next(updates)

    return lambda steps: recorder.follow(take(steps), batches)


def bare_loop(data: Images, words: list[str], device: torch.device) -> Steps:
    """Same modules, same batch size, images already on the device, no figures and no log."""
    stage, options = stage_of(words)
    stage.to(device).train()
    forward = torch.compile(stage) if options.compile else stage
    optimizer = torch.optim.Adam(stage.parameters(), lr=options.learning_rate, fused=True)
    x = data.x.to(device)
    bf16 = resolve_precision(options.precision, device) == "bf16"

    def steps(n: int) -> None:
        for _ in range(n):
            batch = x[torch.randint(len(x), (options.batch_size,), device=device)]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = forward(batch, {}).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


class NotebookQuantizer(nn.Module):
    """Moving averages over one-hot matrices, as most ports of the public notebook have it."""

    def __init__(self, dim: int = 64, codebook_size: int = 512, decay: float = 0.99) -> None:
        super().__init__()
        self.decay, self.size = decay, codebook_size
        self.register_buffer("table", torch.randn(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", self.table.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        distances = (rows**2).sum(1, keepdim=True) + (self.table**2).sum(1) - 2 * rows @ self.table.t()
        one_hot = F.one_hot(distances.argmin(1), self.size).to(z)
        picked = (one_hot @ self.table).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)
        with torch.no_grad():
            self.counts.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
            self.sums.mul_(self.decay).add_(one_hot.t() @ rows, alpha=1 - self.decay)
            total = self.counts.sum()
            smooth = (self.counts + 1e-5) / (total + self.size * 1e-5) * total
            self.table.copy_(self.sums / smooth.unsqueeze(1))
            p = one_hot.mean(0)
            (-(p * (p + 1e-10).log()).sum()).exp()
        loss = 0.25 * F.mse_loss(picked.detach(), z)
        return z + (picked - z).detach(), loss


class NotebookModel(nn.Module):
    """The same layers as the experiment's (hidden 128, residual 32, D 64, K 512), written out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 128, 4, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 4, 2, 1),
            _Residual(), _Residual(), nn.ReLU(), nn.Conv2d(128, 64, 1),
        )  # fmt: skip
        self.quantizer = NotebookQuantizer()
        self.decoder = nn.Sequential(
            nn.Conv2d(64, 128, 3, 1, 1), _Residual(), _Residual(), nn.ReLU(),
            nn.ConvTranspose2d(128, 128, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(128, 3, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        z, loss = self.quantizer(self.encoder(x))
        return F.mse_loss(self.decoder(z), x) / 0.0633 + loss


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(128, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 128, 1))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


def float_loop(
    model: nn.Module, loss_of: Callable[[Tensor], Tensor], data: Images, device: torch.device, compiled: bool
) -> Steps:
    """A plain loop over float images, for models that want them."""
    model.to(device).train()
    loss_of = torch.compile(loss_of) if compiled else loss_of
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    x = data.x.to(device)

    def steps(n: int) -> None:
        for _ in range(n):
            batch = x[torch.randint(len(x), (32,), device=device)].float() / 255
            loss_of(batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


def notebook_loop(data: Images, device: torch.device, compiled: bool) -> Steps:
    model = NotebookModel()
    return float_loop(model, lambda x: model(x - 0.5), data, device, compiled)


def pythae_loop(data: Images, device: torch.device, compiled: bool) -> Steps | None:
    """pythae's VQVAE around toolkit's encoder and decoder modules, so that the rest is what differs."""
    try:
        from pythae.models import VQVAE, VQVAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None
    stage, _ = stage_of(["experiment=image_cifar10_notebook"])

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.latent_dim = stage.model.encoder, 64

        def forward(self, x: Tensor) -> Any:
            return ModelOutput(embedding=self.inner(x * 255))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = stage.model.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.inner(z, {}).mean)

    config = VQVAEConfig(input_dim=(3, 32, 32), latent_dim=64, num_embeddings=512, use_ema=True)
    model = VQVAE(config, encoder=Encoder(), decoder=Decoder())
    return float_loop(model, lambda x: model({"data": x}).loss, data, device, compiled)


def seconds(steps: Steps, n: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    steps(n)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def contestants_of(
    data: Images, words: list[str], folder: Path, device: torch.device, compiled: bool
) -> dict[str, Steps]:
    words = [*words, f"trainer.compile={str(compiled).lower()}"]
    contestants = {
        "loop": toolkit_loop(data, words, folder, device),
        "bare": bare_loop(data, words, device),
        "notebook": notebook_loop(data, device, compiled),
    }
    peer = pythae_loop(data, device, compiled)
    return contestants if peer is None else contestants | {"pythae": peer}


def race(contestants: dict[str, Steps], n: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds per round of each, taken in turns, every other round backwards."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for steps in contestants.values():
        steps(max(3, n // 2))
    for i in range(rounds):
        order = list(contestants.items())
        for name, steps in order if i % 2 == 0 else reversed(order):
            times[name].append(seconds(steps, n, device))
    return times


def rows_of(times: dict[str, list[float]], n: int, batch_size: int) -> list[dict[str, Any]]:
    base = times["loop"]
    rows = []
    for name, own in times.items():
        ratios = [b / a for a, b in zip(base, own, strict=True)]
        middle = statistics.median(own)
        rows.append(
            {
                "what": name,
                "steps_per_second": n / middle,
                "images_per_second": n * batch_size / middle,
                "seconds_over_loop": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
            }
        )
    return rows


def matmul_limit(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    n, times = (8192, 20) if device.type == "cuda" else (1024, 10)
    a = torch.randn(n, n, device=device, dtype=dtype)
    run = lambda n: [a @ a for _ in range(n)] and None  # noqa: E731
    run(3)
    return times * 2 * n**3 / min(seconds(run, times, device) for _ in range(3))


def operations_of_an_image(data: Images, words: list[str], device: torch.device) -> float:
    """What the convolutions and matrix products of a step take for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    stage, _ = stage_of(words)
    stage.to(device).train()
    with FlopCounterMode(display=False) as counter:
        stage(data.x[:8].to(device), {}).loss.backward()
    return counter.get_total_flops() / 8


def add_shares(rows: list[dict[str, Any]], operations: float, limit: float) -> None:
    for row in rows:
        row["share_of_matmul_limit"] = row["images_per_second"] * operations / limit


def paper(data: Images, steps: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """image_cifar10_vqvae on a GPU: images per second, and the share of the matrix products' limit."""
    rows = []
    for precision in ("fp32", "bf16"):
        for compiled in ("false", "true"):
            words = [
                "experiment=image_cifar10_vqvae",
                f"trainer.precision={precision}",
                f"trainer.compile={compiled}",
            ]
            words += ["trainer.workers=4"]
            with tempfile.TemporaryDirectory() as folder:
                contestants = {
                    "loop": toolkit_loop(data, words, Path(folder), device),
                    "bare": bare_loop(data, words, device),
                }
                found = rows_of(race(contestants, steps, rounds, device), steps, 128)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # what the convolutions use
            limit = matmul_limit(device, torch.bfloat16 if precision == "bf16" else torch.float32)
            add_shares(found, operations_of_an_image(data, words, device), limit)
            for row in found:
                row["what"] = f"paper {precision}{' compiled' if compiled == 'true' else ''} {row['what']}"
            rows += found
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':28} {'steps/s':>9} {'images/s':>10} {'s / loop s':>11}   low .. high   share of limit")
    for r in rows:
        share = f"{r['share_of_matmul_limit']:.3f}" if "share_of_matmul_limit" in r else ""
        print(
            f"{r['what']:28} {r['steps_per_second']:9.2f} {r['images_per_second']:10.0f} {r['seconds_over_loop']:11.3f}"
            f"   {r['ratio_low']:.3f} .. {r['ratio_high']:.3f}   {share}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = images(args.root)
    words = ["experiment=image_cifar10_notebook", "trainer.precision=fp32"]  # as the others have it
    with tempfile.TemporaryDirectory() as folder:
        contestants = contestants_of(data, words, Path(folder) / "plain", device, compiled=False)
        if args.compile:
            others = contestants_of(data, words, Path(folder) / "compiled", device, compiled=True)
            contestants |= {f"{name} compiled": steps for name, steps in others.items()}
        rows = rows_of(race(contestants, args.steps, args.rounds, device), args.steps, 32)
    add_shares(rows, operations_of_an_image(data, words, device), matmul_limit(device, torch.float32))
    if args.paper:
        rows += paper(data, args.steps, args.rounds, device)
    show(rows)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "images": "noise" if args.root is None else "CIFAR-10",
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "root")},
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
