"""The room that asks about devices: names, memory, random numbers, precision, TF32 and determinism."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fresh import ROOT, run
from messages import assert_names
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import TWO_STEPS, trainers

import toolkit
from toolkit import distributed
from toolkit.causal import sampling
from toolkit.device import (
    autocast,
    choice,
    choose_device,
    deterministic,
    double,
    exact,
    free_memory,
    in_float32,
    matmuls,
    peak_memory,
    pins,
    placed,
    random_kept,
    resolve_precision,
    tf32,
    wide,
)
from toolkit.errors import ToolkitError
from toolkit.likelihoods.categorical import choose
from toolkit.logged import Logged
from toolkit.nn.noise import seeded
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.simvq import SimVQQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.report import Silence
from toolkit.runs.folder import Run
from toolkit.testing.accelerator import stand_in

pytestmark = pytest.mark.usefixtures("toys")
CUDA, MPS, CPU = torch.device("cuda"), torch.device("mps"), torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "mps:1", ""])
def test_a_name_that_is_none_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(ToolkitError) as error:
        choose_device(name)
    assert_names(str(error.value), f"device={name} … auto … cpu … cuda … mps … xpu … cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu", "xpu:0"])
def test_what_is_not_there_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "is_available", lambda kind: False)
    with pytest.raises(ToolkitError) as error:
        choose_device(name)
    assert_names(str(error.value), f"device={name} … device=cpu … device=auto")


def test_a_number_is_checked_and_becomes_the_current_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current = list[int]()
    monkeypatch.setattr(choice, "is_available", lambda kind: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert current == [1]
    with pytest.raises(ToolkitError) as error:
        choose_device("cuda:2")
    assert_names(str(error.value), "device=cuda:2 … cuda:0 to cuda:1 … device=cuda")


@pytest.mark.parametrize(("name", "cure"), [("cuda:1", "device=cuda"), ("mps", "device=cuda or device=cpu")])
def test_ranks_take_a_gpu_each(name: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.check_device(torch.device(name))
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    with pytest.raises(ToolkitError) as error:
        distributed.check_device(torch.device(name))
    assert_names(str(error.value), f"trainer.ranks=2 … {cure}")


def test_free_memory_counts_what_torch_keeps_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """After training most of a GPU is in torch's cache: samples must not be drawn one at a time for it."""
    for name, value in {"mem_get_info": (10, 1000), "memory_reserved": 900, "memory_allocated": 100}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(CUDA) == 10 + 900 - 100
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 70)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 30)
    assert free_memory(MPS) == 40
    assert free_memory(CPU) > 0
    assert peak_memory(CPU) > 0


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep memory as they do")
def test_what_a_step_frees_is_kept_for_the_next() -> None:
    """In a process of its own, as an allocator never forgets what it has learned."""
    script = """
import resource
import torch
from toolkit.device import keep_memory
keep_memory(torch.device("cpu"))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(1 << 18) for _ in range(32)]  # 32 MiB, of which a step has many small tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
steps = [faults() for _ in range(50)]
print(steps[0], max(steps[-3:]))  # its place moves a few times before it stays
"""
    for _ in range(4):  # without the call, chance decides in every process
        first, later = map(int, run(sys.executable, "-c", script, cwd=ROOT).split())
        assert first > 1000  # pages
        assert later < 100


def test_only_devices_with_memory_of_their_own_are_fed_from_pinned_memory() -> None:
    assert [pins(torch.device(kind)) for kind in ("cuda", "xpu", "mps", "cpu")] == [True, True, False, False]


class Generator:
    """An accelerator's, in as far as its state is asked for."""

    def __init__(self) -> None:
        self.state = torch.tensor([1])

    def get_rng_state(self) -> Tensor:
        return self.state

    def set_rng_state(self, state: Tensor) -> None:
        self.state = state


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Generator:
    """That of an accelerator which seeds it as torch does: with the CPU's."""
    own, seed = Generator(), torch.manual_seed
    monkeypatch.setattr("toolkit.device.randomness.accelerator", lambda: ("mps", own))

    def seed_all(number: int) -> torch.Generator:
        own.state = torch.tensor([number])
        return seed(number)

    monkeypatch.setattr(torch, "manual_seed", seed_all)
    return own


class Seeder:
    """A logger that seeds."""

    def log(self, stage: str, split: str, step: int, metrics: dict[str, float]) -> None:
        torch.manual_seed(7)

    def picture(self, stage: str, step: int, path: Any) -> None: ...

    def close(self, status: str) -> None: ...


def test_who_seeds_leaves_the_accelerators_numbers_alone(generator: Generator) -> None:
    before = torch.get_rng_state()
    for block in (seeded(3), random_kept()):
        with block:
            torch.manual_seed(5)
            assert generator.state == 5
        assert generator.state == 1
    logged = Logged(Silence())
    logged.add([("seeder", Seeder())])  # type: ignore[list-item]
    logged.metrics("train", 1, {})
    assert generator.state == 1
    assert torch.get_rng_state().equal(before)


def test_auto_is_bfloat16_where_the_device_is_built_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [resolve_precision(name, CPU) for name in ("auto", "fp32", "bf16", "fp16")] == [
        "fp32",
        "fp32",
        "bf16",
        "fp16",
    ]
    assert resolve_precision("auto", MPS) == "fp32"
    for built in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, built=built: built)
        assert resolve_precision("auto", CUDA) == ("bf16" if built else "fp32")
    for precision, dtype in (("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast(CPU, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_sums_are_double_where_there_is_double() -> None:
    assert [wide(device) for device in (CPU, CUDA, MPS)] == [torch.float64, torch.float64, torch.float32]
    assert double(torch.ones(2)).dtype == torch.float64


def test_sampling_in_float32_takes_no_code_without_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uniform number that float32 rounds to 1 would choose the last code."""
    monkeypatch.setattr(sampling, "wide", lambda device: torch.float32)
    probs = torch.tensor([[0.1, 0.2, 0.7, 0.0]]).repeat(3, 1)
    numbers = sampling.on_device(torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64), CPU)
    assert numbers.dtype == torch.float32
    assert sampling.inverse_cdf(probs, numbers).tolist() == [0, 2, 2]


def test_sampling_in_float32_is_as_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))

    def draw() -> tuple[Tensor, Tensor]:
        noise = sampling.uniforms(500, [7], 1, torch.Generator().manual_seed(1), CPU)[:, 0, 0]
        return sampling.sample_logits(logits, noise), choose(logits, torch.Generator().manual_seed(2))

    in_double = draw()
    for module in ("toolkit.causal.sampling", "toolkit.likelihoods.categorical"):
        monkeypatch.setattr(f"{module}.wide", lambda device: torch.float32)
    for one, other in zip(draw(), in_double, strict=True):
        assert (one == other).double().mean() > 0.99


def test_tf32_is_allowed_in_training_and_shielded_where_codes_are_defined() -> None:
    """Both of torch's interfaces agree at every place, or what reads the older one, such as a compiler, would raise."""
    backends = torch.backends

    def state() -> tuple[bool, bool, str, str]:
        cuda, cudnn = backends.cuda.matmul, backends.cudnn
        return cuda.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision(), cuda.fp32_precision

    before = state()
    with matmuls(CUDA):
        assert state() == (True, True, "high", "tf32")
        with exact(CUDA):
            assert state()[:3] == (False, False, "highest")
            with in_float32(CUDA):
                assert state()[:3] == (False, False, "highest")
        assert state()[:2] == (True, True)
        with exact(CPU), exact(MPS):
            assert state()[:2] == (True, True)
    with matmuls(CUDA, products=False):
        assert state()[:2] == (False, True)
    assert state()[:3] == before[:3]


PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"}


class TF32(TorchDispatchMode):
    """Rounds what is multiplied to 10 bits, where TF32 is allowed."""

    rounded = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        products, convolutions = tf32._allowed()
        name = func._schema.name
        if (name in PRODUCTS and products) or (name == "aten::convolution" and convolutions):
            TF32.rounded += 1
            args = [self._round(arg) if isinstance(arg, Tensor) else arg for arg in args]
        return func(*args, **(kwargs or {}))

    def _round(self, t: Tensor) -> Tensor:
        if t.dtype != torch.float32:
            return t
        return ((t.contiguous().view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The surroundings of a training step on a GPU: TF32, and autocast to bfloat16."""
    monkeypatch.setattr(tf32, "has_tf32", lambda device: True)

    @contextmanager
    def surroundings() -> Iterator[None]:
        with matmuls(CPU), TF32(), torch.autocast("cpu", torch.bfloat16):
            yield

    return surroundings


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(8, codebook_size=512, entropy=0.1),
        lambda: EMAQuantizer(8, codebook_size=512),
        lambda: SimVQQuantizer(8, codebook_size=512),
    ],
    ids=["vq", "ema", "simvq"],
)
def test_a_training_steps_look_up_is_true_float32(make: Callable[[], Quantizer], training: Callable[[], Any]) -> None:
    z = torch.randn(16, 8, 512, generator=torch.Generator().manual_seed(0))

    def codes() -> Tensor:
        torch.manual_seed(1)
        return make().train()(z).codes

    plain = codes()
    with training():
        assert codes().equal(plain)


@pytest.mark.long
def test_codes_figures_and_samples_are_true_float32(
    train_toy: Callable[..., Run], training: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``encode``, ``evaluate`` and ``sample`` give what they give without TF32 and autocast around them."""
    model = toolkit.load(train_toy("quantizer=vq", "quantizer.codebook_size=64").path, "cpu")
    x = torch.stack([model.dataset.example("val", i, None)["x"] for i in range(4)])

    def results() -> list[Any]:
        return [model.encode(x), model.quantize(x), *model.sample(3, seed=5), model.decode(model.encode(x))]

    plain, figures = results(), toolkit.evaluate(model, split="val", examples=8)
    with training():
        before = TF32.rounded
        assert not model.autoencoder.encoder(model.spec.scale(x)).float().equal(model.autoencoder.encoder(x))
        assert TF32.rounded > before
        inside, judged = results(), toolkit.evaluate(model, split="val", examples=8)
    for one, other in zip(inside, plain, strict=True):
        assert one.equal(other)
    assert judged == figures


def test_deterministic_restores_what_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    with pytest.raises(ToolkitError) as error, deterministic():
        raise RuntimeError("pool_cuda does not have a deterministic implementation, but you set")
    assert_names(str(error.value), "deterministic=true … pool_cuda … device=cpu")
    with pytest.raises(RuntimeError, match="another"), deterministic():
        raise RuntimeError("another")


def test_a_deterministic_run_is_the_same_on_a_cpu(train_toy: Callable[..., Run]) -> None:
    runs = [train_toy(f"trainer.deterministic={on}", "stage=autoencoder", name=on) for on in ("true", "false")]
    one, other = (toolkit.load(run.path, "cpu").autoencoder.state_dict() for run in runs)
    assert all(one[name].equal(other[name]) for name in one)
    assert not torch.are_deterministic_algorithms_enabled()


PARTS = [
    ("quantizer=vq", "quantizer.codebook_size=16"),
    (
        "objective=nvil",
        "quantizer=categorical",
        "quantizer.codebook_size=8",
        "likelihood=logistic",
        "prior=maskgit",
        "~prior.head",
    ),
    ("quantizer=product", "quantizer.inner.name=ema", "prior=transformer"),
]


@pytest.mark.long
@pytest.mark.parametrize("words", PARTS, ids=["vq", "nvil", "product"])
@pytest.mark.few(1)
def test_both_stages_run_on_a_device_without_float64(train_toy: Callable[..., Run], words: tuple[str, ...]) -> None:
    """They are trained, evaluated, sampled and encoded on a stand-in that says ``mps`` and refuses float64."""
    with stand_in("mps") as device:
        run = train_toy(*words, *TWO_STEPS, *trainers("device=mps"))
        judged = toolkit.evaluate(run.path, split="val", examples=4, device="mps")
        there = _used(toolkit.load(run.path, "mps"))
    assert device.operations.total() > 0
    assert judged["bits_per_dim"] > 0
    for one, other in zip(there, _used(toolkit.load(run.path, "cpu")), strict=True):
        assert one.equal(other)


def _used(model: toolkit.Model) -> list[Tensor]:
    x = torch.stack([model.dataset.example("val", i, None)["x"] for i in range(3)])
    codes = model.encode(x)
    return [t.cpu() for t in (codes, model.decode(codes, seed=1), *model.sample(2, seed=3))]


def test_convolutions_have_their_channels_last_on_a_gpu_alone() -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ConvTranspose2d(4, 3, 3), torch.nn.PReLU(3))

    own = placed(network(), torch.device("cpu"))
    assert all(weight.is_contiguous() for weight in own.parameters())
    with stand_in():
        there = placed(network(), torch.device("cuda"))
        laid = [w.is_contiguous(memory_format=torch.channels_last) for w in there.parameters() if w.dim() == 4]
        assert laid == [True, True]
        there(torch.randn(2, 3, 8, 8, device="cuda")).sum().backward()
        for weight, other in zip(there.parameters(), own.parameters(), strict=True):
            assert weight.is_cuda
            assert weight.grad is not None
            assert torch.equal(weight.cpu(), other)
