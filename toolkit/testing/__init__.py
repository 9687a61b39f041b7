"""Conformance suites: subclass that of a part's kind in the part's tests.

class TestPatchEncoder(EncoderSuite):
    data = DataSpec(3, (32, 32), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return PatchEncoder(data, dim, patch=4)
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.testing.conditioner import ConditionerSuite as ConditionerSuite
    from toolkit.testing.dataset import DatasetSuite as DatasetSuite
    from toolkit.testing.decoder import DecoderSuite as DecoderSuite
    from toolkit.testing.discriminator import DiscriminatorSuite as DiscriminatorSuite
    from toolkit.testing.encoder import EncoderSuite as EncoderSuite
    from toolkit.testing.family import FamilySuite as FamilySuite
    from toolkit.testing.likelihood import LikelihoodSuite as LikelihoodSuite
    from toolkit.testing.logger import LoggerSuite as LoggerSuite
    from toolkit.testing.metric import MetricSuite as MetricSuite
    from toolkit.testing.objective import ObjectiveSuite as ObjectiveSuite
    from toolkit.testing.plugin import PluginSuite as PluginSuite
    from toolkit.testing.prior import PriorSuite as PriorSuite
    from toolkit.testing.quantizer import QuantizerSuite as QuantizerSuite
    from toolkit.testing.stream import StreamSuite as StreamSuite

__all__ = [
    "ConditionerSuite",
    "DatasetSuite",
    "DecoderSuite",
    "DiscriminatorSuite",
    "EncoderSuite",
    "FamilySuite",
    "LikelihoodSuite",
    "LoggerSuite",
    "MetricSuite",
    "ObjectiveSuite",
    "PluginSuite",
    "PriorSuite",
    "QuantizerSuite",
    "StreamSuite",
]

if "pytest" in sys.modules:  # so that a broken law shows its numbers
    names = [path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"]
    sys.modules["pytest"].register_assert_rewrite(*(f"{__name__}.{name}" for name in names))


def __getattr__(name: str) -> Any:
    """Resolved on first use: each suite needs pytest and its own kind alone."""
    if name not in __all__:
        raise AttributeError(f"module 'toolkit.testing' has no attribute {name!r}")
    return getattr(import_module(f"toolkit.testing.{name.removesuffix('Suite').lower()}"), name)
