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
from mspeckv_study.whatif.shapes import ModelShape


def _shape(
    name: str,
    repository: str,
    sizes: tuple[int, int, int, int, int, int],
    params: float | None = None,
    *,
    dim: int | None = None,
    tied: bool = False,
    norms: int = 2,
    head_norms: bool = False,
    bias: bool = False,
    more: int = 0,
    **kinds: Any,
) -> ModelShape:
    """A decoder with RMS norms and gated MLPs, or experts and their router in the place of each.

    Args:
        sizes: layers, hidden, intermediate, heads, KV heads, vocabulary.
        params: weights of all layers, where they are of another kind.
        tied: whether head and embedding are one.
        norms: of the residual stream, in a layer.
        head_norms: whether queries and keys have one.
        bias: whether the q, k and v products have one.
        more: other weights of a layer.
    """
    layers, hidden, intermediate, heads, kv_heads, vocab = sizes
    width, experts = dim or hidden // heads, kinds.get("experts")
    if params is None:
        mlp = experts.count * (experts.params + hidden) if experts else 3 * hidden * intermediate
        layer = 2 * hidden * width * (heads + kv_heads) + mlp + norms * hidden + more
        layer += 2 * width * head_norms + (heads + 2 * kv_heads) * width * bias
        params = layers * layer
    source, own = f"config.json of {repository}", vocab * hidden * (1 if tied else 2) + hidden
    return ModelShape(
        name, source, *sizes[:5], width, vocab, round(params / layers), round(params) + own, **kinds
    )


def _gpt_oss(name: str, layers: int, count: int) -> ModelShape:
    """Every product has a bias, every head a sink; every other layer keeps 128 tokens."""
    return _shape(
        name, f"openai/{name}", (layers, 2880, 2880, 64, 8, 201088), dim=64, bias=True,
        more=2880 + 64 + count, experts=Experts(count, 4, 3 * 2880 * 2880 + 3 * 2880),
        windows=layers // 2, window=128,
    )  # fmt: skip


def _qwen3_next() -> ModelShape:
    """Three layers of the gated delta rule, then one of attention with a gate, twelve times."""
    experts = Experts(512, 10, 3 * 2048 * 512)
    keys, values, channels = 16 * 128, 32 * 128, 2 * 16 * 128 + 32 * 128
    linear = 2048 * (2 * keys + 2 * values + 2 * 32) + 4 * channels + 2 * 32 + 128 + values * 2048
    full = 2048 * 256 * (16 * 3 + 2 * 2) + 2 * 256
    mlp = 512 * (experts.params + 2048) + 3 * 2048 * 512 + 2048 + 2 * 2048
    return _shape(
        "qwen3-next-80b-a3b", "Qwen/Qwen3-Next-80B-A3B-Instruct",
        (48, 2048, 5120, 16, 2, 151936), 36 * linear + 12 * full + 48 * mlp, dim=256,
        experts=experts, states=36, state_size=32 * 128 * 128 + 4 * channels,
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
    _shape("llama-2-7b", "meta-llama/Llama-2-7b-hf", (32, 4096, 11008, 32, 32, 32000)),
    _shape("llama-2-13b", "meta-llama/Llama-2-13b-hf", (40, 5120, 13824, 40, 40, 32000)),
    _shape("llama-3-8b", "meta-llama/Meta-Llama-3-8B", _LLAMA_3_8B),
    _shape("llama-3-70b", "meta-llama/Meta-Llama-3-70B", _LLAMA_3_70B),
    _shape("llama-3.1-8b", "meta-llama/Llama-3.1-8B", _LLAMA_3_8B),
    _shape("llama-3.1-70b", "meta-llama/Llama-3.1-70B", _LLAMA_3_70B),
    _shape("qwen2.5-7b", "Qwen/Qwen2.5-7B", (28, 3584, 18944, 28, 4, 152064), bias=True),
    _shape(
        "qwen3-8b", "Qwen/Qwen3-8B", (36, 4096, 12288, 32, 8, 151936), dim=128, head_norms=True
    ),
    _shape(
        "qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", (48, 2048, 6144, 32, 4, 151936), dim=128,
        head_norms=True, experts=Experts(128, 8, 3 * 2048 * 768),
    ),
    _qwen3_next(),
    _shape("mistral-7b", "mistralai/Mistral-7B-v0.3", (32, 4096, 14336, 32, 8, 32768)),
    _shape(
        "mistral-small-24b", "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        (40, 5120, 32768, 32, 8, 131072), dim=128,
    ),
    _shape(
        "gemma-3-12b", "google/gemma-3-12b-it", (48, 3840, 15360, 16, 8, 262208), dim=256,
        windows=40, **_GEMMA_3,
    ),
    _shape(
        "gemma-3-27b", "google/gemma-3-27b-it", (62, 5376, 21504, 32, 16, 262208), dim=128,
        windows=52, **_GEMMA_3,
    ),
    _gpt_oss("gpt-oss-20b", 24, 32),
    _gpt_oss("gpt-oss-120b", 36, 128),
    _deepseek_v3(),
    _shape("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", (30, 576, 1536, 9, 3, 49152), tied=True),
    _shape("llama-68m", "JackFram/llama-68m", (2, 768, 3072, 12, 12, 32000)),
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
    if str(model).lower() in MODELS:
        return MODELS[str(model).lower()]
    try:
        if str(model).endswith(".gguf"):
            return ModelShape.of(GGUFFile(Path(model).expanduser()).config)
        return ModelShape.of(AutoConfig.from_pretrained(model, local_files_only=True))
    except Exception:  # damaged files end in any kind
        allowed = f"use one of {', '.join(MODELS)}, a model's folder or a GGUF file"
        raise refuse("model", model, allowed) from None


def draft_shape(target: ModelShape, draft: str | ModelShape | None) -> ModelShape | None:
    """Tier 0's shape: the catalogue's draft for ``"default"``, else two layers that share.

    Beside packed weights it has its own in 8 bits, as `mspeckv.load_pair` packs it.
    """
    if draft is None or draft == "none":
        return None
    known = _DRAFTS.get(target.name) if draft == "default" else draft
    weights = "float" if target.weights == "float" else "int8"
    if known is not None:
        return replace(model_shape(known), weights=weights)
    return replace(
        target,
        name=f"{target.name}, 2 layers",
        source="layers of the target's shape over its embedding and head",
        layers=2,
        windows=0,
        states=0,
        beside=0,
        # its layers and the last norm
        own_params=2 * target.layer_params + target.hidden,
        weights=weights,
    )
