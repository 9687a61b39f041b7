"""Every legal pair of parts fits, or is refused with both names and numbers."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import combinations, islice, product

import pytest
import torch

from toolkit import registry
from toolkit.build import build_autoencoder, build_dataset, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.cli.config.groups import presets
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError

QUANTIZERS = {  # and the depth of their codes
    "vq": 1,
    "ema": 1,
    "simvq": 1,
    "ibq": 1,
    "categorical": 1,
    "gaussian": 0,
    "fsq": 1,
    "lfq": 2,
    "lattice quantizer.points=e8": 1,
    "bsq quantizer.heads=3": 3,
    "projected": 1,
    "residual": 4,
    "residual quantizer.inner.name=product": 8,
    "product": 2,
    "product quantizer.shared=true quantizer.inner.name=ema": 2,
    "product quantizer.inner.name=residual quantizer.inner.depth=3": 6,
    "split": 5,
    "multiscale quantizer.grid=[4,4] quantizer.divisors=[4,2]": 1,
    "hierarchy quantizer.grid=[4,4] quantizer.hidden=8": 1,
    "vq_cosine": 1,
    "multiscale_ema quantizer.grid=[4,4] quantizer.divisors=[4,2]": 1,
    "multiscale_projected quantizer.grid=[4,4] quantizer.divisors=[4,2]": 1,
    "hierarchy_ema quantizer.grid=[4,4] quantizer.hidden=8": 1,
    "residual_ema": 8,
    "residual_cosine": 9,
    "residual_fsq quantizer.inner.inner.name=lfq": 8,
    "product_ema": 2,
    "product_categorical quantizer.groups=4": 4,
}
KINDS = ("dataset", "encoder", "quantizer", "decoder", "likelihood", "prior")
CHOICES = {
    "dataset": ["toy_waves", "toy_tiles", "toy_clips"],
    "encoder": ["toy_conv", "pool", "patch", "conv"],
    "quantizer": list(QUANTIZERS),
    "decoder": ["toy_conv", "pixelcnn", "wavenet", "patch", "conv"],
    "likelihood": ["categorical", "normal", "logistic"],
    "prior": [
        "uniform",
        "categorical",
        "pixelcnn",
        "wavenet",
        "transformer",
        "maskgit",
        "scales",
        "coarse_to_fine",
        "factored",
        "factored_maskgit",
        "delay",
        "random_order",
    ],
}
SIZES = {  # of what is made small
    "prior=pixelcnn": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "prior=wavenet": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "prior=transformer": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "prior=maskgit": ["prior.hidden=8", "prior.layers=2"],
    "prior=coarse_to_fine": ["prior.hidden=8", "prior.inner.hidden=8", "prior.inner.layers=2", "prior.inner.head=8"],
    "prior=factored": ["prior.inner.hidden=8", "prior.inner.layers=2", "prior.inner.head=8"],
    "prior=factored_maskgit": ["prior.inner.hidden=8", "prior.inner.layers=2"],
    "prior=delay": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "prior=random_order": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "prior=scales": ["prior.hidden=8", "prior.layers=2", "prior.head=8"],
    "decoder=pixelcnn": ["decoder.hidden=8", "decoder.layers=2", "decoder.head=8"],
    "decoder=wavenet": ["decoder.hidden=8", "decoder.layers=2", "decoder.head=8"],
    "encoder=pool": ["encoder.hidden=8"],
    "encoder=patch": ["encoder.hidden=8", "encoder.patch=2"],
    "decoder=patch": ["decoder.hidden=8", "decoder.patch=2"],
    "encoder=conv": ["encoder.hidden=8", "encoder.strides=[2]"],
    "decoder=conv": ["decoder.hidden=8", "decoder.strides=[2]"],
}
BASE = {kind: names[0] for kind, names in CHOICES.items()} | {"dataset": "toy_tiles"}
pytestmark = pytest.mark.usefixtures("toys")
SMALL = ["dim=4", "conditions.prior=[kind]", "conditions.decoder=[kind]"]


@cache
def composed(kind: str, value: str) -> RunConfig:
    """The configuration of the base with one part in its kind's place."""
    choice = {**BASE, kind: value}
    words = [word for kind, value in choice.items() for word in f"{kind}={value}".split()]
    words += [word for kind, value in choice.items() for word in SIZES.get(f"{kind}={value}", [])]
    return compose([*words, *SMALL]).config


def config_of(choice: dict[str, str]) -> RunConfig:
    """What composing all the words at once gives, put together from parts that are composed once each."""
    parts = {kind: getattr(composed(kind, value), kind) for kind, value in choice.items()}
    if composed("decoder", choice["decoder"]).likelihood is None:  # as it models the data itself
        parts["likelihood"] = None
    return replace(composed("dataset", choice["dataset"]), **parts)


def fit(choice: dict[str, str]) -> tuple[int, ...]:
    """Builds all parts; the shape of the codes."""
    config = config_of(choice)
    data = build_dataset(config).spec
    model = build_autoencoder(config, data)
    build_objective(config, model)
    build_prior(config, model.code_spec, data)
    return model.code_spec.shape


def refusal(choice: dict[str, str]) -> str | None:
    """What a refused combination must be refused for; None where it is legal."""
    dataset, decoder = choice["dataset"], choice["decoder"]
    if (
        decoder in ("toy_conv", "patch", "conv")
        and dataset == "toy_waves"
        and choice["likelihood"] in ("categorical", "logistic")
    ):
        return f"likelihood={choice['likelihood']}"
    if decoder in ("pixelcnn", "wavenet") and dataset == "toy_waves":
        return f"decoder={decoder}: a distribution over levels"
    parts = "quantizer.grid" in choice["quantizer"]
    if parts and (dataset != "toy_tiles" or choice["encoder"] == "pool"):
        return "the latents' grid is"
    if decoder == "wavenet" and dataset != "toy_waves":
        return "decoder=wavenet gives"  # axes but the last as the encoder left them, which halves or pools them all
    if choice["encoder"] == "pool" and decoder in ("toy_conv", "patch", "conv"):
        return f"decoder={decoder} gives"
    if QUANTIZERS[choice["quantizer"]] == 0:
        return "a continuous bottleneck has no codes"
    if choice["prior"] == "wavenet" and dataset != "toy_waves" and not parts:
        return "prior=wavenet: a grid of 1 axis is needed"
    return None


def judge(choice: dict[str, str]) -> None:
    wanted = refusal(choice)
    if wanted is None:
        assert fit(choice)[0] == QUANTIZERS[choice["quantizer"]]
    else:
        with pytest.raises(ToolkitError, match=wanted):
            fit(choice)


def pairs(names: dict[str, list[str]]) -> list[dict[str, str]]:
    """Choices in which every pair of names of two kinds stands: in one that fits, or else beside the base's parts."""
    choices, seen = list[dict[str, str]](), set[Pair]()
    for one, other in sorted(combinations(KINDS, 2), key=lambda kinds: -len(names[kinds[0]]) * len(names[kinds[1]])):
        for pair in product(names[one], names[other]):
            if (one, other, *pair) in seen:
                continue
            wanted = dict(zip((one, other), pair, strict=True))
            fits = fitting(wanted, names, turn=len(choices))
            choices.append(max(fits, key=lambda choice: len(pairs_in(choice) - seen), default=BASE | wanted))
            seen |= pairs_in(choices[-1])
    return choices


Pair = tuple[str, str, str, str]


def pairs_in(choice: dict[str, str]) -> set[Pair]:
    return {(one, other, choice[one], choice[other]) for one, other in combinations(KINDS, 2)}


def fitting(wanted: dict[str, str], names: dict[str, list[str]], turn: int) -> list[dict[str, str]]:
    """A few choices with these names that fit, if there are any; at every turn others stand beside them."""
    rest, drawn = [kind for kind in KINDS if kind not in wanted], random.Random(turn)
    choices = [dict(zip(rest, others, strict=True)) for others in product(*(names[kind] for kind in rest))]
    some = ({kind: (wanted | choice)[kind] for kind in KINDS} for choice in drawn.sample(choices, len(choices)))
    return list(islice((choice for choice in some if refusal(choice) is None), 40))


@pytest.mark.long
@pytest.mark.parametrize(("kind", "other"), [("decoder", "prior"), ("encoder", "quantizer"), ("dataset", "likelihood")])
@pytest.mark.few(1)
def test_parts_composed_apart_are_those_composed_together(kind: str, other: str) -> None:
    choice = {**BASE, kind: CHOICES[kind][1], other: CHOICES[other][1]}
    words = [word for kind, value in choice.items() for word in [f"{kind}={value}", *SIZES.get(f"{kind}={value}", [])]]
    assert config_of(choice) == compose([*words, *SMALL]).config


DEPTHS = ["vq", "gaussian", "lfq", "residual"]
"""A quantizer of each depth that makes a difference: one, none, two codebooks, several."""
BY_DEPTH = CHOICES | {"quantizer": DEPTHS}


def words_of(choice: dict[str, str]) -> str:
    return " ".join(choice.values()).replace("quantizer.", "")


@pytest.mark.long
@pytest.mark.parametrize("choice", pairs(BY_DEPTH), ids=words_of)
@pytest.mark.few(6)
def test_pairs(choice: dict[str, str]) -> None:
    judge(choice)


@pytest.mark.long
@pytest.mark.parametrize("quantizer", [quantizer for quantizer in QUANTIZERS if quantizer not in DEPTHS])
@pytest.mark.few(2)
def test_every_other_quantizer_fits(quantizer: str) -> None:
    judge(fitting({"quantizer": quantizer}, BY_DEPTH, turn=list(QUANTIZERS).index(quantizer))[0])


@pytest.mark.slow
@pytest.mark.parametrize("choice", pairs(CHOICES), ids=words_of)
def test_pairs_of_every_quantizer(choice: dict[str, str]) -> None:
    judge(choice)


@pytest.mark.slow
@pytest.mark.parametrize("names", list(product(*BY_DEPTH.values())), ids=" ".join)
def test_full_product(names: tuple[str, ...]) -> None:
    judge(dict(zip(CHOICES, names, strict=True)))


def test_every_part_of_the_core_is_in_the_table() -> None:
    for kind in ("encoder", "quantizer", "decoder", "likelihood", "prior"):
        core = {n for n in registry.names(kind) if registry.find(kind, n).distribution == "discrete-toolkit"}
        assert not core & set(presets(kind)), "a preset includes the component that it is named after"
        assert core | set(presets(kind)) == {c.split()[0] for c in CHOICES[kind] if not c.startswith("toy_")}


MISFITS: list[tuple[str, list[str]]] = [
    (
        "encoder.stride=4",
        ["decoder=toy_conv gives (2, 4, 4)", "data is (2, 8, 8)", "encoder=toy_conv makes a grid of (2, 2)"],
    ),
    ("dataset.size=7", ["decoder=toy_conv gives (2, 6, 6)", "data is (2, 7, 7)", "grid of (3, 3)"]),
    (
        "encoder=patch encoder.patch=3",
        ["encoder=patch: patch=3: ", "divide each of this data's axes (8, 8)"],
    ),
    (
        "encoder=patch encoder.patch=4 decoder=patch decoder.patch=2",
        ["decoder=patch gives (2, 4, 4)", "data is (2, 8, 8)", "encoder=patch makes a grid of (2, 2)"],
    ),
    ("dataset.size=1", ["encoder=toy_conv on data (2, 1, 1)"]),
    ("quantizer=product quantizer.groups=3", ["quantizer=product", "dim=4", "groups=3"]),
    (
        "quantizer=residual quantizer.inner.name=fsq dim=6",
        ["quantizer=residual", "takes 4 channels and gives 4", "have 6", "quantizer.inner.name=projected"],
    ),
    (
        "quantizer=product quantizer.inner.name=residual quantizer.inner.inner.name=lfq",
        ["quantizer.inner=residual", "takes 18 channels"],
    ),
    ("quantizer=lfq quantizer.bits=9", ["quantizer=lfq", "bits=9", "heads=2"]),
]


@pytest.mark.long
@pytest.mark.parametrize(("words", "said"), MISFITS, ids=[m[0] for m in MISFITS])
def test_misfits_name_both_parts_and_their_numbers(words: str, said: list[str]) -> None:
    base = [f"{kind}={name}" for kind, name in BASE.items()]
    config = compose([*base, *SMALL, *words.split()]).config
    with pytest.raises(ToolkitError) as caught:
        build_autoencoder(config, build_dataset(config).spec)
    for text in said:
        assert text in str(caught.value)


def test_a_part_of_too_many_axes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank-2 parts run on three axes frame by frame, but not on one."""
    monkeypatch.setattr(registry.load("encoder", "toy_conv"), "rank", 2)
    config = compose([f"{kind}={name}" for kind, name in {**BASE, "dataset": "toy_waves"}.items()]).config
    with pytest.raises(ToolkitError, match=r"encoder=toy_conv works on 2 axes, dataset=toy_waves has 1"):
        build_autoencoder(config, build_dataset(config).spec)


def test_a_part_of_fewer_axes_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same encoder and decoder, told that they work on two axes, take clips frame by frame."""
    for kind in ("encoder", "decoder"):
        monkeypatch.setattr(registry.load(kind, "toy_conv"), "rank", 2)
    config = compose([f"{kind}={name}" for kind, name in {**BASE, "dataset": "toy_clips"}.items()] + SMALL).config
    dataset = build_dataset(config)
    model = build_autoencoder(config, dataset.spec)
    assert model.code_spec.grid == (4, 8, 8)
    rows = [dataset.example("train", i, None) for i in range(2)]
    x, kind = torch.stack([r["x"] for r in rows]), torch.stack([r["kind"] for r in rows])
    objective = build_objective(config, model)
    nats = objective.bound(model, x, {"kind": kind}).data_nats
    frames = [
        -model.decoder(model.quantizer(model.encoder(x[:, :, t])).z, {"kind": kind}).log_prob(x[:, :, t])
        for t in range(4)
    ]
    torch.testing.assert_close(nats, sum(frames))
