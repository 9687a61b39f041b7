"""Where a part is right and the suite asks it for something else, the failure says what to set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from toolkit import CodeSpec, Condition, Prior, registry
from toolkit.prior import PLAIN, SamplingOptions
from toolkit.testing import PluginSuite, PriorSuite
from toolkit.testing.prior import LABELS

pytestmark = pytest.mark.long


class LabelPrior(Prior):
    """Independent codes, given a label for each example, and nothing else."""

    def __init__(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> None:
        super().__init__()
        self.code_spec = code_spec
        kinds = conditions[0].size + 1 if conditions else 1
        self.logits = nn.ParameterList(torch.zeros(kinds, *code_spec.grid, size) for size in code_spec.codebook_sizes)

    def _log_probs(self, conditions: Mapping[str, Tensor], n: int) -> list[Tensor]:
        index = torch.full((n,), len(self.logits[0]) - 1)
        for value in conditions.values():
            index = index + value - index  # of the shape of labels
        return [logits[index].log_softmax(-1) for logits in self.logits]

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        parts = zip(self._log_probs(conditions, len(codes)), codes.unbind(1), strict=True)
        return sum((rows.gather(-1, c[..., None]).flatten(1).sum(1) for rows, c in parts), torch.zeros(len(codes)))

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return -self.log_prob(codes, conditions)

    forward = loss

    def sample(self, n: int, conditions: Mapping[str, Tensor], options: SamplingOptions = PLAIN, **_: object) -> Tensor:
        raise NotImplementedError


class Asked(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return LabelPrior(code_spec, conditions)


class AskedForLabels(Asked):
    conditions = LABELS


def test_a_prior_of_labels_alone_is_told_how_to_say_so() -> None:
    with pytest.raises(AssertionError, match=r"LabelPrior: (?s:.*)conditions = LABELS"):
        Asked().test_examples_do_not_influence_one_another()
    AskedForLabels().test_examples_do_not_influence_one_another()
    AskedForLabels().test_probabilities_sum_to_one_under_any_condition(1)


class Package(PluginSuite):
    distribution = registry.CORE


class OfSound(Package):
    beside: ClassVar[Mapping[str, Sequence[str]]] = {"decoder=wavenet": ["dataset.axes=[64]"]}


def test_a_part_of_another_rank_is_told_how_to_name_its_model(tmp_path: Path) -> None:
    wavenet = registry.find("decoder", "wavenet")
    with pytest.raises(AssertionError) as error:
        Package().test_it_fits_into_a_model(wavenet, tmp_path)
    said = str(error.value)
    assert "decoder=wavenet does not fit into the suite's model: " in said
    assert 'model = ("dataset=…", …)' in said
    assert 'beside = {"decoder=wavenet"' in said
    OfSound().test_it_fits_into_a_model(wavenet, tmp_path)
