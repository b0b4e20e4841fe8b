"""Transformers' look-ups of attention and masks, answered by thread.

A model asks for its attention by name in every layer. In a thread that is inside a pass of ours the
answer is the pass's own attention (`mspeckv.context.Pass.attend`); for everyone else it is what it
would have been, and no model's configuration is touched. A model that is being compiled gets its
own as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from mspeckv.context import Attention, Pass, current

_UNSUPPORTED = ("softcap", "sliding_window", "position_bias", "s_aux")


def check_options(mask: torch.Tensor | None, options: Mapping[str, Any]) -> None:
    """Refuse what the stock kernel, asked for plain causal attention, would not do exactly.

    Raises:
        ValueError: a padding mask, soft-capped scores, a window, and the like.
    """
    asked = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if asked or mask is not None:
        raise ValueError(
            f"attention: {asked or 'a padding mask'} is not allowed; use a decoder with plain "
            "causal attention and an unpadded prompt"
        )


def index_of(module: torch.nn.Module) -> int:
    """The layer that an attention module belongs to."""
    index = module.layer_idx
    assert isinstance(index, int)
    return index


def _ours() -> Pass | None:
    return None if torch.compiler.is_compiling() else current()


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The engine's passes are never padded, and their attention knows which keys come when."""


def _answer_by_thread() -> None:
    own_attention, own_mask = AttentionInterface.get_interface, AttentionMaskInterface.__getitem__

    def attention(self: AttentionInterface, name: str, default: Attention) -> Attention:
        now = _ours()
        return now.attend if now is not None else own_attention(self, name, default)

    def mask(self: AttentionMaskInterface, name: str) -> Callable[..., Any]:
        return _no_mask if _ours() is not None else own_mask(self, name)

    AttentionInterface.get_interface = attention
    AttentionMaskInterface.__getitem__ = mask


_answer_by_thread()
