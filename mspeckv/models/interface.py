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
from mspeckv.kv.kinds import ALL, Sight, kinds_of

_SCORES = ("attn_logit_softcapping", "sinks")
"""What attention modules call a cap of their scores, or their sinks."""


def check_options(mask: torch.Tensor | None, options: Mapping[str, Any]) -> None:
    """Refuse what the engine's attention would not do exactly.

    Raises:
        ValueError: a padding mask, or a bias of positions.
    """
    biased = options.get("position_bias") is not None
    if biased or mask is not None:
        raise ValueError(
            f"attention: {['position_bias'] if biased else 'a padding mask'} is not allowed; use "
            "a decoder with plain causal attention and an unpadded prompt"
        )


def index_of(module: torch.nn.Module) -> int:
    """The layer that an attention module belongs to."""
    index = module.layer_idx
    assert isinstance(index, int), "an attention module does not say whose layer it is"
    return index


def sight_of(module: torch.nn.Module) -> Sight:
    """How far back the queries of an attention module see, as its configuration tells."""
    config = getattr(module, "config", None)
    kinds = kinds_of(config) if getattr(config, "num_hidden_layers", None) else ()
    index = index_of(module)
    return (kinds[index].sight if index < len(kinds) else None) or ALL


def changes_scores(model: torch.nn.Module) -> bool:
    """Whether its attention caps scores or has sinks (`mspeckv.kv.scores`)."""
    return any(
        getattr(module, name, None) is not None for module in model.modules() for name in _SCORES
    )


def _ours() -> Pass | None:
    return None if torch.compiler.is_compiling() else current()


_own_attention, _own_mask = AttentionInterface.get_interface, AttentionMaskInterface.__getitem__


def _attention(self: AttentionInterface, name: str, default: Attention) -> Attention:
    now = _ours()
    return now.attend if now is not None else _own_attention(self, name, default)


def _mask(self: AttentionMaskInterface, name: str) -> Callable[..., Any]:
    now = _ours()
    return now.mask if now is not None else _own_mask(self, name)


AttentionInterface.get_interface, AttentionMaskInterface.__getitem__ = _attention, _mask
