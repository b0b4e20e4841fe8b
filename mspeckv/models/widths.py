"""How wide a decoder's layers are, and what reading a prompt takes beside its weights and KV."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


def layer_widths(config: PretrainedConfig) -> tuple[int, int]:
    """Hidden and intermediate width of a decoder's layers."""
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    inner = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None) or 4 * hidden
    return hidden, int(inner)


def prefill_workspace(widths: tuple[int, int], itemsize: Any, prompt: Any, ranks: int = 1) -> Any:
    """Bytes of activations alive at once while one layer reads ``prompt`` tokens.

    Per token, a gated MLP, which ``ranks`` share, holds its gate, its up projection and two
    products (4 intermediate widths) beside the residual stream, its norm, and queries before and
    after rotation (6 hidden widths); the allocator's slack is inside these counts. Sizes and
    prompts may be arrays.
    """
    hidden, inner = widths
    return prompt * itemsize * (4 * -(-inner // ranks) + 6 * hidden)
