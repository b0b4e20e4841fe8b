"""Unpacking in one kernel: bytes in, floats out, nothing in between.

The eager path writes codes as floats and then scales them in place, so that memory is crossed three
times; on a GPU, where a resident layer of 32 k tokens is half a gigabyte, that is most of a pass.
One Triton kernel reads each byte once and writes each float once. It follows the eager path's
order of rounding, so that both give the same bits; the eager path stays the reference, and is what
runs on a CPU or without Triton.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

_TILE = 2048
"""Elements of one program."""


def usable(tensor: torch.Tensor) -> bool:
    """Whether the kernel runs on ``tensor``'s device."""
    return tensor.is_cuda and find_spec("triton") is not None


def restore(
    codes: torch.Tensor,
    width: int,
    step: torch.Tensor,
    low: torch.Tensor,
    out: torch.Tensor,
    *,
    lower: torch.Tensor | None = None,
    upper_only: bool = False,
    shift: float = 0.0,
) -> None:
    """Write ``low + step * (code + shift)`` into ``out``.

    Args:
        codes: uint8 ``[n, H, T * width / 8, D]``; a byte holds tokens ``T * width / 8`` apart.
        width: 8, 4 or 2 bits.
        step: float16 ``[n, H, 1, D]`` (keys) or ``[n, H, T, D / group]`` (values).
        low: like ``step``.
        out: ``[n, H, T, D]``, a view whose rows are contiguous.
        lower: the other four bits of int8 codes, uint8 ``[n, H, T / 2, D]`` (nibble mode);
            ``codes`` are then the upper four.
        upper_only: clear the lower four bits: of int8 codes, or those that ``lower`` would give.
        shift: what every code is taken to lie above its value.
    """
    count, heads, tokens, dim = out.shape
    if not count:
        return
    kernel, cdiv = _kernel()
    values = step.shape[2] > 1
    other = codes if lower is None else lower
    kernel[count * heads, cdiv(tokens * dim, _TILE)](
        codes, other, step, low, out,
        codes.stride(0), codes.stride(1),
        other.stride(0), other.stride(1),
        step.stride(0), step.stride(1),
        out.stride(0), out.stride(1), out.stride(2),
        heads,
        TOKENS=tokens,
        DIM=dim,
        GROUP=dim // step.shape[3] if values else 1,
        WIDTH=width,
        VALUES=values,
        JOIN=lower is not None,
        UPPER=upper_only,
        SHIFT=shift,
        TILE=_TILE,
        # a fused multiply-add would round once where the eager path rounds twice
        enable_fp_fusion=False,
    )  # fmt: skip


_built: tuple[Any, Any] | None = None


def _kernel() -> tuple[Any, Any]:
    """The kernel, built when first wanted: Triton is heavy, and not everywhere."""
    global _built  # noqa: PLW0603  # built once per process
    if _built is None:
        from mspeckv.kv import fused_kernel

        _built = fused_kernel.restore_kernel, fused_kernel.cdiv
    return _built
