"""The frozen encoder of a ByT5 model, from a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from toolkit.conditioner import Conditioner, Tokens
from toolkit.device import in_float32
from toolkit.errors import ToolkitError
from toolkit.spec import Condition

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FIRST, END = 3, 1
"""Of its vocabulary: the token of byte 0, and that which ends a text; 0 is padding."""
TOKENS = 256 + FIRST


@final
class ByT5Conditioner(Conditioner):
    """A ByT5 encoder (Xue et al. 2022, arXiv:2105.13626) that was trained by others and stays as it is.

    Its tokens are bytes, as a text is here, so that no vocabulary goes with it. It is read from a folder that
    transformers wrote (``save_pretrained``), of safetensors alone, and is not written into checkpoints: a run keeps a
    hash of it, and is refused where the folder holds another one. The prior learns a linear map of its vectors.

    Args:
        root: the folder, with ``config.json`` and ``model.safetensors``.
    """

    path_options = ("root",)
    digest: Tensor

    def __init__(self, condition: Condition, *, root: str) -> None:
        super().__init__()
        self.root = root
        folder = Path(root).expanduser()
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(
                    f"root={root}: there is no {name}: give the folder of a ByT5 encoder, as transformers'"
                    " save_pretrained writes it"
                )
        with (folder / WEIGHTS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))
        encoder, self.dim = _opened(root)
        self._encoder = (encoder,)  # in a tuple, it is no part of the state, and no parameter of anybody's

    @torch.no_grad()
    def forward(self, text: Tensor) -> Tokens:
        lengths = (text != 0).sum(1, keepdim=True)
        places = torch.arange(text.shape[1] + 1, device=text.device)
        ids = torch.cat((text.long() + FIRST, text.new_zeros(len(text), 1, dtype=torch.long)), 1)
        ids = torch.where(places < lengths, ids, torch.where(places == lengths, END, 0))
        mask = places <= lengths
        encoder = self._encoder[0]
        if next(encoder.parameters()).device != text.device:  # a prior that is sharded was not moved as a module is
            encoder.to(text.device)
        with in_float32(text.device):
            seen = encoder(input_ids=ids, attention_mask=mask[:, None, None])
        return Tokens(seen.last_hidden_state, mask)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and converts the encoder, too."""
        self._encoder[0]._apply(fn)
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state.get(f"{prefix}digest")
        if saved is not None and not torch.equal(saved.cpu(), self.digest.cpu()):
            raise ToolkitError(
                f"conditioner=byt5 root={self.root}: its {WEIGHTS} is not that which this prior was trained with:"
                f" that one's sha256 is {bytes(saved.tolist()).hex()}"
            )
        super()._load_from_state_dict(state, prefix, *rest)  # type: ignore[arg-type]


def _opened(root: str) -> tuple[nn.Module, int]:
    """The encoder, frozen, and the channels of its vectors.

    ValueError where it is none of bytes, or transformers is not there.
    """
    try:
        from transformers import T5Config, T5EncoderModel  # type: ignore[import-not-found]
        from transformers.utils import logging  # type: ignore[import-not-found]
    except ImportError as e:
        raise ValueError("it needs transformers: pip install 'discrete-toolkit[text]'") from e
    folder = Path(root).expanduser()
    logging.disable_progress_bar()
    try:
        config = T5Config.from_pretrained(folder, local_files_only=True)
        options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
        encoder, told = T5EncoderModel.from_pretrained(folder, config=config, output_loading_info=True, **options)
        if told["missing_keys"]:  # transformers would draw them at random
            raise ValueError(f"{min(told['missing_keys'])} is not there")
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
        raise ValueError(f"root={root}: it holds no T5 encoder: {str(e).splitlines()[0]}") from e
    if not TOKENS <= config.vocab_size < 2 * TOKENS:
        raise ValueError(
            f"root={root}: its vocabulary has {config.vocab_size} tokens, and one of bytes 384: others than ByT5 need a"
            " tokenizer, which is not read"
        )
    return encoder.eval().requires_grad_(False), int(config.d_model)
