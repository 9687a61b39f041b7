"""A training step with a critic, beside the same written by hand in PyTorch, in one process.

    python benchmarks/adversarial.py [--rounds 15] [--threads 1] [--out results.json]

Both train the same modules on the same batches, float32 on a CPU: an autoencoder of images of 3 x 32 x 32, and a
PatchGAN. The one by hand is a script as people write it: hinge losses, the adversarial term balanced by the gradients
at the reconstruction, two fused Adams, no metrics. Contestants take turns, every other round backwards; it is the time
of the process that counts. The ratio is the median over rounds of our time over the other's in the same round, and the
operations are those that PyTorch dispatches in a step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

# Threads that wait for one another would be counted as if they worked.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import toolkit
from toolkit.batches import Batch
from toolkit.build import build_stage
from toolkit.cli.config.compose import compose
from toolkit.optimization import Optimization
from toolkit.spec import DataSpec
from toolkit.step import step_of
from toolkit.training import Stage

WORDS = [
    *("dataset=waves", "encoder=conv", "decoder=conv", "quantizer=vq", "likelihood=normal", "likelihood.scale=0.5"),
    *("encoder.hidden=64", "decoder.hidden=64", "quantizer.codebook_size=256", "quantizer.init=random"),
    *("objective=adversarial", "objective.discriminator.width=32", "objective.discriminator.layers=2"),
    *("stage=autoencoder", "dim=32", "trainer.learning_rate=1e-4", "trainer.steps=1000000"),
]
DATA = DataSpec(3, (32, 32))
BATCH, STEPS = 16, 4
"""Examples of a step, and steps of a turn."""


def stage() -> tuple[Stage, Optimization]:
    torch.manual_seed(0)
    config = compose(WORDS).config
    made = build_stage(config, DATA, None).train()
    return made, Optimization(made, config.trainer, made.groups(config.trainer))


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    pool = torch.rand(8, BATCH, 3, 32, 32, generator=generator) * 2 - 1
    while True:
        yield from pool


def ours() -> Callable[[], object]:
    """The toolkit's step, with all that it reports."""
    trained, optimization = stage()
    device = torch.device("cpu")
    step, supply = step_of(trained, trained.metrics, optimization, device), batches()
    endless = (Batch({"x": x}, device) for x in supply)
    return lambda: step(endless)


def by_hand() -> Callable[[], object]:
    trained, _ = stage()
    model, critic = trained.model, trained.objective.critic
    assert critic is not None
    supply = batches()
    generator_optimizer = torch.optim.Adam(model.parameters(), 1e-4, betas=(0.9, 0.999), fused=True)
    critic_optimizer = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.9, 0.999), fused=True)

    def norm(gradient: Tensor) -> Tensor:
        return gradient.flatten(1).norm(dim=1).mean()

    def step() -> None:
        x = next(supply)
        critic.requires_grad_(False)
        quantized = model.quantizer(model.encoder(x))
        likelihood = model.decoder(quantized.z, {})
        mean = likelihood.mean
        loss = -likelihood.log_prob(x).mean() + quantized.loss.mean() + quantized.kl.mean()
        adversarial = -critic(mean, {})[0].logits.mean()
        (of_loss,) = torch.autograd.grad(loss, mean, retain_graph=True)
        (of_term,) = torch.autograd.grad(adversarial, mean)
        weight = 0.3 / 0.7 * norm(of_loss) / norm(of_term)
        generator_optimizer.zero_grad()
        torch.autograd.backward([loss, mean], [None, weight * of_term])
        critic.requires_grad_(True)
        of_real, of_fake = critic(x, {})[0].logits, critic(mean.detach(), {})[0].logits
        critic_optimizer.zero_grad()
        ((1 - of_real).relu().mean() + (1 + of_fake).relu().mean()).backward()
        generator_optimizer.step()
        critic_optimizer.step()

    return step


class Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(step: Callable[[], object]) -> int:
    with Operations() as mode:
        step()
    return mode.count


def seconds(step: Callable[[], object]) -> float:
    """Of the process, for a step."""
    began = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - began) / STEPS


def race(rounds: int) -> dict[str, Any]:
    contestants = {"toolkit": ours(), "by hand": by_hand()}
    for step in contestants.values():
        seconds(step)
    rows: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants) if number % 2 else reversed(contestants):
            rows[name].append(seconds(contestants[name]))
    ratios = [one / other for one, other in zip(rows["toolkit"], rows["by hand"], strict=True)]
    return {
        "milliseconds a step": {name: round(1e3 * statistics.median(times), 2) for name, times in rows.items()},
        "ratio": round(statistics.median(ratios), 4),
        "operations a step": {name: operations(step) for name, step in contestants.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "toolkit": toolkit.__version__}
    result = {"date": date.today().isoformat(), "machine": platform.processor() or platform.machine(), **versions}
    result |= {"threads": words.threads, "rounds": words.rounds, **race(words.rounds)}
    print(json.dumps(result, indent=1))
    if words.out:
        words.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
