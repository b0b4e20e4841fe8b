"""Shapes of well-known models, by name: closed forms over the numbers of their ``config.json``.

Weights and keys count in the machine's dtype, whatever a model is published in (gpt-oss: its
experts in 4 bits). Heads that guess several tokens at once (DeepSeek, Qwen3-Next) are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from mspeckv.models.experts import Experts
from mspeckv.models.gguf_file import GGUFFile
from mspeckv.models.packed import form_of
from mspeckv.settings import refuse
from mspeckv.whatif.shapes import ModelShape

_Sizes = tuple[int, int, int, int, int, int]
"""Layers, hidden, intermediate, heads, KV heads, vocabulary."""


def _shape(
    name: str,
    repository: str,
    sizes: _Sizes,
    params: float,
    *,
    dim: int | None = None,
    tied: bool = False,
    **kinds: Any,
) -> ModelShape:
    """A model whose layers have ``params`` weights in all; ``tied``: head and embedding are one."""
    layers, hidden, _, heads, _, vocab = sizes
    own = round(params) + vocab * hidden * (1 if tied else 2) + hidden
    source, head_dim = f"config.json of {repository}", dim or hidden // heads
    return ModelShape(
        name, source, *sizes[:5], head_dim, vocab, round(params / layers), own, **kinds
    )


def _attention(sizes: _Sizes, dim: int | None = None, gates: int = 1) -> int:
    """Weights of a layer's four products; ``gates`` widths of queries."""
    _, hidden, _, heads, kv_heads, _ = sizes
    return hidden * (dim or hidden // heads) * (heads * (1 + gates) + 2 * kv_heads)


def _dense(
    name: str,
    repository: str,
    sizes: _Sizes,
    *,
    dim: int | None = None,
    norms: int = 2,
    head_norms: bool = False,
    bias: bool = False,
    **more: Any,
) -> ModelShape:
    """A decoder with gated MLPs and RMS norms.

    Args:
        norms: of the residual stream, in a layer.
        head_norms: whether queries and keys have one.
        bias: whether the q, k and v products have one.
    """
    layers, hidden, intermediate, heads, kv_heads, _ = sizes
    width = dim or hidden // heads
    layer = _attention(sizes, dim) + 3 * hidden * intermediate + norms * hidden
    layer += 2 * width * head_norms + (heads + 2 * kv_heads) * width * bias
    return _shape(name, repository, sizes, layers * layer, dim=dim, **more)


def _qwen3_moe() -> ModelShape:
    sizes = 48, 2048, 6144, 32, 4, 151936
    experts = Experts(128, 8, 3 * 2048 * 768)
    layer = _attention(sizes, 128) + 2 * 128 + 128 * (experts.params + 2048) + 2 * 2048
    return _shape(
        "qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", sizes, 48 * layer, dim=128, experts=experts
    )


def _gpt_oss(name: str, layers: int, count: int) -> ModelShape:
    """Every product has a bias, every head a sink; every other layer keeps 128 tokens."""
    sizes = layers, 2880, 2880, 64, 8, 201088
    experts = Experts(count, 4, 3 * 2880 * 2880 + 3 * 2880)
    layer = _attention(sizes, 64) + (64 + 2 * 8) * 64 + 2880 + 64
    every = count * (experts.params + 2880 + 1) + 2 * 2880
    kinds: dict[str, Any] = {"windows": layers // 2, "window": 128, "experts": experts}
    return _shape(name, f"openai/{name}", sizes, layers * (layer + every), dim=64, **kinds)


def _qwen3_next() -> ModelShape:
    """Three layers of the gated delta rule, then one of attention with a gate, twelve times."""
    sizes = 48, 2048, 5120, 16, 2, 151936
    experts = Experts(512, 10, 3 * 2048 * 512)
    keys, values, channels = 16 * 128, 32 * 128, 2 * 16 * 128 + 32 * 128
    linear = 2048 * (2 * keys + 2 * values + 2 * 32) + 4 * channels + 2 * 32 + 128 + values * 2048
    full = _attention(sizes, 256, gates=2) + 2 * 256
    mlp = 512 * (experts.params + 2048) + 3 * 2048 * 512 + 2048 + 2 * 2048
    return _shape(
        "qwen3-next-80b-a3b", "Qwen/Qwen3-Next-80B-A3B-Instruct", sizes,
        36 * linear + 12 * full + 48 * mlp, dim=256, experts=experts, states=36,
        state_size=32 * 128 * 128 + 4 * channels,
    )  # fmt: skip


def _deepseek_v3() -> ModelShape:
    """Keys and values of all heads come from one latent of 512 numbers and 64 rotary ones."""
    hidden, heads, queries, latent, rotary = 7168, 128, 1536, 512, 64
    one = 3 * hidden * 2048
    mixing = hidden * (queries + latent + rotary) + queries + latent + 128 * heads * hidden
    mixing += heads * (queries * (128 + rotary) + latent * (128 + 128))
    params = 61 * (mixing + 2 * hidden) + 3 * 3 * hidden * 18432
    params += 58 * (257 * one + 256 * hidden)
    return _shape(
        "deepseek-v3", "deepseek-ai/DeepSeek-V3", (61, hidden, 18432, heads, heads, 129280),
        params, dim=128 + rotary, latent=latent + rotary, experts=Experts(256, 8, one * 58 / 61),
    )  # fmt: skip


_LLAMA_3_8B, _LLAMA_3_70B = (32, 4096, 14336, 32, 8, 128256), (80, 8192, 28672, 64, 8, 128256)
_GEMMA_3: dict[str, Any] = {"norms": 4, "head_norms": True, "tied": True, "window": 1024}
_CATALOGUE = (
    _dense("llama-2-7b", "meta-llama/Llama-2-7b-hf", (32, 4096, 11008, 32, 32, 32000)),
    _dense("llama-2-13b", "meta-llama/Llama-2-13b-hf", (40, 5120, 13824, 40, 40, 32000)),
    _dense("llama-3-8b", "meta-llama/Meta-Llama-3-8B", _LLAMA_3_8B),
    _dense("llama-3-70b", "meta-llama/Meta-Llama-3-70B", _LLAMA_3_70B),
    _dense("llama-3.1-8b", "meta-llama/Llama-3.1-8B", _LLAMA_3_8B),
    _dense("llama-3.1-70b", "meta-llama/Llama-3.1-70B", _LLAMA_3_70B),
    _dense("qwen2.5-7b", "Qwen/Qwen2.5-7B", (28, 3584, 18944, 28, 4, 152064), bias=True),
    _dense(
        "qwen3-8b", "Qwen/Qwen3-8B", (36, 4096, 12288, 32, 8, 151936), dim=128, head_norms=True
    ),
    _qwen3_moe(),
    _qwen3_next(),
    _dense("mistral-7b", "mistralai/Mistral-7B-v0.3", (32, 4096, 14336, 32, 8, 32768)),
    _dense(
        "mistral-small-24b", "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        (40, 5120, 32768, 32, 8, 131072), dim=128,
    ),
    _dense(
        "gemma-3-12b", "google/gemma-3-12b-it", (48, 3840, 15360, 16, 8, 262208), dim=256,
        windows=40, **_GEMMA_3,
    ),
    _dense(
        "gemma-3-27b", "google/gemma-3-27b-it", (62, 5376, 21504, 32, 16, 262208), dim=128,
        windows=52, **_GEMMA_3,
    ),
    _gpt_oss("gpt-oss-20b", 24, 32),
    _gpt_oss("gpt-oss-120b", 36, 128),
    _deepseek_v3(),
    _dense("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", (30, 576, 1536, 9, 3, 49152), tied=True),
    _dense("llama-68m", "JackFram/llama-68m", (2, 768, 3072, 12, 12, 32000)),
)  # fmt: skip
MODELS = {shape.name: shape for shape in _CATALOGUE}
"""Catalogue by name; the last is the origin's draft."""

_DRAFTS = {"llama-2-7b": "llama-68m", "llama-2-13b": "llama-68m"}


def model_shape(model: str | ModelShape | PretrainedConfig | PreTrainedModel) -> ModelShape:
    """A shape by its name in `MODELS`, from a folder with a ``config.json``, or as it is.

    Of a loaded model it says how its weights are held.

    Raises:
        ValueError: neither a name of the catalogue nor a folder.
    """
    if isinstance(model, ModelShape):
        return model
    if isinstance(model, PreTrainedModel):
        return replace(ModelShape.of(model.config), weights=form_of(model))
    if isinstance(model, PretrainedConfig):
        return ModelShape.of(model)
    known = MODELS.get(str(model).lower())
    if known is not None:
        return known
    try:
        if str(model).endswith(".gguf"):
            return ModelShape.of(GGUFFile(Path(model).expanduser()).config)
        return ModelShape.of(AutoConfig.from_pretrained(model, local_files_only=True))
    except (OSError, ValueError):
        names = ", ".join(MODELS)
        allowed = f"use one of {names}, a model's folder or a GGUF file"
        raise refuse("model", model, allowed) from None


def draft_shape(target: ModelShape, draft: str | ModelShape | None) -> ModelShape | None:
    """Tier 0's shape: the catalogue's draft for ``"default"``, else two layers that share.

    Beside packed weights it has its own in 8 bits, as `mspeckv.load_pair` packs it.
    """
    if draft is None or draft == "none":
        return None
    known = _DRAFTS.get(target.name) if draft == "default" else draft
    found = target.shared_draft() if known is None else model_shape(known)
    return replace(found, weights="float" if target.weights == "float" else "int8")
