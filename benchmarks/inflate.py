"""A small model in a large model's shape: the function of one, the cost of the other.

Speed on long contexts is a matter of shapes; acceptance is a matter of what a model says. Where no
large model's weights are at hand, `inflate` embeds a small one exactly: its channels are the first
of a wider residual stream, its heads the first of more and wider heads, its layers the first of
more. What is left over has random weights on the way in, so that idle heads keep real keys and
values and every product is computed, and zeros on the way out, so that nothing of it is heard.

Three scales must be made up for. A norm divides by the root mean square over all channels, of which
only ``h`` of ``H`` are not zero, so weights shrink by ``sqrt(h / H)`` and epsilon by ``h / H``.
Scores are divided by ``sqrt(D)`` instead of ``sqrt(d)``, so queries grow by ``sqrt(D / d)``. Rotary
frequencies ``theta ** (-2 i / d)`` are ``(theta ** (D / d)) ** (-2 i / D)``, so the first ``d / 2``
pairs of a wider head turn as before with another theta.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mspeckv.settings import refuse

_SPREAD = 0.02
"""Standard deviation of idle weights: that of Llama's initialization."""


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a Llama-like decoder with as many KV heads as query heads.

    Attributes:
        layers: decoder layers.
        heads: query heads, and KV heads.
        head_dim: channels per head.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
    """

    layers: int
    heads: int
    head_dim: int
    hidden: int
    intermediate: int


LLAMA_2_7B = DecoderShape(layers=32, heads=32, head_dim=128, hidden=4096, intermediate=11008)


def stretch(model: PreTrainedModel, positions: int) -> PreTrainedModel:
    """``model`` with rotary embeddings for ``positions`` tokens: YaRN (arXiv 2309.00071).

    Weights are shared with ``model``, which stays as it was.

    Raises:
        ValueError: not a Llama with default rotary embeddings.
    """
    config = copy.deepcopy(_llama_config(model))
    original = int(config.max_position_embeddings)
    if positions > original:
        config.rope_parameters = {
            **config.rope_parameters,
            "rope_type": "yarn",
            "factor": positions / original,
            "original_max_position_embeddings": original,
        }
        config.max_position_embeddings = positions
    with torch.device("meta"):
        out = LlamaForCausalLM(config)
    out.load_state_dict(model.state_dict(), assign=True)
    # rotary frequencies are in no state dict
    out.model.rotary_emb = type(out.model.rotary_emb)(config).to(model.device)
    out.tie_weights()
    out.generation_config = copy.deepcopy(model.generation_config)
    return out.eval().requires_grad_(False)


@torch.no_grad()
def inflate(
    model: PreTrainedModel, shape: DecoderShape = LLAMA_2_7B, *, seed: int = 0
) -> PreTrainedModel:
    """``model`` embedded exactly in ``shape``, on its device and in its dtype.

    Logits are the small model's up to rounding, so acceptance is too; memory, KV bytes and time
    are those of ``shape``. Say so wherever such a figure is shown.

    Args:
        model: a Llama without biases.
        shape: at least as large in every respect.
        seed: of the idle weights.

    Raises:
        ValueError: the model is of another kind, or does not fit into the shape.
    """
    small = _llama_config(model)
    heads, kv_heads = small.num_attention_heads, small.num_key_value_heads
    dim = getattr(small, "head_dim", None) or small.hidden_size // heads
    _check_fit(small, dim, shape)
    config = copy.deepcopy(small)
    config.update(
        {
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "head_dim": shape.head_dim,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "rms_norm_eps": small.rms_norm_eps * small.hidden_size / shape.hidden,
            "tie_word_embeddings": False,
        }
    )
    theta = small.rope_parameters["rope_theta"] ** (shape.head_dim / dim)
    config.rope_parameters = {**small.rope_parameters, "rope_theta": theta}
    with torch.device("meta"):
        out = LlamaForCausalLM(config)
    out = out.to(model.dtype).to_empty(device=model.device)
    out.model.rotary_emb = type(out.model.rotary_emb)(config).to(model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    for name, weight in out.named_parameters():
        _idle(name, weight, generator)
    wider, taller = _Channels(small.hidden_size, shape.hidden), _Heads(heads, dim, shape.head_dim)
    for layer, own in zip(out.model.layers, model.model.layers, strict=False):
        _embed_attention(layer.self_attn, own.self_attn, wider, taller, heads // kv_heads)
        inner = own.mlp.gate_proj.weight.shape[0]
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight[:inner, : wider.own] = getattr(own.mlp, name).weight
        layer.mlp.down_proj.weight[: wider.own, :inner] = own.mlp.down_proj.weight
        for name in ("input_layernorm", "post_attention_layernorm"):
            wider.norm(getattr(layer, name).weight, getattr(own, name).weight)
    wider.norm(out.model.norm.weight, model.model.norm.weight)
    for table, given in ((out.model.embed_tokens, model.model.embed_tokens),
                         (out.lm_head, model.lm_head)):  # fmt: skip
        table.weight[:, : wider.own] = given.weight
    out.generation_config = copy.deepcopy(model.generation_config)
    return out.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Channels:
    """The residual stream: ``own`` channels of ``all``."""

    own: int
    all: int

    def norm(self, weight: torch.Tensor, given: torch.Tensor) -> None:
        weight[: self.own] = given.float() * (self.own / self.all) ** 0.5


@dataclass(frozen=True)
class _Heads:
    """``own`` heads of ``dim`` channels, in heads of ``wide`` channels."""

    own: int
    dim: int
    wide: int

    def rotated(self, device: torch.device) -> torch.Tensor:
        """Channels of a wide head that turn as the narrow one's do: both halves' first."""
        half = torch.arange(self.dim // 2, device=device)
        return torch.cat([half, half + self.wide // 2])


def _idle(name: str, weight: torch.Tensor, generator: torch.Generator) -> None:
    """Weights that the small model does not fill: random on the way in, zero on the way out."""
    if "norm" in name:
        weight.fill_(1.0)
    elif any(part in name for part in ("o_proj", "down_proj", "embed_tokens", "lm_head")):
        weight.zero_()
    else:
        weight.normal_(0.0, _SPREAD, generator=generator)


def _embed_attention(big: Any, own: Any, stream: _Channels, heads: _Heads, groups: int) -> None:
    """The small model's heads; each of its KV heads once per query head."""
    device = own.q_proj.weight.device
    rotated, plain = heads.rotated(device), torch.arange(heads.dim, device=device)
    factors = {"q_proj": (heads.wide / heads.dim) ** 0.5, "k_proj": 1.0, "v_proj": 1.0}
    for name, factor in factors.items():
        given = getattr(own, name).weight.unflatten(0, (-1, heads.dim)).float() * factor
        if name != "q_proj":
            given = given.repeat_interleave(groups, 0)
        weight = getattr(big, name).weight.unflatten(0, (-1, heads.wide))
        weight[: heads.own] = 0.0
        place = plain if name == "v_proj" else rotated
        weight[: heads.own, place, : stream.own] = given.to(weight.dtype)
    out = big.o_proj.weight.unflatten(1, (-1, heads.wide))
    out[: stream.own, : heads.own, : heads.dim] = own.o_proj.weight.unflatten(1, (-1, heads.dim))


def _llama_config(model: PreTrainedModel) -> LlamaConfig:
    config = model.config
    if not isinstance(config, LlamaConfig):
        raise refuse("model", type(model).__name__, "use a Llama: its parts are known by name")
    if config.attention_bias or config.mlp_bias:
        raise refuse("model", type(model).__name__, "use a Llama without biases")
    return config


def _check_fit(small: LlamaConfig, dim: int, shape: DecoderShape) -> None:
    """Every size of ``shape`` must hold the model's."""
    sizes = {
        "layers": small.num_hidden_layers,
        "heads": small.num_attention_heads,
        "head_dim": dim,
        "hidden": small.hidden_size,
        "intermediate": small.intermediate_size,
    }
    for name, least in sizes.items():
        if getattr(shape, name) < least:
            raise refuse(f"shape.{name}", getattr(shape, name), f"the model needs {least}")
