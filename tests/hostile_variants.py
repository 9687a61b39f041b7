"""Ways to spoil a run folder, each with how opening it may end."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.runs.checkpoint import CHECKSUM, FACTS, MODEL, STATE, sha256
from toolkit.runs.codes import HASH

GIB = 1 << 30
OLD, NEW = "step-00000002", "step-00000004"
AE, PRIOR = f"autoencoder/{NEW}", f"priors/pixelcnn/{NEW}"

Mutation = Callable[[Path, Path], object]
"""Changes a run; the second path is a folder beside it, which must stay as it is."""
Ending = Literal["refused", "back", "same"]


class Variant(NamedTuple):
    change: Mutation
    ending: Ending
    says: str = ""
    """What the message names."""
    verb: str = "encode"


# -- ways to change a file


def text_damages() -> dict[str, Mutation]:
    """Ways to spoil a text file, of which nothing can be read then."""
    deep = 100_000
    return {
        "empty": lambda p, _: p.write_bytes(b""),
        "cut": lambda p, _: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 5]),
        "no UTF-8": lambda p, _: p.write_bytes(b"\xff\xfe\x00" + p.read_bytes()),
        "zeros": lambda p, _: p.write_bytes(bytes(500)),
        "huge": lambda p, _: os.truncate(p, 1 << 40),
        "deep": lambda p, _: p.write_text('{"a":' * deep),
        "deep lists": lambda p, _: p.write_text("[" * deep + "]" * deep),
        "a list": lambda p, _: p.write_text("[1, 2]"),
        "a huge number": lambda p, _: p.write_text('{"step": ' + "9" * 5000 + "}"),
        "a pickle": lambda p, outside: p.write_bytes(pickle.dumps(Trap(outside))),
    }


def places() -> dict[str, Mutation]:
    """What may stand in a file's place."""
    return {
        "a link out": lambda p, outside: link(p, outside / "secret"),
        "a link up": lambda p, outside: link(p, Path("../" * 40) / outside.relative_to("/") / "secret"),
        "a link to nothing": lambda p, outside: link(p, outside / "new"),
        "a link to zeros": lambda p, _: link(p, Path("/dev/zero")),
        "a pipe": lambda p, _: [p.unlink(), os.mkfifo(p)],
        "a socket": lambda p, _: sock(p),
    }


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, outside: Path) -> None:
        self.outside = outside

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.outside / "canary"), "w"))


def link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def sock(path: Path) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has to be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def at(file: str, change: Mutation) -> Mutation:
    return lambda run, outside: change(run / file, outside)


def edit(file: str, **values: Any) -> Mutation:
    """Values into a YAML or JSON file, by keys whose dots are written __."""

    def change(run: Path, outside: Path) -> None:
        path = run / file
        held = yaml.safe_load(path.read_text())
        for key, value in values.items():
            *way, last = key.split("__")
            node = held
            for part in way:
                node = node[int(part) if part.isdecimal() else part]
            node[last] = value
        if path.name == FACTS:
            held.pop(CHECKSUM, None)
        path.write_text(json.dumps(held) if file.endswith("json") else yaml.safe_dump(held))

    return change


def config(**values: Any) -> Mutation:
    return edit("config.yaml", **values)


def spec(**values: Any) -> Mutation:
    return edit("spec.json", **values)


def flip(where: float) -> Mutation:
    def change(path: Path, outside: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(where * (len(content) - 1))] ^= 0x10
        path.write_bytes(bytes(content))

    return change


def cut(share: float) -> Mutation:
    return lambda path, outside: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def write(content: Callable[[Path], bytes] | bytes) -> Mutation:
    return lambda path, outside: path.write_bytes(content if isinstance(content, bytes) else content(outside))


def hashed(change: Mutation) -> Mutation:
    """The change, and a state.json that says it was always so."""

    def both(path: Path, outside: Path) -> None:
        change(path, outside)
        facts = json.loads((path.parent / FACTS).read_text())
        facts["sha256"][path.name] = sha256(path)
        facts.pop(CHECKSUM, None)
        (path.parent / FACTS).write_text(json.dumps(facts))

    return both


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Mutation:
    """Other tensors in a well-made file."""

    def both(path: Path, outside: Path) -> None:
        held = load_file(path)
        change(held)
        save_file({name: tensor.contiguous() for name, tensor in held.items()}, path, {"pickle": "cos\nsystem\n."})

    return hashed(both)


def put(name: str, tensor: Tensor) -> Mutation:
    return tensors(lambda held: held.update({name: tensor}))


def raw(header: Any, data: int = 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def entry(shape: list[Any], end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


FOREIGN: dict[str, Callable[[Path], bytes] | bytes] = {
    **{f"a pickle {n}": lambda outside, n=n: pickle.dumps(Trap(outside), n) for n in (0, 2, 4, 5)},  # type: ignore[misc]
    "text": b"these are not the weights you are looking for",
    "zeros": bytes(1000),
    "a header of 2**62 bytes": raw(b"{}", length=1 << 62),
    "a header of 90 MB": struct.pack("<Q", 90_000_000) + b'{"a":[' + b"[]," * 1000,
    "an endless header": raw(b'{"a":' * 100_000),
    "a number of 10**5 digits": raw(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 100_000 + b"]}}"),
    "a tensor of 4 TB": raw({"a": entry([1 << 40], 1 << 42)}, 1),
    "a shape that overflows": raw({"a": entry([1 << 63, 1 << 63], 8)}),
    "negative": raw({"a": entry([-2, -1], 8)}),
    "texts": raw({"a": entry(["2"], "8")}),
    "overlap": raw({"a": entry([2], 8), "b": entry([2], 8)}),
    "an unknown type": raw({"a": entry([1], 8, "V8")}),
    "no metadata": raw({"__metadata__": [1], "a": entry([2], 8)}),
}

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def yaml_payloads() -> dict[str, Callable[[Path], str]]:
    return {
        "apply": lambda out: f"dim: !!python/object/apply:os.system ['touch {out}/canary']\n",
        "new": lambda out: f"dim: !!python/object/new:subprocess.Popen [['touch', '{out}/canary']]\n",
        "name": lambda _: "dim: !!python/name:os.system ''\n",
        "module": lambda _: "dim: !!python/module:evil_module ''\n",
        "an unknown tag": lambda _: "dim: !evil 3\n",
        "bytes": lambda _: "dim: !!binary aGVsbG8=\n",
        "a set": lambda _: "dim: !!set {a, b}\n",
        "a date": lambda _: "dim: 2020-01-01\n",
        "aliases": lambda _: BOMB,
        "merged aliases": lambda _: MERGES,
        "itself": lambda _: "dim: &a [*a]\n",
        "two documents": lambda _: "---\na: 1\n---\nb: 2\n",
        "a huge integer": lambda _: "dim: 0x" + "f" * 1000 + "\n",
        "keys that are lists": lambda _: "? [a, b]\n: 1\n",
    }


# -- all of them

REPRESENTATIVES = {
    "unchanged",
    # texts: what is no text, what is too large, what is none of ours, what runs code, what is not there
    *(f"config.yaml {damage}" for damage in ("cut", "no UTF-8", "huge", "deep", "a list", "missing", "a folder")),
    *(f"config.yaml {payload}" for payload in ("apply", "name", "an unknown tag", "merged aliases", "itself")),
    "spec.json deep",
    "spec.json a pickle",
    f"{AE}/{FACTS} cut",
    f"{AE}/{FACTS} missing",
    f"{PRIOR}/{FACTS} a huge number",
    "priors/pixelcnn/config.yaml cut",
    "priors/pixelcnn/config.yaml new",
    "what is not needed zeros",
    "what is not needed huge",
    "a log of lines of anything",
    "an evaluation of texts",
    # what stands in a file's place
    "config.yaml a link out",
    "config.yaml a pipe",
    "metrics.jsonl a link to zeros",
    "components.json a folder",
    f"{AE}/{FACTS} a socket",
    f"{AE}/{MODEL} a link out",
    f"{PRIOR}/{STATE} a pipe",
    # tensors: torn, changed, foreign, of lying sizes, of another model
    f"{AE}/{MODEL} cut at 0.999",
    f"{AE}/{MODEL} flipped at 1.0",
    f"{AE}/{STATE} cut at 0.0",
    f"{PRIOR}/{MODEL} missing",
    f"{PRIOR}/{STATE} flipped at 0.6",
    f"{PRIOR}/{STATE} a folder",
    f"{AE}/{MODEL} a pickle 4",
    f"{PRIOR}/{STATE} a pickle 2",
    f"{AE}/{MODEL} a header of 90 MB",
    f"{AE}/{MODEL} a shape that overflows",
    f"{PRIOR}/{STATE} overlap",
    "weights with int32",
    "weights with a shape that broadcasts",
    "weights with one more",
    "averages of another shape",
    "both checkpoints cut",
    # numbers and names: of the configuration, of the spec, of the facts beside a checkpoint
    "facts with another step",
    "facts with hashes of nothing",
    "facts with a grid of 10**12",
    "a config with dim of 10**9",
    "a config with a codebook of texts",
    "a config with 4**30 stages",
    "a config with stages beyond all depth",
    "a config with a wavenet of 10**9",
    "a config with an encoder of a list",
    "a config with a module's name",
    "a config with conditions of text",
    "a config with a recursive target, continued",
    "a config with a Hydra block",
    "a config with interpolations",
    "a config with 10**6 ranks",
    "a config with a prior by path",
    "a prior of 10**9 layers",
    "a later config of nothing",
    "a spec with axes of 10**12",
    "a spec with axes of texts",
    "a spec with codebooks of 10**6",
    "a spec with a grid of another size",
    "a spec with a condition of 10**7",
    "a spec with a target",
    # the folder itself
    "priors linked out",
    ".base.partial linked out",
    "codes is a file",
    "a link to the folder",
    "folders without end",
    "samples over a link",
    "codes over a link",
    # a continuation
    "going on with a moment of another shape",
    "going on with a moment missing",
    "going on with random numbers of another size",
    "going on with tensors of its own",
    "codes out of range in the cache",
}
"""One variant for each kind of damage and class of file; the others are slow."""


def variants() -> Iterator[tuple[str, Variant]]:
    yield "unchanged", Variant(lambda run, outside: None, "same")
    yield from of_texts()
    yield from of_tensors()
    yield from of_configurations()
    yield from of_specs()
    yield from of_places()
    yield from of_continuations()


def of_texts() -> Iterator[tuple[str, Variant]]:
    endings: dict[str, tuple[Ending, str]] = {
        "config.yaml": ("refused", "encode"),
        "spec.json": ("refused", "encode"),
        f"{AE}/{FACTS}": ("back", "encode"),
        f"{PRIOR}/{FACTS}": ("back", "sample"),
        "priors/pixelcnn/config.yaml": ("refused", "sample"),
    }
    for file, (ending, verb) in endings.items():
        for name, change in text_damages().items():
            yield f"{file} {name}", Variant(at(file, change), ending, file, verb)
        if "priors/pixelcnn/config" not in file:
            yield f"{file} missing", Variant(at(file, lambda p, _: p.unlink()), ending, file, verb)
            yield f"{file} a folder", Variant(at(file, lambda p, _: folder(p)), ending, file, verb)
    needless = ("components.json", "metrics.jsonl", "evaluation.json")
    for name, change in {**text_damages(), "missing": lambda p, _: p.unlink()}.items():
        every: Mutation = lambda run, out, change=change: [change(run / file, out) for file in needless]  # type: ignore[misc]  # noqa: E731
        yield f"what is not needed {name}", Variant(every, "same")
    for file in (*endings, *needless):
        for name, change in places().items():
            yield f"{file} {name}", Variant(at(file, change), "refused", file)
    for file in needless:
        yield f"{file} a folder", Variant(at(file, lambda p, _: folder(p)), "refused", file)
    for name, payload in yaml_payloads().items():
        for file, verb in (("config.yaml", "encode"), ("priors/pixelcnn/config.yaml", "sample")):
            change: Mutation = lambda p, out, payload=payload: p.write_text(  # noqa: E731
                payload(out) + ("" if "---" in payload(out) else p.read_text().replace("dim: 4\n", ""))
            )
            yield f"{file} {name}", Variant(at(file, change), "refused", file, verb)
    for name, facts in {
        "another step": {"step": 9},
        "a negative step": {"step": -4},
        "an endless step": {"step": float("inf")},
        "no step": {"step": "four"},
        "hashes of nothing": {"sha256": {}},
        "hashes as a text": {"sha256": "abc"},
    }.items():
        yield f"facts with {name}", Variant(edit(f"{AE}/{FACTS}", **facts), "back", "damaged")
    for name, facts in {
        "a grid of 10**12": {"grid": [10**12, 10**12]},
        "a grid of one axis": {"grid": [4]},
        "a negative grid": {"grid": [-4, 4]},
        "a grid of texts": {"grid": ["4", "4"]},
        "no axes": {"axes": None},
        "axes of 10**12": {"axes": [10**12, 1]},
    }.items():
        yield f"facts with {name}", Variant(edit(f"{PRIOR}/{FACTS}", **facts), "refused", PRIOR, "sample")
    log = b'[1]\n{}\n{"stage": 1, "split": "val", "step": 1}\n{"stage": "autoencoder", "split": "val", "step": 4}\n'
    for name, content in {"lines of anything": log, "a long line": b"x" * 10**7, "zeros": bytes(10**6)}.items():
        yield f"a log of {name}", Variant(at("metrics.jsonl", write(content)), "same", verb="train")
    held = {"split": "test", "step": 4, "prior_steps": {"pixelcnn": 4}, "examples": "many"}
    yield "an evaluation of texts", Variant(edit("evaluation.json", **held), "same", verb="compare")


def of_tensors() -> Iterator[tuple[str, Variant]]:
    for folder_, verb in ((AE, "encode"), (PRIOR, "sample")):
        for name in (MODEL, STATE):
            file = f"{folder_}/{name}"
            for share in (0.0, 0.01, 0.999):
                yield f"{file} cut at {share}", Variant(at(file, cut(share)), "back", name, verb)
            for where in (0.6, 1.0):
                yield f"{file} flipped at {where}", Variant(at(file, flip(where)), "back", name, verb)
            for what, change in places().items():
                yield f"{file} {what}", Variant(at(file, change), "refused", name, verb)
            yield f"{file} a folder", Variant(at(file, lambda p, _: folder(p)), "back", name, verb)
            yield f"{file} missing", Variant(at(file, lambda p, _: p.unlink()), "back", name, verb)
    for name, content in FOREIGN.items():
        for file, verb in ((f"{AE}/{MODEL}", "encode"), (f"{PRIOR}/{STATE}", "sample")):
            yield f"{file} {name}", Variant(at(file, hashed(write(content))), "refused", file, verb)
    weight = "model.encoder.out.weight"
    changes: dict[str, Callable[[dict[str, Tensor]], object]] = {
        "float64": lambda t: t.update({weight: t[weight].double()}),
        "int32": lambda t: t.update({weight: t[weight].int()}),
        "bool": lambda t: t.update({weight: t[weight] > 0}),
        "float16": lambda t: t.update({name: value.half() for name, value in t.items()}),
        "another shape": lambda t: t.update({weight: t[weight][:2]}),
        "a shape that broadcasts": lambda t: t.update({weight: t[weight][:1]}),
        "a number": lambda t: t.update({weight: torch.tensor(3.0)}),
        "a missing one": lambda t: t.pop(weight),
        "one more": lambda t: t.update({"../../../evil": torch.zeros(3)}),
        "none": lambda t: t.clear(),
    }
    for name, tensor_change in changes.items():
        yield f"weights with {name}", Variant(at(f"{AE}/{MODEL}", tensors(tensor_change)), "refused", "fit this model")
    averages = {"another shape": torch.zeros(3), "another type": torch.zeros(4, 8, 1, 1, dtype=torch.int64)}
    for name, tensor in averages.items():
        yield f"averages of {name}", Variant(at(f"{AE}/{STATE}", put(f"average.{weight}", tensor)), "refused", weight)
    yield (
        "an average of nothing",
        Variant(at(f"{AE}/{STATE}", put("average.evil", torch.zeros(1))), "refused", "average.evil"),
    )
    both: Mutation = lambda run, out: [cut(0.5)(run / step / MODEL, out) for step in (AE, f"autoencoder/{OLD}")]  # noqa: E731
    yield "both checkpoints cut", Variant(both, "refused", "none of its 2 checkpoints is whole")


def of_configurations() -> Iterator[tuple[str, Variant]]:
    huge = 10**9
    parts: dict[str, dict[str, Any]] = {
        "dim of 10**9": {"dim": huge},
        "dim of 10**18": {"dim": 10**18},
        "dim of -1": {"dim": -1},
        "dim of texts": {"dim": "four"},
        "dim of truth": {"dim": True},
        "dim of a list": {"dim": [4]},
        "a codebook of 10**9": {"quantizer__codebook_size": huge},
        "a codebook of 10**15": {"quantizer__codebook_size": 10**15},
        "a codebook of -1": {"quantizer__codebook_size": -1},
        "a codebook of NaN": {"quantizer__codebook_size": float("nan")},
        "a codebook of texts": {"quantizer__codebook_size": "__import__('os').system('touch canary')"},
        "a stride of 10**9": {"encoder__stride": huge},
        "a stride of 0": {"encoder__stride": 0},
        "10**9 stages": {"quantizer": {"name": "residual", "depth": huge}},
        "10**9 stages of fsq": {"quantizer": {"name": "residual", "depth": huge, "inner": {"name": "fsq"}}},
        "4**30 stages": {"quantizer": nested(30)},
        "stages beyond all depth": {"quantizer": nested(100)},
        "10**9 groups": {"quantizer": {"name": "product", "groups": huge}},
        "2**10**9 codes": {"quantizer": {"name": "lfq", "bits": huge, "heads": 1}},
        "10**9 bits": {"quantizer": {"name": "lfq", "bits": huge, "heads": huge}},
        "projected to 10**9": {"quantizer": {"name": "projected", "codebook_dim": huge}},
        "a quantizer of 16 levels": {"quantizer": {"name": "fsq", "levels": [5] * 5000}},
        "an encoder of 10**9 channels": {"encoder": {"name": "pool", "hidden": huge}},
        "10**9 blocks": {"encoder": {"name": "pool", "residual_blocks": huge}},
        "a decoder of 10**9 channels": {"decoder": {"name": "pixelcnn", "hidden": huge}, "likelihood": None},
        "a decoder of 10**9 layers": {"decoder": {"name": "pixelcnn", "layers": huge}, "likelihood": None},
        "a kernel of 10**9": {"decoder": {"name": "pixelcnn", "kernel_size": huge + 1}, "likelihood": None},
        "a wavenet of 10**9": {"decoder": {"name": "wavenet", "hidden": huge}, "likelihood": None},
        "a mixture of 10**9": {"likelihood": {"name": "logistic", "mixtures": huge}},
        "no encoder": {"encoder": None},
        "an encoder of text": {"encoder": "toy_conv"},
        "an encoder of a list": {"encoder": ["toy_conv"]},
        "an encoder without name": {"encoder": {"stride": 2}},
        "an encoder called 7": {"encoder": {"name": 7}},
        "a name of a list": {"encoder": {"name": ["toy_conv"]}},
        "a dotted name": {"encoder": {"name": "os.system"}},
        "a module's name": {"encoder": {"name": "evil_module:Payload"}},
        "a path as name": {"encoder": {"name": "../../outside/evil_module"}},
        "no conditions": {"conditions": None},
        "conditions of text": {"conditions": {"decoder": "kind", "prior": []}},
        "unknown conditions": {"conditions": {"decoder": ["evil"], "prior": []}},
        "metrics of text": {"metric": "codebook"},
        "metrics without names": {"metric": {"codebook": {}}},
        "loggers of text": {"logger": "tensorboard"},
        "loggers without names": {"logger": {"tensorboard": {}}},
    }
    for name, values in parts.items():
        yield f"a config with {name}", Variant(config(**values), "refused", "config" if "part" in name else "")
    for name, values in {
        "a target": {"_target_": "os.system", "encoder___target_": "evil_module.Payload"},
        "a recursive target": {"quantizer___recursive_": True, "quantizer___args_": ["touch canary"]},
        "a Hydra block": {"hydra": {"run": {"dir": "../outside"}, "callbacks": {"a": {"_target_": "evil_module.P"}}}},
        "interpolations": {"dataset": {"name": "toy_tiles", "root": "${oc.env:HOME}", "size": 8}},
        "a base elsewhere": {"init": "../outside"},
    }.items():
        yield f"a config with {name}", Variant(config(**values), "same")
        if "target" in name or name == "interpolations":
            yield f"a config with {name}, continued", Variant(config(**values), "same", verb="train")
    for name, values in {
        "10**6 ranks": {"trainer__ranks": 10**6},
        "10**6 workers": {"trainer__workers": 10**6, "trainer__steps": 5},
        "a batch of 10**12": {"trainer__batch_size": 10**12, "trainer__steps": 5},
        "a trainer of text": {"trainer": "fast"},
        "steps of NaN": {"trainer__steps": float("nan")},
        "a dim of 10**9, continued": {"dim": huge},
        "a codebook of 10**9, continued": {"quantizer__codebook_size": huge},
        "4**30 stages, continued": {"quantizer": nested(30)},
        "a prior by path": {"prior": {"name": "../../outside"}},
        "a prior of 10**9 channels": {"prior__hidden": huge},
    }.items():
        yield f"a config with {name}", Variant(config(**values), "refused", verb="train")
    for name, values in {
        "10**9 channels": {"prior__hidden": huge},
        "10**9 layers": {"prior__layers": huge},
        "10**9 in the head": {"prior__head": huge},
        "another name": {"prior": {"name": "maskgit", "hidden": huge}},
        "no name": {"prior": None},
    }.items():
        change = edit("priors/pixelcnn/config.yaml", **values)
        yield f"a prior of {name}", Variant(change, "refused", "", "sample")
    odd = "config-two.yaml"
    yield "a config that is not numbered", Variant(lambda run, _: (run / odd).write_text("a: 1"), "same")
    yield "a later config of nothing", Variant(lambda run, _: (run / "config-7.yaml").write_text(""), "refused")


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "vq"}
    for _ in range(depth):
        made = {"name": "residual", "depth": 4, "inner": made}
    return made


def of_specs() -> Iterator[tuple[str, Variant]]:
    huge = 10**12
    for name, values in {
        "axes of 10**12": {"data__axes": [huge, huge]},
        "axes of 10**5": {"data__axes": [10**5, 10**5]},
        "axes of 0": {"data__axes": [0, 8]},
        "axes of -8": {"data__axes": [-8, 8]},
        "axes of texts": {"data__axes": ["8", "8"]},
        "axes of fractions": {"data__axes": [8.0, 8.5]},
        "axes of NaN": {"data__axes": [float("nan"), 8]},
        "no axes": {"data__axes": []},
        "nine axes": {"data__axes": [1] * 9},
        "a number for axes": {"data__axes": 8},
        "10**12 channels": {"data__channels": huge},
        "channels of text": {"data__channels": "two"},
        "10**15 levels": {"data__levels": 10**15},
        "10**7 levels": {"data__levels": 10**7},
        "levels of truth": {"data__levels": True},
        "a variance of text": {"data__variance": "0.3"},
        "a variance of NaN": {"data__variance": float("nan")},
        "codebooks of 10**15": {"codes__codebook_sizes": [10**15]},
        "codebooks of 10**6": {"codes__codebook_sizes": [10**6]},
        "codebooks of -1": {"codes__codebook_sizes": [-1]},
        "codebooks of texts": {"codes__codebook_sizes": ["16"]},
        "10**6 codebooks": {"codes__codebook_sizes": [2] * 10**5},
        "a grid of 10**12": {"codes__grid": [huge, huge]},
        "a grid of another size": {"codes__grid": [5, 5]},
        "a grid of one axis": {"codes__grid": [4]},
        "parts that do not add up": {"codes__grid": [16], "codes__parts": [[2, 2], [3, 3]]},
        "parts of another run": {"codes__grid": [16], "codes__parts": [[4, 4]]},
        "parts of a grid of two axes": {"codes__parts": [[4, 4]]},
        "parts without axes": {"codes__grid": [1], "codes__parts": [[]]},
        "parts of -4": {"codes__grid": [16], "codes__parts": [[-4, -4]]},
        "parts of 10**12": {"codes__grid": [10**24], "codes__parts": [[huge, huge]]},
        "parts of text": {"codes__grid": [4], "codes__parts": "2222"},
        "no codes": {"codes": None},
        "codes of text": {"codes": "none"},
        "data of text": {"data": "tiles"},
        "conditions of text": {"data__conditions": "kind"},
        "conditions of texts": {"data__conditions": ["kind"]},
        "a condition of 10**15": {"data__conditions__0__size": 10**15, "data__conditions__0__labels": []},
        "a condition of 10**7": {"data__conditions__0__size": 10**7, "data__conditions__0__labels": []},
        "a condition of -1": {"data__conditions__0__size": -1},
        "a condition every 0": {"data__conditions__0__every": 0},
        "labels of numbers": {"data__conditions__0__labels": [1, 2, 3]},
        "too many labels": {"data__conditions__0__labels": ["x"] * 10**5},
        "a further field": {"data__evil": 3},
        "a target": {"data___target_": "os.system"},
        "varying of texts": {"data__varying": ["yes", "no"]},
        "rates of three": {"data__rates": [1.0, 2.0, 3.0]},
    }.items():
        verb = "sample" if name == "a condition of 10**7" else "encode"
        yield f"a spec with {name}", Variant(spec(**values), "refused", "", verb)


def of_places() -> Iterator[tuple[str, Variant]]:
    for name in ("autoencoder", "priors", "codes", "samples", AE, "priors/pixelcnn", PRIOR):
        yield f"{name} linked out", Variant(moved_out(name), "refused", name)
    for name in ("base", "config-2.yaml", "samples.png", ".base.partial", "metrics.partial", ".step-00000005", "x/y"):
        yield f"{name} linked out", Variant(new_link(name), "refused", name)
    for name in ("autoencoder", "codes", "samples", "priors"):
        change: Mutation = at(name, lambda p, _: [shutil.rmtree(p), p.write_text("no folder")])
        yield f"{name} is a file", Variant(change, "refused", name)
    yield "a link in", Variant(lambda run, _: (run / "latest.yaml").symlink_to("config.yaml"), "same")
    yield "a link to itself", Variant(lambda run, _: (run / "loop").symlink_to("loop"), "refused", "loop")
    yield "a link to the folder", Variant(lambda run, _: (run / "again").symlink_to("."), "refused", "again")
    yield (
        "folders without end",
        Variant(lambda run, _: (run / "base" / "/".join("a" * 200)).mkdir(parents=True), "refused"),
    )
    yield "samples over a link", Variant(new_link("samples/samples.png"), "refused", "samples.png", "samples")
    yield "an evaluation over a link", Variant(new_link("evaluation.json"), "refused", "evaluation.json", "evaluate")
    yield "codes over a link", Variant(new_link("codes/test.safetensors"), "refused", "test.safetensors", "train")


def moved_out(name: str) -> Mutation:
    def change(run: Path, outside: Path) -> None:
        to = outside / "moved"
        shutil.move(run / name, to)
        (run / name).symlink_to(to)

    return change


def new_link(name: str) -> Mutation:
    def change(run: Path, outside: Path) -> None:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        link(run / name, outside / "new")

    return change


def of_continuations() -> Iterator[tuple[str, Variant]]:
    weight = "model.encoder.out.weight"
    state = f"{AE}/{STATE}"
    for name, change in {
        "a moment of another shape": put(f"optimizer.exp_avg.{weight}", torch.zeros(2)),
        "a moment of another type": put(f"optimizer.exp_avg.{weight}", torch.zeros(4, 8, 1, 1, dtype=torch.int64)),
        "a moment missing": tensors(lambda t: t.pop(f"optimizer.exp_avg_sq.{weight}")),
        "a moment of nothing": put("optimizer.exp_avg.evil", torch.zeros(2)),
        "steps of a table": put(f"optimizer.step.{weight}", torch.zeros(9, 9)),
        "random numbers of another size": put("random.cpu", torch.zeros(7, dtype=torch.uint8)),
        "random numbers of another type": put("random.cpu", torch.zeros(7)),
        "random numbers of 10**6": put("random.cpu", torch.zeros(10**6, dtype=torch.uint8)),
        "figures of a table": put("figures.of.loss", torch.zeros(9)),
        "tensors of its own": put("evil", torch.zeros(9)),
    }.items():
        yield (
            f"going on with {name}",
            Variant(at(state, change), "refused", STATE if "missing" not in name else "", "longer"),
        )
    yield (
        "codes of another shape in the cache",
        Variant(at("codes/train.safetensors", cached(lambda codes: codes[:, :, :2])), "same", verb="train"),
    )
    yield (
        "codes out of range in the cache",
        Variant(at("codes/train.safetensors", cached(lambda codes: codes + 200)), "same", verb="train"),
    )


def cached(change: Callable[[Tensor], Tensor]) -> Mutation:
    """Other codes under the same key."""

    def both(path: Path, outside: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            key = {name: value for name, value in file.metadata().items() if name != HASH}
        held = load_file(path)
        held["codes"] = change(held["codes"]).contiguous()
        save_file(held, path, key)
        for each in (path.parents[1] / "priors" / "pixelcnn").glob("step-*"):
            shutil.rmtree(each)

    return both
