"""What the families of VQGAN's kin have in common: the sizes of their networks, as words and out of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from toolkit import DataSpec, ToolkitError
from toolkit.config import PartConfig, RunConfig

SCALE = 0.2
"""Of the likelihood that an adopted run has: about the error of f16 tokenizers on photographs, 20 dB."""


@dataclass(frozen=True)
class Network:
    """The options of encoder and decoder ``image_vqgan``, with their defaults."""

    hidden: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    residual_blocks: int = 2
    attention: tuple[int, ...] = (0,)
    middle_attention: bool = True
    bottleneck: int = 256
    groups: int = 32

    @property
    def shrinks(self) -> int:
        """Pixels to a latent along both axes."""
        return 1 << (len(self.multipliers) - 1)

    def options(self) -> dict[str, Any]:
        """By name, as the parts' constructors take them."""
        return asdict(self)

    def words(self, kind: str) -> list[str]:
        """What composes the part of a kind."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in self.options().items()}
        return [f"{kind}=image_vqgan", *(f"{kind}.{key}={str(v).lower()}" for key, v in values.items())]


@dataclass(frozen=True)
class Tokenizer:
    """A whole model: sizes of its networks and its codebook, and its images."""

    encoder: Network
    decoder: Network
    dim: int
    codebook_size: int
    size: int
    """Pixels along both axes."""
    channels: int = 3
    normalize: bool = False
    """Whether codes are the most similar entries instead of the nearest."""

    def data(self) -> DataSpec:
        """An image of it; ToolkitError for channels that no image has, and sizes that do not fit the networks."""
        if self.channels not in (1, 3):
            raise ToolkitError(f"{self.channels} channels: an image has 3 or, if gray, 1")
        if self.size % self.encoder.shrinks:
            raise ToolkitError(
                f"images of {self.size} pixels do not divide by {self.encoder.shrinks}, the networks' stride"
            )
        return DataSpec(self.channels, (self.size, self.size), levels=256)

    def words(self) -> list[str]:
        """What composes it: the decoder gives pixels, and so the mean of a Gaussian; an error of one scale."""
        return [
            "dataset=image_folder",
            f"dataset.size={self.size}",
            f"dataset.channels={self.channels}",
            f"dim={self.dim}",
            *self.encoder.words("encoder"),
            "quantizer=vq",
            f"quantizer.codebook_size={self.codebook_size}",
            f"quantizer.normalize={str(self.normalize).lower()}",
            *self.decoder.words("decoder"),
            "likelihood=normal",
            f"likelihood.scale={SCALE}",
        ]


def tokenizer_of(config: RunConfig, data: DataSpec) -> Tokenizer:
    """Of a run; ToolkitError, naming the option, where its parts are others or its decoder sees more than codes."""
    _chosen("encoder", config.encoder, "image_vqgan")
    _chosen("decoder", config.decoder, "image_vqgan")
    _chosen("quantizer", config.quantizer, "vq")
    if config.likelihood is None or config.likelihood.name != "normal":
        name = config.likelihood.name if config.likelihood else "null"
        raise ToolkitError(f"likelihood={name}: the family's decoder gives pixels, as likelihood=normal takes them")
    if config.decoder_conditions:
        names = ", ".join(config.decoder_conditions)
        raise ToolkitError(f"conditions.decoder=[{names}]: the family's decoder sees nothing but codes")
    if data.rank != 2 or data.axes[0] != data.axes[1]:
        raise ToolkitError(f"dataset={config.dataset.name}: the family's data are square images, these are {data.axes}")
    return Tokenizer(
        _network(config.encoder.options),
        _network(config.decoder.options),
        config.dim,
        config.quantizer.options.get("codebook_size", 512),
        data.axes[0],
        data.channels,
        config.quantizer.options.get("normalize", False),
    )


def alike(tokenizer: Tokenizer, but: Sequence[str] = ()) -> Network:
    """The network that encoder and decoder have both, whatever those of its options say that may differ; ToolkitError,
    naming one that does else."""
    ours, others = tokenizer.encoder.options(), tokenizer.decoder.options()
    for key, value in ours.items():
        if others[key] != value and key not in but:
            raise ToolkitError(f"decoder.{key}={_shown(others[key])}: the family's is the encoder's, {_shown(value)}")
    return tokenizer.encoder


def as_published(network: Network, **values: Any) -> None:
    """ToolkitError, naming the option, where a network has another value than the only one of the family."""
    for key, value in values.items():
        if getattr(network, key) != value:
            own = _shown(getattr(network, key))
            raise ToolkitError(f"encoder.{key}={own}: the family knows {_shown(value)} alone")


def compared(tokenizer: Tokenizer, normalize: bool) -> None:
    """ToolkitError where entries are not compared as the family does."""
    if tokenizer.normalize != normalize:
        raise ToolkitError(
            f"quantizer.normalize={str(tokenizer.normalize).lower()}: the family's is {str(normalize).lower()}"
        )


def _chosen(kind: str, part: PartConfig, name: str) -> None:
    if part.name != name:
        raise ToolkitError(f"{kind}={part.name}: the family's is {name}")


def _network(options: Mapping[str, Any]) -> Network:
    values = {field.name: options[field.name] for field in fields(Network) if field.name in options}
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Network(**plain)


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value).lower()
