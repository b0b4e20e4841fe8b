# mypy: ignore-errors
# Triton's language is not Python's: types are the compiler's business.
"""The Triton kernel of `mspeckv.accelerate.triton_unpack`; importing this needs Triton.

A part of that; saves nothing by itself.
"""

import triton
import triton.language as tl


@triton.jit
def restore_kernel(
    codes, lower, step, low, out,
    codes_n, codes_h, lower_n, lower_h, scale_n, scale_h, out_n, out_h, out_t,
    heads,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    JOIN: tl.constexpr,
    UPPER: tl.constexpr,
    SHIFT: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """One tile of one head of one block; see `mspeckv.accelerate.triton_unpack.restore`."""
    # 64-bit: a layer of many tokens has more than 2**31 bytes
    block = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = place < TOKENS * DIM
    token, channel = place // DIM, place % DIM

    rows: tl.constexpr = TOKENS * WIDTH // 8
    byte = (token % rows) * DIM + channel
    code = tl.load(codes + block * codes_n + head * codes_h + byte, mask=inside, other=0).to(
        tl.int32
    )
    top: tl.constexpr = (1 << WIDTH) - 1
    code = (code >> ((token // rows) * WIDTH)) & top
    if JOIN:
        half: tl.constexpr = TOKENS // 2
        pair = tl.load(
            lower + block * lower_n + head * lower_h + (token % half) * DIM + channel,
            mask=inside,
            other=0,
        ).to(tl.int32)
        code = code * 16 + ((pair >> ((token // half) * 4)) & 15)
    elif UPPER:
        code = code & 0xF0 if WIDTH == 8 else code * 16

    kind = out.dtype.element_ty
    scale = block * scale_n + head * scale_h
    if VALUES:
        scale += token * (DIM // GROUP) + channel // GROUP
    else:
        scale += channel
    s = tl.load(step + scale, mask=inside, other=0).to(kind).to(tl.float32)
    base = tl.load(low + scale, mask=inside, other=0).to(kind).to(tl.float32)
    if SHIFT != 0:
        base = (base + (s * SHIFT).to(kind).to(tl.float32)).to(kind).to(tl.float32)
    # A code has 8 bits and a step 11, so that the product is exact in float32.
    moved = code.to(tl.float32) * s
    if VALUES:
        moved = moved.to(kind).to(tl.float32)
    where = block * out_n + head * out_h + token * out_t + channel
    tl.store(out + where, (base + moved).to(kind), mask=inside)
