"""Discrete representation learning: parts by name, composed, checked to fit, trained and sampled.

Names are resolved on first use, so that listing and composing parts never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.autoencoder import Autoencoder as Autoencoder
    from toolkit.cli.adopting import adopt as adopt
    from toolkit.cli.config.python import compose as compose
    from toolkit.conditioner import Conditioner as Conditioner
    from toolkit.conditioner import Tokens as Tokens
    from toolkit.config import RunConfig as RunConfig
    from toolkit.dataset import Dataset as Dataset
    from toolkit.decoder import Decoder as Decoder
    from toolkit.discriminator import Discriminator as Discriminator
    from toolkit.discriminator import Judgement as Judgement
    from toolkit.encoder import Encoder as Encoder
    from toolkit.errors import ToolkitError as ToolkitError
    from toolkit.exporting.export import export as export
    from toolkit.file_codec import Coded as Coded
    from toolkit.file_codec import FileCodec as FileCodec
    from toolkit.likelihood import Distribution as Distribution
    from toolkit.likelihood import Likelihood as Likelihood
    from toolkit.logger import Logger as Logger
    from toolkit.metric import Metric as Metric
    from toolkit.model import Model as Model
    from toolkit.model import load as load
    from toolkit.objective import Bound as Bound
    from toolkit.objective import CriticLoss as CriticLoss
    from toolkit.objective import Loss as Loss
    from toolkit.objective import Objective as Objective
    from toolkit.prior import Prior as Prior
    from toolkit.prior import SamplingOptions as SamplingOptions
    from toolkit.quantizer import Posterior as Posterior
    from toolkit.quantizer import Quantized as Quantized
    from toolkit.quantizer import Quantizer as Quantizer
    from toolkit.scoring import evaluate as evaluate
    from toolkit.spec import CodeSpec as CodeSpec
    from toolkit.spec import Condition as Condition
    from toolkit.spec import DataSpec as DataSpec
    from toolkit.stages.run import train as train
    from toolkit.stream_dataset import StreamDataset as StreamDataset
    from toolkit.stream_dataset import Streamed as Streamed

_HOMES = {
    "Autoencoder": "autoencoder",
    "Bound": "objective",
    "CodeSpec": "spec",
    "Coded": "file_codec",
    "Condition": "spec",
    "Conditioner": "conditioner",
    "DataSpec": "spec",
    "Dataset": "dataset",
    "Decoder": "decoder",
    "Discriminator": "discriminator",
    "Judgement": "discriminator",
    "Distribution": "likelihood",
    "Encoder": "encoder",
    "FileCodec": "file_codec",
    "Likelihood": "likelihood",
    "Logger": "logger",
    "Loss": "objective",
    "Metric": "metric",
    "Model": "model",
    "Objective": "objective",
    "Posterior": "quantizer",
    "Prior": "prior",
    "Quantized": "quantizer",
    "Quantizer": "quantizer",
    "RunConfig": "config",
    "SamplingOptions": "prior",
    "StreamDataset": "stream_dataset",
    "Streamed": "stream_dataset",
    "Tokens": "conditioner",
    "ToolkitError": "errors",
    "adopt": "cli.adopting",
    "compose": "cli.config.python",
    "evaluate": "scoring",
    "export": "exporting.export",
    "load": "model",
    "train": "stages.run",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("discrete-toolkit")
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    return getattr(import_module(f"toolkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
