"""The toy family keeps the laws of families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import SETTINGS, codes, decoded, weights, write_data
from torch import Tensor

from toolkit import registry
from toolkit.dataset import Dataset
from toolkit.family import Family
from toolkit.testing import FamilySuite
from toolkit.testing.family import Publication

pytestmark = pytest.mark.usefixtures("toys")


class TestToyFamily(FamilySuite):
    def family(self) -> Family:
        family: Family = registry.load("family", "toy_kin")()
        return family

    def publication(self) -> Publication:
        return Publication(SETTINGS, {**weights(), "critic.weight": torch.zeros(3)})

    def data(self) -> Tensor:
        return torch.randint(8, (20, 2, 8, 8))

    def encoded(self, x: Tensor) -> Tensor:
        return codes(weights(), x)

    def decoded(self, codes: Tensor) -> Tensor:
        return decoded(weights(), codes)

    def dataset(self, folder: Path) -> Dataset:
        dataset: Dataset = registry.load("dataset", "toy_files")(root=str(write_data(folder / "data", each=1)))
        return dataset
