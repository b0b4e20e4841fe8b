"""Unpacking in one kernel: bytes in, floats out, nothing in between.

Saves 56 to 77 % of a plain step over int4 residents of a 7B model's width on an H200, 15 % of a
small model's (benchmarks/results/accelerations-h200.txt).

The eager path writes codes as floats and then scales them in place, so that memory is crossed three
times; on a GPU, where a resident layer of 32 k tokens is half a gigabyte, that is most of a pass.
One Triton kernel reads each byte once and writes each float once. It follows the eager path's
order of rounding, so that both give the same bits; the eager path stays the reference, and is what
runs on a CPU or without Triton.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from math import ceil

import torch

from mspeckv.decoding.hooks import Hooks
from mspeckv.settings import refuse

_TILE = 2048
"""Elements of one program."""
_FLOATS = torch.float64, torch.float32, torch.float16, torch.bfloat16


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Unpack in one kernel on a GPU that has Triton."""
    if device.type != "cuda" or find_spec("triton") is None:
        return hooks
    return replace(hooks, restore=restore)


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

    Raises:
        ValueError: a part's device, dtype, shape or layout is not what the kernel would read.
    """
    count, heads, tokens, dim = out.shape
    other = codes if lower is None else lower
    bytes_of = (count, heads, tokens * (4 if lower is not None else width) // 8, dim)
    scales = (count, heads, step.shape[2], step.shape[3])
    for name, part, dtypes, shape in (
        ("codes", codes, (torch.uint8,), bytes_of),
        ("lower", other, (torch.uint8,), bytes_of),
        ("step", step, (torch.float16,), scales),
        ("low", low, (torch.float16,), scales),
        ("out", out, _FLOATS, out.shape),
    ):
        if part.dtype not in dtypes or part.device != out.device:
            allowed = " or ".join(map(str, dtypes))
            raise refuse(name, f"{part.dtype} on {part.device}", f"use {allowed} on {out.device}")
        if part.shape != shape:
            raise refuse(name, list(part.shape), f"use the shape {list(shape)}")
        if part.stride()[3] != 1 or (name != "out" and part.stride()[2] != shape[3]):
            raise refuse(name, f"strides {part.stride()}", "use contiguous rows")
    by_channel = scales[2:] == (1, dim)
    if not by_channel and (scales[2] != tokens or dim % max(1, scales[3])):
        raise refuse("step", list(step.shape), f"use scales of {list(out.shape)}")
    if step.stride()[:2] != low.stride()[:2]:
        raise refuse("low", f"strides {low.stride()}", f"use the step's, {step.stride()}")
    if width not in {8, 4, 2} or tokens * width % 8:
        raise refuse("width", width, f"use 8, 4 or 2 bits that fill bytes with {tokens} tokens")
    if not count:
        return
    # Triton is heavy, and not everywhere
    from mspeckv.accelerate.triton_kernel import restore_kernel

    # Triton launches on the current device, whatever device its arguments are on
    with torch.cuda.device_of(out):
        restore_kernel[count * heads, ceil(tokens * dim / _TILE)](
            codes, other, step, low, out,
            codes.stride(0), codes.stride(1),
            other.stride(0), other.stride(1),
            step.stride(0), step.stride(1),
            out.stride(0), out.stride(1), out.stride(2),
            heads,
            TOKENS=tokens,
            DIM=dim,
            GROUP=1 if by_channel else dim // step.shape[3],
            WIDTH=width,
            VALUES=not by_channel,
            JOIN=lower is not None,
            UPPER=upper_only,
            SHIFT=shift,
            TILE=_TILE,
            # a fused multiply-add would round once where the eager path rounds twice
            enable_fp_fusion=False,
        )  # fmt: skip
