# mypy: ignore-errors
# Triton's language is not Python's: types are the compiler's business.
"""The Triton kernels of `mspeckv.accelerate.decode_attention`; importing this needs Triton.

A part of that; saves nothing by itself.
"""

import triton
import triton.language as tl

_TOGETHER = tl.constexpr(16)
"""Splits that are summed at a time: their order is the same however many there are."""


# One kernel for all lengths: what is built for a number that 16 divides might sum in another order.
@triton.jit(
    do_not_specialize=["heads", "rows", "length", "splits", "per_split"],
    do_not_specialize_on_alignment=["tops", "sums"],
)
def attend_kernel(
    query, key, value, records, slots, tail, out, tops, sums,
    heads, rows, length, splits, per_split, scale, head_stride,
    PACKED: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    DIM: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    RECORD: tl.constexpr, K: tl.constexpr, K_STEP: tl.constexpr, K_LOW: tl.constexpr,
    V: tl.constexpr, V_STEP: tl.constexpr, V_LOW: tl.constexpr,
):  # fmt: skip
    """One split of the keys of one KV head, for one tile of its rows.

    The newest tokens, few where they have a split of their own, go first. Over codes it is split 0,
    so that no split's number hangs on how many blocks there may yet be.
    """
    head, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    if not PACKED:
        split = splits - 1 - split
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, DIM)
    there = row < rows
    place = (head * rows + row)[:, None] * DIM + channel[None, :]
    q = tl.load(query + place, mask=there[:, None], other=0.0)
    own = tl.load((tail if PACKED else slots) + row % length, mask=there, other=-1).to(tl.int32)
    key += head * head_stride
    value += head * head_stride
    if PACKED:
        if split == 0:
            acc, top, total = _floats(q, key, value, own, 0, tl.max(own) + 1, scale, KEYS)
        else:
            blocks = ((tl.load(slots) - tl.load(tail)) // BLOCK).to(tl.int32)
            start = (split - 1) * per_split
            end = tl.minimum(start + per_split, blocks)
            acc, top, total = _codes(
                q, records, head, start, end, scale, GROUP, BLOCK, WIDTH,
                RECORD, K, K_STEP, K_LOW, V, V_STEP, V_LOW,
            )  # fmt: skip
    else:
        start = split * per_split
        end = tl.minimum(start + per_split, tl.max(own) + 1)
        acc, top, total = _floats(q, key, value, own, start, end, scale, KEYS)
    if SPLIT:
        at = (split * heads + head) * rows + row
        some = there & (top > float("-inf"))
        tl.store(tops + at, top, mask=there)
        tl.store(sums + at, total, mask=there)
        tl.store(out + at[:, None] * DIM + channel[None, :], acc, mask=some[:, None])
    else:
        acc = (acc / total[:, None]).to(query.dtype.element_ty)
        tl.store(out + place, acc, mask=there[:, None])


@triton.jit
def _floats(q, key, value, own, start, end, scale, KEYS: tl.constexpr):
    """Keys ``start .. end`` of a buffer, those up to a row's own."""
    ROWS: tl.constexpr = q.shape[0]
    DIM: tl.constexpr = q.shape[1]
    channel = tl.arange(0, DIM)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    for at in range(start, end, KEYS):
        token = at + tl.arange(0, KEYS)
        seen = token < end
        k = tl.load(key + token[None, :] * DIM + channel[:, None], mask=seen[None, :], other=0.0)
        v = tl.load(value + token[:, None] * DIM + channel[None, :], mask=seen[:, None], other=0.0)
        scores = tl.where(token[None, :] <= own[:, None], tl.dot(q, k) * scale, float("-inf"))
        p, top, total, fade = _weigh(scores, top, total)
        acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None])
    return acc, top, total


@triton.jit
def _codes(
    q, records, head, start, end, scale,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    RECORD: tl.constexpr, K: tl.constexpr, K_STEP: tl.constexpr, K_LOW: tl.constexpr,
    V: tl.constexpr, V_STEP: tl.constexpr, V_LOW: tl.constexpr,
):  # fmt: skip
    """Blocks ``start .. end`` of records: each row sees all of them."""
    ROWS: tl.constexpr = q.shape[0]
    DIM: tl.constexpr = q.shape[1]
    BYTES: tl.constexpr = BLOCK * WIDTH // 8
    channel, byte = tl.arange(0, DIM), tl.arange(0, BYTES)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    for block in range(start, end):
        record = records + tl.cast(block, tl.int64) * RECORD
        codes = record + head * BYTES * DIM
        halves = record.to(tl.pointer_type(tl.float16))
        by_channel = halves + head * DIM + channel
        k_codes = tl.load(codes + K + byte[None, :] * DIM + channel[:, None])
        k_step = tl.load(by_channel + K_STEP // 2).to(q.dtype)
        k_low = tl.load(by_channel + K_LOW // 2).to(q.dtype)
        v_codes = tl.load(codes + V + byte[:, None] * DIM + channel[None, :])
        for plane in tl.static_range(8 // WIDTH):
            k = _plane(k_codes, plane, WIDTH).to(q.dtype) * k_step[:, None] + k_low[:, None]
            p, top, total, fade = _weigh(tl.dot(q, k) * scale, top, total)
            token = (head * BLOCK + plane * BYTES + byte) * (DIM // GROUP)
            by_token = halves + token[:, None] + channel[None, :] // GROUP
            v_step = tl.load(by_token + V_STEP // 2).to(q.dtype)
            v_low = tl.load(by_token + V_LOW // 2).to(q.dtype)
            v = _plane(v_codes, plane, WIDTH).to(q.dtype) * v_step + v_low
            acc = tl.dot(p.to(q.dtype), v, acc * fade[:, None])
    return acc, top, total


@triton.jit
def _weigh(scores, top, total):
    """Weights of more scores, in powers of two of the highest so far, and how the old ones fade."""
    higher = tl.maximum(top, tl.max(scores, 1))
    level = tl.where(higher == float("-inf"), 0.0, higher)
    p = tl.exp2(scores - level[:, None])
    fade = tl.exp2(top - level)
    return p, higher, total * fade + tl.sum(p, 1), fade


@triton.jit
def _plane(codes, plane: tl.constexpr, WIDTH: tl.constexpr):
    """Codes of a byte's plane."""
    if WIDTH == 8:
        out = codes
    else:
        out = (codes >> (plane * WIDTH)) & ((1 << WIDTH) - 1)
    return out


@triton.jit(do_not_specialize=["rows", "splits"], do_not_specialize_on_alignment=["tops", "sums"])
def join_kernel(parts, tops, sums, out, rows, splits, DIM: tl.constexpr):
    """One row of all heads: its splits, each with its part of the sum of weights."""
    row, channel = tl.program_id(0), tl.arange(0, DIM)
    highest = float("-inf")
    for first in range(0, splits, _TOGETHER):
        split = first + tl.arange(0, _TOGETHER)
        top = tl.load(tops + split * rows + row, mask=split < splits, other=float("-inf"))
        highest = tl.maximum(highest, tl.max(top))
    acc, total = tl.zeros((DIM,), tl.float32), 0.0
    for first in range(0, splits, _TOGETHER):
        split = first + tl.arange(0, _TOGETHER)
        at = split * rows + row
        top = tl.load(tops + at, mask=split < splits, other=float("-inf"))
        # a split that no row of it sees has left its part unwritten
        some = top > float("-inf")
        weight = tl.where(some, tl.exp2(top - highest), 0.0)
        total += tl.sum(weight * tl.load(sums + at, mask=some, other=0.0))
        part = tl.load(parts + at[:, None].to(tl.int64) * DIM + channel[None, :],
                       mask=some[:, None], other=0.0)  # fmt: skip
        acc += tl.sum(weight[:, None] * part, 0)
    tl.store(out + row * DIM + channel, (acc / total).to(out.dtype.element_ty))
