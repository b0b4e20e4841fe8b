"""How much a recurrent layer keeps of a text, by its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

STATES = frozenset({"linear_attention", "mamba", "conv"})
"""Kinds of layers that keep a state."""


def state_values(text: Any) -> int | None:
    """Numbers that one of a text model's recurrent layers keeps; None where that is not known."""
    for mark, count in _KNOWN.items():
        if hasattr(text, mark):
            return count(text)
    return None


def _delta(text: Any) -> int:
    """Gated delta rule: a matrix for each value head, and what its convolution looks back on."""
    keys, values = (
        (getattr(text, f"linear_num_{of}_heads"), getattr(text, f"linear_{of}_head_dim"))
        for of in ("key", "value")
    )
    channels = 2 * keys[0] * keys[1] + values[0] * values[1]
    return int(values[0] * keys[1] * values[1] + channels * text.linear_conv_kernel_dim)


def _mamba2(text: Any) -> int:
    """Mamba 2: a matrix for each head, and what its convolution looks back on."""
    inner, size = text.mamba_n_heads * text.mamba_d_head, text.mamba_d_state
    channels = inner + 2 * text.mamba_n_groups * size
    return int(inner * size + channels * text.mamba_d_conv)


def _mamba(text: Any) -> int:
    """Mamba: of each inner channel its states, and what its convolution looks back on."""
    return int(text.mamba_expand * text.hidden_size * (text.mamba_d_state + text.mamba_d_conv))


def _convolution(text: Any) -> int:
    """A short convolution: what it looks back on."""
    return int(text.hidden_size * text.conv_L_cache)


_KNOWN: Mapping[str, Callable[[Any], int]] = {
    "linear_num_key_heads": _delta,
    "mamba_n_heads": _mamba2,
    "mamba_d_state": _mamba,
    "conv_L_cache": _convolution,
}
"""By a setting that only such models have; the first one found speaks."""
