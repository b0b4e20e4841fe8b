"""Models as the cost model sees them: sizes, weights, keys and values."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from mspeckv.decoding.fits import layer_widths
from mspeckv.kv.shape import KVShape
from mspeckv.settings import refuse


@dataclass(frozen=True)
class ModelShape:
    """What a decoder costs, whatever its weights say.

    Attributes:
        name: as in `MODELS`, or the configuration's.
        source: where the sizes come from.
        layers: decoder layers N.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
        heads: query heads.
        kv_heads: KV heads H.
        head_dim: head dim D.
        vocab: tokens.
        layer_params: weights of one layer; a pass reads each once.
        own_params: all weights that this model holds alone, each counted once; a draft that
            shares its target's embedding and head holds only its layers.
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

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelShape:
        """The shape of any transformers decoder with layers of one kind.

        Weights are counted on models of one and of two layers that hold no memory.

        Raises:
            ValueError: transformers knows no causal decoder of this configuration.
        """
        text = config.get_text_config()
        one, two = _parameters(text, 1), _parameters(text, 2)
        kv = KVShape.of(config, torch.float16)
        hidden, intermediate = layer_widths(config)
        return cls(
            name=str(getattr(config, "_name_or_path", "") or config.model_type),
            source="a transformers configuration",
            layers=kv.layers,
            hidden=hidden,
            intermediate=intermediate,
            heads=int(text.num_attention_heads),
            kv_heads=kv.heads,
            head_dim=kv.dim,
            vocab=int(text.vocab_size),
            layer_params=two - one,
            own_params=one + (kv.layers - 1) * (two - one),
        )

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

    def kv(self, dtype: torch.dtype) -> KVShape:
        """Its KV cache."""
        return KVShape(self.layers, self.kv_heads, self.head_dim, dtype)

    def shared_draft(self, layers: int = 2) -> ModelShape:
        """A draft of the same width that shares embedding and head, like the default pair's."""
        return replace(
            self,
            name=f"{self.name}, {layers} layers",
            source="layers of the target's shape over its embedding and head",
            layers=layers,
            # its layers and the last norm
            own_params=layers * self.layer_params + self.hidden,
        )


def _parameters(text: PretrainedConfig, layers: int) -> int:
    """Weights of the decoder cut or grown to ``layers`` layers, tied ones once."""
    small = copy.deepcopy(text)
    small.num_hidden_layers = layers
    for field in ("layer_types", "max_window_layers"):
        if isinstance(getattr(small, field, None), list):
            setattr(small, field, getattr(small, field)[:1] * layers)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(small)
    except ValueError as error:
        raise refuse("model", text.model_type, f"no causal decoder: {error}") from None
    return sum(weight.numel() for weight in model.parameters())


def _llama_like(
    name: str, repository: str, sizes: tuple[int, ...], *, tied: bool = False, bias: bool = False
) -> ModelShape:
    """A decoder with gated MLP and RMS norms.

    Args:
        repository: whose ``config.json`` has the sizes.
        sizes: layers, hidden, intermediate, heads, KV heads, vocabulary.
        tied: whether head and embedding are one.
        bias: whether the q, k and v products have one.
    """
    layers, hidden, intermediate, heads, kv_heads, vocab = sizes
    dim = hidden // heads
    projected = (heads + 2 * kv_heads) * dim
    layer = hidden * projected + heads * dim * hidden + 3 * hidden * intermediate + 2 * hidden
    layer += projected if bias else 0
    own = layers * layer + vocab * hidden * (1 if tied else 2) + hidden
    source = f"config.json of {repository}"
    return ModelShape(
        name, source, layers, hidden, intermediate, heads, kv_heads, dim, vocab, layer, own
    )


_CATALOGUE = (
    _llama_like("llama-2-7b", "meta-llama/Llama-2-7b-hf", (32, 4096, 11008, 32, 32, 32000)),
    _llama_like("llama-2-13b", "meta-llama/Llama-2-13b-hf", (40, 5120, 13824, 40, 40, 32000)),
    _llama_like("llama-3-8b", "meta-llama/Meta-Llama-3-8B", (32, 4096, 14336, 32, 8, 128256)),
    _llama_like("llama-3-70b", "meta-llama/Meta-Llama-3-70B", (80, 8192, 28672, 64, 8, 128256)),
    _llama_like("qwen2.5-7b", "Qwen/Qwen2.5-7B", (28, 3584, 18944, 28, 4, 152064), bias=True),
    _llama_like("mistral-7b", "mistralai/Mistral-7B-v0.3", (32, 4096, 14336, 32, 8, 32768)),
    _llama_like(
        "smollm2-135m", "HuggingFaceTB/SmolLM2-135M", (30, 576, 1536, 9, 3, 49152), tied=True
    ),
    _llama_like("llama-68m", "JackFram/llama-68m", (2, 768, 3072, 12, 12, 32000)),
)
MODELS = {shape.name: shape for shape in _CATALOGUE}
"""Catalogue by name; the last is the origin's draft."""

_DRAFTS = {"llama-2-7b": "llama-68m", "llama-2-13b": "llama-68m"}


def model_shape(model: str | ModelShape | PretrainedConfig) -> ModelShape:
    """A shape by its name in `MODELS`, from a folder with a ``config.json``, or as it is.

    Raises:
        ValueError: neither a name of the catalogue nor a folder.
    """
    if isinstance(model, ModelShape):
        return model
    if isinstance(model, PretrainedConfig):
        return ModelShape.of(model)
    known = MODELS.get(str(model).lower())
    if known is not None:
        return known
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        names = ", ".join(MODELS)
        raise refuse("model", model, f"use one of {names}, or a model's folder") from None
    return ModelShape.of(config)


def draft_shape(target: ModelShape, draft: str | ModelShape | None) -> ModelShape | None:
    """Tier 0's shape: the catalogue's draft for ``"default"``, else two layers that share."""
    if draft is None or draft == "none":
        return None
    if draft == "default":
        known = _DRAFTS.get(target.name)
        return MODELS[known] if known else target.shared_draft()
    return model_shape(draft)
