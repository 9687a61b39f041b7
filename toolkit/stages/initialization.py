"""What a run starts from: the weights of another run, part by part, where the parts agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from toolkit.errors import ToolkitError
from toolkit.runs.chosen import choose
from toolkit.runs.folder import Run
from toolkit.runs.tensors import Shape, difference

PARTS = {
    "likelihood": "model.decoder.likelihood.",
    "encoder": "model.encoder.",
    "quantizer": "model.quantizer.",
    "decoder": "model.decoder.",
    "objective": "objective.",
}
"""What the names of each part's tensors begin with; a likelihood counts apart from the decoder around it."""


def initialize(stage: nn.Module, init: str, freeze: Collection[str] = ()) -> list[str]:
    """Loads another run's weights into the parts that have the same tensors; a part is loaded whole or not at all.

    Returns what to know: of that run's checkpoints, and which parts start afresh, and why. ToolkitError where no part
    agrees, or one that is to be frozen does not.
    """
    notices: list[str] = []
    checkpoint = choose(Run.open(init, key="init").autoencoder, None, notices)
    if checkpoint is None:
        raise ToolkitError(f"init={init}: this run has no checkpoint")
    own = {name: Shape.of(tensor) for name, tensor in stage.state_dict().items()}
    agreement = _compare(own, checkpoint.shapes())
    others = [f"{part} ({why})" for part, why in agreement.differing.items()]
    if own and not agreement.same:
        raise ToolkitError(f"init={init}: no part has the tensors that this model's has: {', '.join(others)}")
    lost = [part for part in agreement.differing if part in freeze]
    if lost:
        raise ToolkitError(
            f"trainer.freeze=[{lost[0]}]: init={init} has no weights for it ({agreement.differing[lost[0]]}), and it"
            " would stay random"
        )
    weights = checkpoint.averaged()
    kept = {name: weights[name] for name in own if part_of(name) in agreement.same}
    stage.load_state_dict(kept, strict=False)
    if others:
        taken = ", ".join(sorted(agreement.same))
        notices.append(f"init={Path(init)}: {taken} from there; of other tensors, and so anew: {', '.join(others)}")
    return notices


def part_of(name: str) -> str:
    """The part of stage one that a tensor belongs to."""
    return next((part for part, prefix in PARTS.items() if name.startswith(prefix)), "")


class _Agreement(NamedTuple):
    same: list[str]
    """Parts whose tensors have the same names, shapes and types on both sides."""
    differing: dict[str, str]
    """The others, with the first difference."""


def _compare(own: Mapping[str, Shape], saved: Mapping[str, Shape]) -> _Agreement:
    agreement = _Agreement([], {})
    for part in dict.fromkeys(map(part_of, own)):
        here, there = ({n: s for n, s in shapes.items() if part_of(n) == part} for shapes in (own, saved))
        wrong = next((name for name in sorted({*here, *there}) if here.get(name) != there.get(name)), None)
        if wrong is None:
            agreement.same.append(part)
        else:
            agreement.differing[part] = difference(here, there, wrong)
    return agreement
