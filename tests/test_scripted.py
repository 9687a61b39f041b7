"""Networks from TorchScript files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchscript
from messages import assert_names
from torch import nn

from toolkit import ToolkitError
from toolkit.nn.scripted import Scripted


def test_a_network_from_a_file_is_frozen(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    torchscript.write(network, tmp_path / "a.pt")
    torchscript.write(nn.Linear(3, 4), tmp_path / "b.pt")
    one, other = (Scripted.load(str(tmp_path / name), "a map") for name in ("a.pt", "b.pt"))
    x = torch.randn(2, 3)
    torch.testing.assert_close(one(x), network[0](x).detach())
    assert not one(x).requires_grad
    assert one.digest != other.digest
    assert one.digest == Scripted.load(str(tmp_path / "a.pt"), "a map").digest


def test_what_is_no_such_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("text")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    for name in ("gone.pt", "text.pt", "weights.pt"):
        with pytest.raises(ToolkitError) as refusal:
            Scripted.load(f"{tmp_path}/{name}", "a map")
        assert_names(str(refusal.value), f"weights={tmp_path}/{name}: … TorchScript file of a map")
        assert "\n" not in str(refusal.value)
