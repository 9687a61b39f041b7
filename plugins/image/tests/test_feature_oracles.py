"""Feature networks and LPIPS beside independent implementations, where these are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_features
import torch
from torch import Tensor, nn

from toolkit_image.features import weights
from toolkit_image.features.distance import feature_distance
from toolkit_image.features.frozen import Frozen
from toolkit_image.features.network import same_padded

PICTURES = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(3))


def normalized(pictures: Tensor) -> Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pictures - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


def saved(network: nn.Module, path: Path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_lpips_is_that_of_its_authors(tmp_path: Path) -> None:
    """With random convolutions and the heads that people's judgements were fitted to."""
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    lpips: Any = pytest.importorskip("lpips", reason="the package lpips is not installed")
    if not weights.heads():
        pytest.skip("no package with LPIPS' heads is installed")
    torch.manual_seed(0)
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    convolutions = {f"features.{n}": t for n, t in _vgg_of(theirs).items()}
    torch.save(convolutions, tmp_path / "vgg.pth")
    frozen = Frozen.load("vgg", str(tmp_path / "vgg.pth"))
    one, other = PICTURES, PICTURES.flip(0)
    layers = frozen.chosen(())
    with torch.no_grad():
        ours = feature_distance(frozen, layers, frozen(one, layers), frozen(other, layers))
        expected = theirs(2 * one - 1, 2 * other - 1).flatten()
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


def _vgg_of(theirs: Any) -> dict[str, Tensor]:
    """Its convolutions by their place in torchvision's VGG."""
    return {n.partition(".")[2]: t for n, t in theirs.net.state_dict().items() if n.startswith("slice")}


def test_convnext_is_that_of_torchvision(tmp_path: Path) -> None:
    models: Any = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    theirs = models.convnext_tiny(weights=None).eval()
    for name, tensor in theirs.named_parameters():
        if name.endswith("layer_scale"):
            tensor.data.fill_(0.5)
    frozen = Frozen.load("convnext", saved(theirs, tmp_path / "convnext.pth"))
    with torch.no_grad():
        expected = [x := theirs.features[:2](normalized(PICTURES))]
        for stage in (2, 4, 6):
            expected.append(x := theirs.features[stage : stage + 2](x))
        for ours, features in zip(frozen(PICTURES, frozen.network.layers), expected, strict=True):
            torch.testing.assert_close(ours, features, atol=1e-4, rtol=1e-4)
        pooled = theirs.classifier[:2](theirs.avgpool(x))
        torch.testing.assert_close(frozen.embed(PICTURES), pooled, atol=1e-4, rtol=1e-4)


def test_efficientnet_lite0_is_that_of_its_package() -> None:
    """Its own weights, which recognize a picture's class."""
    peer: Any = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    path = weights.find("efficientnet_lite0", "", None)
    theirs = peer.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights.read(path))
    frozen = Frozen.load("efficientnet_lite0")
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = theirs.extract_features((pictures * 255 - 127) / 128).mean((2, 3))
        torch.testing.assert_close(frozen.embed(pictures), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("blocks", "halved", "compared"),
    [(16, (1, 3, 5, 11), (0, 2, 4, 10, 15)), (21, (1, 4, 7, 15), (0, 3, 6, 14, 20))],
    ids=["Lite0", "Lite1"],
)
def test_efficientnet_has_the_size_of_its_weights(
    tmp_path: Path, blocks: int, halved: tuple[int, ...], compared: tuple[int, ...]
) -> None:
    """Block by block: these halve the resolution, and the outputs of those are compared."""
    tiny = tiny_features.randomized(tiny_features.EfficientnetLite0Network(8, [(8, 8, 8, 3)] * blocks, 16))
    frozen = Frozen.load("efficientnet_lite0", saved(tiny, tmp_path / "lite.pth"))
    network: Any = frozen.network
    stem = same_padded((PICTURES * 255 - 127) / 128, network._conv_stem)
    x, expected = nn.functional.relu6(network._bn0(stem)), list[Tensor]()
    assert len(network._blocks) == blocks
    for number, block in enumerate(network._blocks):
        size, x = x.shape[2], block(x)
        assert x.shape[2] == (size // 2 if number in halved else size)
        expected += [x] if number in compared else []
    for ours, features in zip(frozen(PICTURES, frozen.chosen(())), expected, strict=True):
        torch.testing.assert_close(ours, features)
    head = nn.functional.relu6(network._bn1(network._conv_head(x)))
    for ours, features in zip(frozen(PICTURES, ("head", "stage2")), (head, expected[1]), strict=True):
        torch.testing.assert_close(ours, features)
    torch.testing.assert_close(frozen.embed(PICTURES), head.mean((2, 3)))


@pytest.mark.slow
def test_dinov2_is_that_of_transformers(tmp_path: Path) -> None:
    peer: Any = pytest.importorskip("transformers.models.dinov2", reason="transformers is not installed")
    config = peer.Dinov2Config(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=1, image_size=70, patch_size=14, qkv_bias=True
    )
    theirs = peer.Dinov2Model(config).eval()
    network = tiny_features.randomized(tiny_features.Dinov2Network(64, 3, 25, 14))
    theirs.load_state_dict(_by_their_names(network.state_dict(), theirs))
    frozen = Frozen.load("dinov2", saved(network, tmp_path / "dinov2.pth"))
    with torch.no_grad():
        output = theirs(normalized(PICTURES[:, :, :56, :70]), output_hidden_states=True)
        ours = frozen(PICTURES, ("block2",))[0]
        torch.testing.assert_close(ours.flatten(2).mT, output.hidden_states[2][:, 1:], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(frozen.embed(PICTURES), output.pooler_output, atol=1e-4, rtol=1e-3)


def _by_their_names(tensors: dict[str, Tensor], theirs: nn.Module) -> dict[str, Tensor]:
    """The authors' names as transformers has them."""
    plain = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
        "attn.proj": "attention.o_proj",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    renamed = dict[str, Tensor]()
    for name, tensor in tensors.items():
        block = name.split(".")[1] if name.startswith("blocks.") else None
        rest = name if block is None else name.split(".", 2)[2]
        prefix = "" if block is None else f"encoder.layer.{block}."
        if rest.startswith("attn.qkv"):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{prefix}attention.{part}_proj.{rest.rpartition('.')[2]}"] = third
            continue
        for ours, other in plain.items():
            if rest == ours or rest.startswith(f"{ours}."):
                rest = other + rest.removeprefix(ours)
                break
        renamed[prefix + rest] = tensor
    return theirs.state_dict() | renamed
