"""Models as the cost model sees them: sizes, weights, keys and values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import ModuleList
from transformers import AutoModelForCausalLM, PretrainedConfig

from mspeckv.kv.kinds import names_of
from mspeckv.kv.shape import KVShape
from mspeckv.models.experts import Experts, experts_of, is_routed
from mspeckv.models.packed import BITS, OUTER_BITS, packed_bytes
from mspeckv.models.widths import layer_widths
from mspeckv.settings import check_choice, refuse


@dataclass(frozen=True)
class ModelShape:
    """What a decoder costs, whatever its weights say.

    Attributes:
        name: as in `MODELS`, or the configuration's.
        source: where the sizes come from.
        layers: decoder layers, of every kind.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
        heads: query heads.
        kv_heads: KV heads H.
        head_dim: head dim D.
        layer_params: weights of one layer, a mean over its kinds; a pass reads each once, but for
            experts that it does not choose.
        own_params: all weights that this model holds alone, each counted once; a draft that
            shares its target's embedding and head holds only its layers.
        windows: layers that keep the last ``window`` tokens only.
        window: tokens that those keep.
        states: layers that keep a recurrent state of ``state_size`` float32 numbers.
        state_size: of one such layer.
        beside: how many of those attend as well, so that they grow.
        latent: numbers that a layer keeps of a token where its heads share one compressed form;
            0 where each KV head keeps keys and values.
        experts: None where every token reads all weights.
        weights: how they are held, as `mspeckv.load_pair` is told.
    """

    name: str
    source: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    layer_params: int
    own_params: int
    windows: int = 0
    window: int = 0
    states: int = 0
    state_size: int = 0
    beside: int = 0
    latent: int = 0
    experts: Experts | None = None
    weights: str = "float"

    def __post_init__(self) -> None:
        check_choice("weights", self.weights, tuple(BITS))

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelShape:
        """The shape of any transformers decoder; weights are counted on one that holds no memory.

        Raises:
            ValueError: transformers knows no causal decoder of this configuration, or its layers
                are of a kind that is not modelled.
        """
        text = config.get_text_config()
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(text)
            kv, (hidden, intermediate) = KVShape.of(config, torch.float16), layer_widths(config)
        except (AttributeError, ValueError) as error:
            allowed = f"use a causal decoder with attention ({error})"
            raise refuse("model", text.model_type, allowed) from None
        stacks = (part for part in model.modules() if isinstance(part, ModuleList))
        stack = next(part for part in stacks if len(part) == kv.depth)
        routed = sum(w.numel() for name, w in stack.named_parameters() if is_routed(name))
        return cls(
            name=str(getattr(config, "_name_or_path", "") or config.model_type),
            source="a transformers configuration",
            layers=kv.depth,
            hidden=hidden,
            intermediate=intermediate,
            heads=int(text.num_attention_heads),
            kv_heads=int(text.num_key_value_heads) if kv.latent else kv.heads,
            head_dim=int(text.qk_head_dim) if kv.latent else kv.dim,
            vocab=int(text.vocab_size),
            layer_params=round(sum(w.numel() for w in stack.parameters()) / kv.depth),
            own_params=sum(weight.numel() for weight in model.parameters()),
            latent=2 * kv.dim if kv.latent else 0,
            experts=experts_of(text, routed, kv.depth),
            **_kinds(text),
        )  # fmt: skip

    @property
    def growing(self) -> int:
        """Layers that keep every token: those that a policy places, and that pay for it."""
        return self.layers - self.windows - self.states + self.beside

    @property
    def described(self) -> str:
        """Which layers grow, where not all do; else nothing."""
        kept = [f"{self.windows} keep {self.window:,} tokens"] if self.windows else []
        kept += [f"{self.states} keep a state"] if self.states else []
        return ", ".join([f"{self.growing} of {self.layers} layers grow", *kept]) if kept else ""

    @property
    def head_params(self) -> int:
        """Weights of the last product, to the vocabulary; shared with the embedding or not."""
        return self.vocab * self.hidden

    @property
    def product_params(self) -> int:
        """Weights of linear products, this model's own: without norms and the embedding."""
        layers = self.layers * self.layer_params
        has_head = self.own_params > layers + self.hidden
        return layers - 2 * self.layers * self.hidden + (self.head_params if has_head else 0)

    def read_params(self, tokens: Any = 1) -> Any:
        """Weights of a layer that a pass over ``tokens`` tokens reads."""
        if self.experts is None:
            return self.layer_params
        left = self.experts.count - self.experts.read(tokens)
        return self.layer_params - self.experts.params * left

    def layer_bytes(self, dtype: torch.dtype, tokens: Any = 1) -> Any:
        """Bytes of a layer's weights that a pass over ``tokens`` tokens reads.

        Norms and experts are never packed (`mspeckv.models.packed.pack_model`).
        """
        read, bits = self.read_params(tokens), BITS[self.weights]
        if bits is None:
            return read * dtype.itemsize
        experts = self.experts
        floats = 2 * self.hidden + (experts.params * experts.read(tokens) if experts else 0)
        return (read - floats) * packed_bytes(bits) + floats * dtype.itemsize

    def outer_bytes(self, dtype: torch.dtype, params: Any) -> Any:
        """Bytes of so many ``params`` of an embedding or a head."""
        return params * (dtype.itemsize if self.weights == "float" else packed_bytes(OUTER_BITS))

    def read_bytes(self, dtype: torch.dtype) -> Any:
        """Bytes of all weights that a pass over one token reads: of layers and head."""
        return self.layers * self.layer_bytes(dtype) + self.outer_bytes(dtype, self.head_params)

    def own_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of all weights that this model holds alone, each counted once."""
        outer = self.own_params - self.layers * self.layer_params - self.hidden
        layers = self.layers * self.layer_bytes(dtype, np.inf)
        whole: int = round(layers + self.outer_bytes(dtype, outer) + self.hidden * dtype.itemsize)
        return whole

    def kv(self, dtype: torch.dtype) -> KVShape:
        """KV of the layers that grow; a latent is a key and a value of half of its numbers."""
        if self.latent:
            return KVShape(self.growing, 1, self.latent // 2, dtype, latent=True)
        return KVShape(self.growing, self.kv_heads, self.head_dim, dtype)

    def window_bytes(self, dtype: torch.dtype, tokens: Any, slack: Any = 0) -> Any:
        """What layers with a window keep of ``tokens`` tokens, with room for guesses of ``slack``.

        The room is that of `mspeckv.kv.windows.window_slots`.
        """
        slots = np.minimum(tokens, self.window + 2 * slack)
        return self.windows * slots * self.kv(dtype).token_bytes

    @property
    def state_bytes(self) -> int:
        """What recurrent layers keep, however long the text."""
        return self.states * self.state_size * torch.float32.itemsize


_WINDOWS = frozenset({"sliding_attention", "chunked_attention"})
_STATES = frozenset({"linear_attention", "mamba", "conv"})
"""Kinds of layers that keep a state, and nothing else."""


def _kinds(text: PretrainedConfig) -> dict[str, Any]:
    """How many layers keep a window or a state, and how much."""
    kinds, size = Counter(names_of(text)), _state_values(text)
    known = {"hybrid", *_STATES} if size is not None else set()
    both = kinds["hybrid"] if known else 0
    states = sum(kinds.pop(kind, 0) for kind in known)
    kept = sum(kinds.pop(kind, 0) for kind in _WINDOWS)
    other = sorted(kinds.keys() - {"full_attention", "attention"})
    if other or not kinds.total() + both:
        reason = f"{', '.join(other)} layers are not modelled" if other else "no layer's KV grows"
        raise refuse("model", text.model_type, reason)
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    return {
        "windows": kept,
        "window": int(window or 0) if kept else 0,
        "states": states,
        "state_size": size if states else 0,
        "beside": both,
    }


def _state_values(text: Any) -> int | None:
    """Numbers that one of a text model's recurrent layers keeps; None where that is not known.

    Each kind is known by a setting that only such models have. What a convolution looks back on is
    part of a state.
    """
    if hasattr(text, "linear_num_key_heads"):
        # gated delta rule: a matrix for each value head
        keys, width = text.linear_num_key_heads, text.linear_key_head_dim
        inner = text.linear_num_value_heads * text.linear_value_head_dim
        return int(inner * width + (2 * keys * width + inner) * text.linear_conv_kernel_dim)
    if hasattr(text, "mamba_n_heads"):
        # Mamba 2: a matrix for each head
        inner, size = text.mamba_n_heads * text.mamba_d_head, text.mamba_d_state
        return int(inner * size + (inner + 2 * text.mamba_n_groups * size) * text.mamba_d_conv)
    if hasattr(text, "mamba_d_state"):
        # Mamba: states of each inner channel
        return int(text.mamba_expand * text.hidden_size * (text.mamba_d_state + text.mamba_d_conv))
    return int(text.hidden_size * text.conv_L_cache) if hasattr(text, "conv_L_cache") else None
