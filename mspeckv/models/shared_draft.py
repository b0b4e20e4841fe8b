"""Drafts that borrow the target's embedding and head: a few layers of the target's shape.

The embedding and head *are* the target's tensors, so such a draft adds only its layers: 7.08 M
weights for the shipped one of two layers, ``tools/train_draft.py`` makes others.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from transformers import PreTrainedModel

from mspeckv.settings import refuse

DEFAULT_DRAFT = "draft-smollm2-2layer"
REINSTALL = "run: pip install --force-reinstall --no-deps mspeckv"
"""What mends a file of this package."""
SHARED = frozenset({"model.embed_tokens.weight", "lm_head.weight"})
"""The target's own tensors."""


def shared_draft(
    target: PreTrainedModel, layers: int, weights: Mapping[str, torch.Tensor] | None = None
) -> PreTrainedModel:
    """A draft of ``layers`` layers over the target's own embedding and head.

    Args:
        target: a Llama-like model: ``model.layers``, ``model.embed_tokens``, ``lm_head``.
        layers: how many layers of its own.
        weights: tensors by name, without embedding and head; None copies the target's first
            layers and its final norm, to be trained.

    Raises:
        ValueError: the target is built in another way, or the weights have other shapes.
    """
    inner = getattr(target, "model", None)
    parts = [getattr(inner, name, None) for name in ("layers", "embed_tokens", "rotary_emb")]
    if any(part is None for part in parts) or target.get_output_embeddings() is None:
        raise refuse("target", type(target).__name__, "use a Llama-like decoder for this draft")
    config = copy.deepcopy(target.config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    # Built without memory, so that the embedding never exists twice.
    with torch.device("meta"):
        draft: PreTrainedModel = type(target)(config)
    # Loading by assignment gives a tensor the flag of the one it replaces.
    draft.requires_grad_(False)
    wanted = {name: weight.shape for name, weight in own_weights(draft).items()}
    if weights is None:
        weights = {name: target.get_parameter(name) for name in wanted}
    if {name: weight.shape for name, weight in weights.items()} != wanted:
        raise refuse("draft", f"{layers} layers", "its weights do not fit this target's shape")
    moved = {
        name: weight.detach().to(target.device, target.dtype, copy=True)
        for name, weight in weights.items()
    }
    draft.load_state_dict(moved, strict=False, assign=True)
    draft.set_input_embeddings(target.get_input_embeddings())
    draft.set_output_embeddings(target.get_output_embeddings())
    # Rotary frequencies are buffers that no file holds; the target's are the same.
    draft.model.rotary_emb = copy.deepcopy(target.model.rotary_emb)
    return draft


def own_weights(draft: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What is the draft's alone, by name."""
    return {name: weight for name, weight in draft.named_parameters() if name not in SHARED}


def load_shared_draft(target: PreTrainedModel, path: Path) -> PreTrainedModel:
    """A draft from a file of its own weights.

    Raises:
        ValueError: no such file, or weights of another shape.
    """
    try:
        weights = load_file(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise refuse("draft", str(path), f"use a readable safetensors file ({error})") from error
    return shared_draft(target, _count_layers(weights), weights)


def default_draft(target: PreTrainedModel) -> PreTrainedModel:
    """The shipped draft, distilled for SmolLM2-135M-Instruct.

    Raises:
        ValueError: the target has another shape, or the shipped file is damaged.
    """
    path = resources.files("mspeckv") / "data" / f"{DEFAULT_DRAFT}.safetensors"
    try:
        weights = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise refuse("draft", "default", f"its file is damaged: {REINSTALL} ({error})") from error
    try:
        return shared_draft(target, _count_layers(weights), weights)
    except ValueError as error:
        allowed = "it was made for SmolLM2-135M-Instruct and does not fit this target: "
        allowed += "use draft='none' or a model with the target's vocabulary"
        raise refuse("draft", "default", allowed) from error


def _count_layers(weights: Mapping[str, torch.Tensor]) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith("model.layers.")})
