"""A frozen encoder of others, read from a folder, beside a prior that is trained."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from byt5 import WHY, encoder
from messages import assert_names
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from toys import TILES, VQ

from toolkit.cli.config.compose import compose
from toolkit.conditioners.byt5 import WEIGHTS, ByT5Conditioner
from toolkit.config import PartConfig
from toolkit.errors import ToolkitError
from toolkit.estimate import step_memory
from toolkit.optimization import Optimization
from toolkit.options import PriorTrainerOptions
from toolkit.part import make
from toolkit.paths import with_absolute_paths
from toolkit.prior import Prior
from toolkit.runs.checkpoint import newest
from toolkit.runs.saving import save
from toolkit.runs.tensors import sha256
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.accelerator import stand_in
from toolkit.training import PriorStage

CAPTION = Condition("caption", 24, text=True)
TEXTS = ("a red star", "", "eine grüne Fläche", "x")


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory)


def prior_of(root: Path | str) -> Prior:
    network = {"hidden": 8, "layers": 1, "heads": 2, "head": 8, "conditioner": {"name": "byt5", "root": str(root)}}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        part = make("prior", PartConfig("transformer", network), code_spec=CodeSpec((4,), (5,)), conditions=(CAPTION,))
    assert isinstance(part, Prior)
    return part


def test_its_vectors_are_those_of_transformers_and_its_tokenizer(root: Path) -> None:
    transformers = pytest.importorskip("transformers", reason=WHY)
    inputs = transformers.ByT5Tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = transformers.T5EncoderModel.from_pretrained(root)(**inputs).last_hidden_state
    tokens = ByT5Conditioner(CAPTION, root=str(root)).eval()(torch.stack([CAPTION.encoded(text) for text in TEXTS]))
    longest = inputs["attention_mask"].shape[1]
    assert torch.equal(tokens.mask[:, :longest].long(), inputs["attention_mask"])
    assert not tokens.mask[:, longest:].any()
    own = tokens.mask[:, :longest, None]
    torch.testing.assert_close(tokens.vectors[:, :longest] * own, expected * own)


def test_it_stays_as_it_is_and_is_not_written_down(root: Path, tmp_path: Path) -> None:
    """A prior learns beside it; its checkpoint has the hash alone, and opens only with the same weights."""
    before = sha256(root / WEIGHTS)
    stage = PriorStage(prior_of(root))
    optimization = Optimization(stage, PriorTrainerOptions(steps=2, ema=0.5))
    caption = CAPTION.encoded("a red star").expand(3, -1)
    codes = torch.arange(12).view(3, 1, 4) % 5
    for _ in range(2):
        stage(codes, {"caption": caption}).loss.backward()
        optimization.update()
    save(tmp_path, optimization, {}, keep=1)
    kept = newest(tmp_path, [])
    assert kept is not None
    names = [name for name in kept.shapes() if "conditioners" in name]
    assert [name.rpartition(".")[2] for name in names] == ["digest"]
    again = PriorStage(prior_of(root))
    kept.load_weights(again, averaged=False)
    losses = [each.eval().losses(codes, {"caption": caption}) for each in (stage, again)]
    assert torch.equal(*losses)
    assert sha256(root / WEIGHTS) == before


def test_other_weights_are_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    prior, other = prior_of(root), prior_of(encoder(tmp_path_factory, seed=1))
    with pytest.raises(ToolkitError) as error:
        other.load_state_dict(prior.state_dict())
    assert_names(str(error.value), f"conditioner=byt5 root= … byt5-1 … {sha256(root / WEIGHTS)}")


def test_a_folder_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=WHY)
    with pytest.raises(ToolkitError) as error:
        prior_of(tmp_path / "gone")
    assert_names(str(error.value), "prior.conditioner=byt5: root= … gone … no config.json … save_pretrained")


def test_a_folder_of_something_else_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of another vocabulary, for which there is no tokenizer; and of no weights."""
    with pytest.raises(ToolkitError) as error:
        prior_of(encoder(tmp_path_factory, vocabulary=1000))
    assert_names(str(error.value), "prior.conditioner=byt5: root= … vocabulary has 1000 tokens … ByT5 … tokenizer")
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / "config.json").write_bytes((root / "config.json").read_bytes())
    some = {name: tensor for name, tensor in load_file(root / WEIGHTS).items() if "layer_norm" not in name}
    for content, told in ((b"nothing", "header"), (as_bytes(some, {"format": "pt"}), "layer_norm.weight is not there")):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ToolkitError) as error:
            prior_of(folder)
        assert_names(str(error.value), f"prior.conditioner=byt5: root= … holds no T5 encoder … {told}")


def test_without_transformers_it_says_what_to_install(tmp_path: Path) -> None:
    for name in ("config.json", WEIGHTS):
        (tmp_path / name).write_text("{}")
    with patch.dict("sys.modules", {"transformers": None}), pytest.raises(ToolkitError) as error:
        prior_of(tmp_path)
    assert_names(str(error.value), "prior.conditioner=byt5: it needs transformers … [text]")


@pytest.mark.usefixtures("toys")
def test_a_run_finds_the_folder_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a prior that is inside another, too; its configuration has the whole path."""
    monkeypatch.chdir(tmp_path)
    for prior, inner in (("transformer", "prior"), ("factored", "prior.inner")):
        chosen = [] if inner == "prior" else ["prior.inner=transformer"]
        words = [f"prior={prior}", *chosen, f"{inner}.conditioner=byt5", f"{inner}.conditioner.root=theirs"]
        options = with_absolute_paths(compose([*TILES, *VQ, *words]).config).values()["prior"]
        own = options if inner == "prior" else options["inner"]
        assert own["conditioner"] == {"name": "byt5", "root": str(tmp_path / "theirs")}


def test_what_training_takes_has_it(root: Path) -> None:
    """It is in the memory of a step, though no part of the prior's state."""
    codes = {"x": torch.zeros(2, 1, 4, dtype=torch.int64), "caption": torch.zeros(2, CAPTION.size, dtype=torch.uint8)}
    prior = prior_of(root)
    memory = step_memory(PriorStage(prior), codes, PriorTrainerOptions(steps=2))
    own = sum(t.numel() * t.element_size() for t in (*prior.parameters(), *prior.buffers()))
    assert memory.weights == own + sum(tensor.numel() * 4 for tensor in load_file(root / WEIGHTS).values())


def test_a_device_is_asked_nothing(root: Path) -> None:
    """Its vectors there are the CPU's, and texts of any lengths are read without a question."""
    text = torch.stack([CAPTION.encoded(text) for text in TEXTS])
    expected = ByT5Conditioner(CAPTION, root=str(root)).eval()(text)
    with stand_in() as gpu:
        conditioner, there = ByT5Conditioner(CAPTION, root=str(root)).eval().to("cuda"), text.to("cuda")
        before = gpu.waits.total()
        tokens = conditioner(there)
        assert gpu.waits.total() == before, f"it waits for the device: {dict(gpu.waits)}"
        assert tokens.vectors.is_cuda
        assert torch.equal(tokens.vectors.cpu(), expected.vectors)
        assert torch.equal(tokens.mask.cpu(), expected.mask)
