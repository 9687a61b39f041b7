"""Published codecs as runs and back, against the networks of transformers with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from made_sounds import noise, save
from torch import Tensor, nn

from toolkit import Autoencoder, Dataset, DataSpec, RunConfig, ToolkitError
from toolkit.adopting.adopt import hold
from toolkit.adopting.mapping import to_theirs
from toolkit.build import build_autoencoder, build_dataset
from toolkit.cli.adopting import compose_open
from toolkit.family import Family
from toolkit.testing.family import FamilySuite, Publication
from toolkit_audio.families.dac import DacFamily, DescriptFamily
from toolkit_audio.families.encodec import EncodecFamily
from toolkit_audio.families.forms import unfolded

TINY: dict[str, Any] = {
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 16,
    "upsampling_ratios": (5, 4),
    "sampling_rate": 2000,
    "target_bandwidths": (0.8, 1.6),
}
STEREO: dict[str, Any] = {
    "audio_channels": 2,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}
"""What EnCodec at 48 kHz has otherwise than at 24 kHz, but for the loudness of chunks."""
DAC: dict[str, Any] = {
    "encoder_hidden_size": 4,
    "downsampling_ratios": (2, 4),
    "decoder_hidden_size": 24,
    "n_codebooks": 4,
    "codebook_size": 16,
    "codebook_dim": 3,
    "quantizer_dropout": 0.5,
    "sampling_rate": 1000,
}


def voices(config: list[str], folder: Path) -> Dataset:
    """Of a second of sound."""
    save(folder / "anna" / "1.wav", noise(1.0))
    return build_dataset(compose_open([*config, f"dataset.root={folder}"]))


@torch.no_grad()
def shaken(model: Any) -> Any:
    """A model none of whose weights are as they begin."""
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.uniform_(0.3, 3)
        elif parameter.dim() == 1:
            parameter.add_(0.05 * torch.randn_like(parameter))
        elif name.endswith("original0"):
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    return model.eval()


@cache
def encodec(**settings: Any) -> Any:
    """EnCodec with random weights and codebooks, whose stages are as wide as their residuals."""
    pytest.importorskip("transformers")
    from transformers.models.encodec.configuration_encodec import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecModel

    torch.manual_seed(0)
    model = shaken(EncodecModel(EncodecConfig(**settings)))
    with torch.no_grad():
        residual = model.encoder(torch.randn(20, model.config.audio_channels, 960))
        for layer in model.quantizer.layers:
            book = layer.codebook
            book.embed.copy_(torch.randn(book.embed.shape) * residual.std())
            book.embed_avg.copy_(3 * book.embed)
            book.cluster_size.fill_(3)
            residual = residual - layer.decode(layer.encode(residual))
    return model


@cache
def dac(**settings: Any) -> Any:
    pytest.importorskip("transformers")
    from transformers.models.dac.configuration_dac import DacConfig
    from transformers.models.dac.modeling_dac import DacModel

    torch.manual_seed(0)
    model = DacModel(DacConfig(**settings))
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
    for quantizer in model.quantizer.quantizers:
        nn.init.normal_(quantizer.codebook.weight)
    return shaken(model)


class EncodecLaws(FamilySuite):
    """At 24 kHz, small."""

    options: ClassVar[dict[str, Any]] = TINY
    samples = 960

    def family(self) -> Family:
        return EncodecFamily()

    def model(self) -> Any:
        return encodec(**self.options)

    def publication(self) -> Publication:
        return Publication(self.model().config.to_dict(), self.model().state_dict())

    def data(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(20, self.options.get("audio_channels", 1), self.samples, generator=generator)

    def encoded(self, x: Tensor) -> Tensor:
        z = torch.cat([self.model().encoder(one) for one in x.split(1)])
        codes: Tensor = self.model().quantizer.encode(z, self.model().config.target_bandwidths[-1]).transpose(0, 1)
        return codes

    def decoded(self, codes: Tensor) -> Tensor:
        x: Tensor = self.model().decoder(self.model().quantizer.decode(codes.transpose(0, 1)))
        return x

    def dataset(self, folder: Path) -> Dataset | None:
        return voices(EncodecFamily().words(self._held.settings), folder)


@pytest.mark.slow
class TestEncodec(EncodecLaws):
    """The laws, over a model of two strides."""


@pytest.mark.slow
class TestStereoEncodec(EncodecLaws):
    """At 48 kHz, small."""

    options: ClassVar[dict[str, Any]] = {**TINY, **STEREO}

    def dataset(self, folder: Path) -> Dataset | None:
        return None


@pytest.mark.slow
class TestDeepEncodec(EncodecLaws):
    """Units of several dilations, with nothing but their input added, and zeros beyond the ends."""

    options: ClassVar[dict[str, Any]] = {
        **TINY,
        "num_residual_layers": 3,
        "dilation_growth_rate": 3,
        "use_conv_shortcut": False,
        "pad_mode": "constant",
        "last_kernel_size": 3,
        "residual_kernel_size": 5,
        "num_lstm_layers": 1,
    }


@pytest.mark.slow
class TestWholeEncodec(EncodecLaws):
    """At its own size."""

    options: ClassVar[dict[str, Any]] = {}
    samples = 24000


@pytest.mark.slow
class TestWholeStereoEncodec(TestStereoEncodec):
    options: ClassVar[dict[str, Any]] = {**STEREO, "sampling_rate": 48000, "target_bandwidths": (3.0, 6.0, 12.0, 24.0)}
    samples = 48000


class DacLaws(FamilySuite):
    options: ClassVar[dict[str, Any]] = DAC
    samples = 960
    early = 0
    """Samples at the end that are others here."""

    def family(self) -> Family:
        return DacFamily()

    def model(self) -> Any:
        return dac(**self.options)

    def publication(self) -> Publication:
        return Publication(self.model().config.to_dict(), self.model().state_dict())

    def data(self) -> Tensor:
        return torch.randn(20, 1, self.samples, generator=torch.Generator().manual_seed(1)) / 3

    def encoded(self, x: Tensor) -> Tensor:
        return torch.cat([self.model().encode(one, return_dict=False)[2] for one in x.split(1)])

    def decoded(self, codes: Tensor) -> Tensor:
        """Where theirs ends early, ours is put in its place."""
        theirs = self.model().decode(audio_codes=codes, return_dict=False)[0].unsqueeze(1)
        if not self.early:
            return theirs
        ours = self._held.stage.model.decode(self._held.stage.model.embed(codes), {}).mean
        assert ours is not None
        assert not torch.allclose(ours[..., : theirs.shape[2]], theirs, atol=1e-3)
        return torch.cat([theirs[..., : self.samples - self.early], ours[..., self.samples - self.early :]], 2)

    def dataset(self, folder: Path) -> Dataset | None:
        return voices(DacFamily().words(self._held.settings), folder)


@pytest.mark.slow
class TestDac(DacLaws):
    """At 44.1 kHz, small."""


@pytest.mark.slow
class TestOddDac(DacLaws):
    """At 24 kHz, small: of an odd stride the published decoder makes a position less."""

    options: ClassVar[dict[str, Any]] = {**DAC, "downsampling_ratios": (2, 5)}
    early = 125


@pytest.mark.slow
class TestWholeDac(DacLaws):
    """At 44.1 kHz, at its own size."""

    options: ClassVar[dict[str, Any]] = {"sampling_rate": 44100}
    samples = 512 * 12


@pytest.mark.slow
class TestWholeOddDac(DacLaws):
    """At 24 kHz, at its own size."""

    options: ClassVar[dict[str, Any]] = {"sampling_rate": 24000, "downsampling_ratios": (2, 4, 5, 8), "n_codebooks": 32}
    samples = 320 * 12
    early = 500


@torch.no_grad()
def test_encodec_is_that_of_transformers() -> None:
    """What takes longest of the laws, once: all names, 20 times the same codes, and the same sound."""
    laws = TestEncodec()
    model, x = laws._held.stage.model.eval(), laws.data()
    codes = model.quantize(x).codes
    assert torch.equal(codes, laws.encoded(x))
    assert codes.unique().numel() > 8
    torch.testing.assert_close(model.decode(model.embed(codes), {}).mean, laws.decoded(codes), rtol=1e-5, atol=1e-5)
    back = to_theirs(laws.family().entries(laws._held.settings), model.state_dict())
    published = laws.publication().tensors
    assert {*back} == {*published}
    assert all(torch.equal(back[name], tensor) for name, tensor in published.items())


def held(family: Family, settings: dict[str, Any]) -> tuple[RunConfig, DataSpec, Autoencoder]:
    """A model of a family, with weights of our own."""
    config, data = compose_open(family.words(settings)), family.data(settings)
    return config, data, build_autoencoder(config, data)


def descript() -> dict[str, Any]:
    """As the authors write it, in their file of weights."""
    return {
        "encoder_dim": 4,
        "encoder_rates": [2, 5],
        "latent_dim": None,
        "decoder_dim": 24,
        "decoder_rates": [5, 2],
        "n_codebooks": 2,
        "codebook_size": 16,
        "codebook_dim": 3,
        "quantizer_dropout": 0.5,
        "sample_rate": 24000,
    }


def rows(prefix: str, *modules: str) -> list[str]:
    """Names of what stands in a row there, of a convolution or a snake."""
    parts = {"conv": ("weight_g", "weight_v", "bias"), "snake": ("alpha",)}
    return [f"{prefix}.{number}.{part}" for number, name in enumerate(modules) for part in parts.get(name, ())]


@pytest.mark.long
def test_the_authors_layout_of_dac() -> None:
    """Modules in a row, units among them, at every stride; and there and back it is the same model."""
    family, unit = DescriptFamily(), ("snake", "conv", "snake", "conv")
    names = [*rows("encoder.block", "conv", "", "", "snake", "conv")]
    names += rows("decoder.model", "conv", "", "", "snake", "conv")
    for network, beside in (
        ("encoder.block", ("unit", "unit", "unit", "snake", "conv")),
        ("decoder.model", ("snake", "conv", "unit", "unit", "unit")),
    ):
        for block in (1, 2):
            names += rows(f"{network}.{block}.block", *beside)
            for number, what in enumerate(beside):
                names += rows(f"{network}.{block}.block.{number}.block", *unit) if what == "unit" else []
    for number in range(2):
        stage = f"quantizer.quantizers.{number}"
        names += [f"{stage}.{at}.{part}" for at in ("in_proj", "out_proj") for part in ("weight_g", "weight_v", "bias")]
        names += [f"{stage}.codebook.weight"]
    written = {"metadata": {"kwargs": descript()}}
    settings = family.settings(written, {})
    assert settings == {**descript(), "latent_dim": 1024}  # as published, where neither file nor shapes tell
    settings = family.settings({"metadata": {"kwargs": {**descript(), "latent_dim": 16}}}, {})
    config, data, model = held(family, settings)
    published = to_theirs(family.entries(settings), model.state_dict())
    assert sorted(published) == sorted(names)
    assert family.settings_of(config, data) == settings
    shapes = {name: tuple(tensor.shape) for name, tensor in published.items()}
    assert shapes["decoder.model.1.block.1.weight_g"] == (24, 1, 1)
    again = hold(family, written, shapes, lambda _: published, compose_open, "a file").stage.model.state_dict()
    for name, tensor in model.state_dict().items():
        if not name.endswith(("counts", "initialized")):
            torch.testing.assert_close(again[name], tensor, msg=name)


@pytest.mark.parametrize(
    ("authors", "layout"),
    [
        ("encoder.model.0.conv.conv.weight_g", "encoder.layers.0.conv.parametrizations.weight.original0"),
        (
            "encoder.model.1.block.3.conv.conv.weight_v",
            "encoder.layers.1.block.3.conv.parametrizations.weight.original1",
        ),
        ("encoder.model.1.shortcut.conv.conv.bias", "encoder.layers.1.shortcut.conv.bias"),
        ("encoder.model.0.conv.norm.weight", "encoder.layers.0.norm.weight"),
        ("encoder.model.13.lstm.weight_hh_l1", "encoder.layers.13.lstm.weight_hh_l1"),
        ("decoder.model.3.convtr.convtr.bias", "decoder.layers.3.conv.bias"),
        ("decoder.model.3.convtr.norm.bias", "decoder.layers.3.norm.bias"),
        ("quantizer.vq.layers.31._codebook.embed_avg", "quantizer.layers.31.codebook.embed_avg"),
        ("decoder.layers.0.conv.weight_g", "decoder.layers.0.conv.parametrizations.weight.original0"),
    ],
)
def test_the_authors_names_of_encodec(authors: str, layout: str) -> None:
    assert EncodecFamily().renamed(authors) == layout
    assert EncodecFamily().renamed(layout) == layout


@pytest.mark.few(1)
@pytest.mark.parametrize("family", [EncodecFamily(), DacFamily(), DescriptFamily()])
def test_a_model_is_known_from_its_weights_alone(family: Family) -> None:
    small = family.settings(TINY if isinstance(family, EncodecFamily) else {**DAC, **descript(), "latent_dim": 16}, {})
    tensors = to_theirs(family.entries(small), held(family, small)[2].state_dict())
    written = {key: small[key] for key in ("sampling_rate", "sample_rate") if key in small}
    known = family.settings(written, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    assert {key for key in small if known[key] != small[key]} <= {"quantizer_dropout"}


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (EncodecFamily(), {"normalize": True}, "normalize=True: the loudness"),
        (EncodecFamily(), {"kernel_size": 5}, "kernel_size=5: the first"),
        (EncodecFamily(), {"codebook_dim": 64}, "codebook_dim=64: entries have hidden_size=128"),
        (EncodecFamily(), {"target_bandwidths": ["6"]}, r"target_bandwidths=\['6'\]: expected a list"),
        (EncodecFamily(), {"target_bandwidths": [0.1]}, r"target_bandwidths=\[0.1\]: 0 codebooks"),
        (EncodecFamily(), {"upsampling_ratios": "8542"}, "upsampling_ratios=8542: expected a list"),
        (EncodecFamily(), {"norm_type": ["a"]}, r"norm_type=\['a'\]: expected weight_norm or"),
        (EncodecFamily(), {"num_filters": True}, "num_filters=True: expected a whole"),
        (EncodecFamily(), {"use_causal_conv": 1}, "use_causal_conv=1: expected true"),
        (DacFamily(), {"decoder_hidden_size": 100}, "100 channels of the decoder cannot be halved 4 times"),
        (DacFamily(), {"quantizer_dropout": 2}, "quantizer_dropout=2: expected a number from 0 to 1"),
        (DescriptFamily(), {"decoder_rates": [2, 2]}, r"decoder_rates=\[2, 2\]: the decoder's strides"),
    ],
)
def test_settings_that_no_part_does(family: Family, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        family.settings(settings, {})


SMALL = ["dataset=audio_folder", "dataset.form=float", "likelihood=normal", "likelihood.scale=0.1", "dim=8"]
SEANET = [*SMALL, "encoder=audio_seanet", "decoder=audio_seanet", "quantizer=residual_ema"]
LSTM = ["encoder.lstm_layers=1", "decoder.lstm_layers=1", "encoder.last_kernel=7"]
DACS = [*SMALL, "encoder=audio_dac", "decoder=audio_dac", "quantizer=residual_cosine"]


@pytest.mark.long
@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        (EncodecFamily(), DACS, "encoder=audio_dac: the family's is audio_seanet"),
        (EncodecFamily(), SEANET, "decoder.last_kernel=7: the family's is 3"),
        (EncodecFamily(), [*SEANET, "encoder.last_kernel=7"], "lstm_layers=0"),
        (EncodecFamily(), [*SEANET, *LSTM, "decoder.strides=[2,2]"], r"decoder.strides=\[2,2\]: the family's is \[8,5"),
        (EncodecFamily(), [*SEANET, *LSTM, "quantizer=residual_cosine"], "quantizer.inner=projected: the family's"),
        (
            EncodecFamily(),
            [*SEANET, *LSTM, "encoder.dilations=[1,2,3]", "decoder.dilations=[1,2,3]"],
            r"encoder.dilations=\[1, 2, 3\]: the family's",
        ),
        (DacFamily(), DACS, "inner.inner.normalize=true: the family's is false"),
        (DacFamily(), [*DACS, "decoder.tanh=false"], "decoder.tanh=false: the family's is true"),
        (DacFamily(), [*DACS, "conditions.decoder=[speaker]"], r"conditions.decoder=\[speaker\]"),
        (DacFamily(), SEANET, "encoder=audio_seanet: the family's is audio_dac"),
    ],
)
def test_runs_that_are_not_of_the_family(family: Family, words: list[str], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        family.settings_of(compose_open(words), EncodecFamily().data(EncodecFamily().settings({}, {})))


@pytest.mark.few(2)
@pytest.mark.parametrize("depth", [1, 3, 12, 32])
@pytest.mark.parametrize("ratios", [[8, 5, 4, 2], [8, 5, 4, 4], [7, 3]])
def test_a_bandwidth_says_how_many_codebooks_there_are(depth: int, ratios: list[int]) -> None:
    """Rounded as the publisher's configuration rounds it."""
    family = EncodecFamily()
    unit = -(-24000 // torch.tensor(ratios).prod().item()) * 10
    settings = family.settings({"upsampling_ratios": ratios, "target_bandwidths": [depth * unit / 1000 + 1e-9]}, {})
    assert [int(1000 * bandwidth // unit) for bandwidth in settings["target_bandwidths"]][-1] == depth
    assert f"quantizer.depth={depth}" in family.words(settings)


def test_an_unfolded_weight_is_the_weight() -> None:
    """Also one of zeros, which have no direction."""
    weight = torch.randn(4, 3, 5)
    weight[1] = 0
    norm, direction = unfolded().here([weight])
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 5))
    convolution.load_state_dict(
        {
            "bias": torch.zeros(4),
            "parametrizations.weight.original0": norm,
            "parametrizations.weight.original1": direction,
        }
    )
    torch.testing.assert_close(convolution.weight, weight)
    torch.testing.assert_close(unfolded().there([norm, direction])[0], weight)
