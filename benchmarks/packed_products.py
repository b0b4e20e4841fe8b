"""A layer's products with packed weights, beside torch's own, and attention over bfloat16.

    python -m benchmarks.packed_products

On a CPU, on the default target's shapes: what `mspeckv.accelerate.packed_weights` multiplies in one
call, by this processor's vectors and by eight floats at a time, beside torch's
``_weight_int4pack_mm_for_cpu``, which takes rows in float32 or bfloat16; and stock
attention of 30 layers over 4096 tokens, keys and values in float32 and in bfloat16. The least of
five turns counts for products, the median of fifteen for attention.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from unittest.mock import patch

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.report import machine, table
from mspeckv.accelerate import native, packed_weights
from mspeckv.accelerate.packed_weights import Reading
from mspeckv.models.packed import GROUP, pack

LAYER = {
    "queries, keys, values": ([576, 192, 192], 576),
    "attention's output": ([576], 576),
    "gate and up": ([1536, 1536], 576),
    "down": ([576], 1536),
    "a head, in 4 bits": ([49152], 576),
}
"""Outputs of the weights that are multiplied together, and inputs."""
ROWS = (1, 5, 9, 16)
ATTENTION = {"layers": 30, "tokens": 4096, "heads": 9, "kv_heads": 3, "width": 64}


def turns(run: Callable[[], object], count: int, times: int) -> list[float]:
    """Microseconds of a run, by turn."""
    out = []
    for _ in range(count):
        begun = time.perf_counter()
        for _ in range(times):
            run()
        out.append((time.perf_counter() - begun) / times * 1e6)
    return out


def products() -> str:
    """Ours in one call for weights that read the same rows, torch's for all of their outputs."""
    found, eight = [], eight_wide()
    for name, (outputs, inputs) in LAYER.items():
        packed = [pack(torch.randn(size, inputs), 4) for size in outputs]
        reading = Reading(packed, [None] * len(packed))
        codes = torch.randint(0, 16, (sum(outputs), inputs), dtype=torch.int32)
        theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        for rows in ROWS:
            hidden = torch.randn(rows, inputs)
            times = 3 if len(codes) > 9999 else 100
            line: list[object] = [name, rows, best(partial(reading.multiply, hidden), times)]
            line.append(best(partial(reading.run, eight, hidden), times))
            for dtype in (torch.bfloat16, torch.float32):
                scales = torch.ones(inputs // GROUP, len(codes), 2, dtype=dtype)
                given = hidden.to(dtype), theirs, GROUP, scales
                few = 3 if dtype == torch.float32 else times
                call = torch.ops.aten._weight_int4pack_mm_for_cpu
                line.append(best(partial(call, *given), few))
            found.append(line)
    others = "by vectors of eight", "torch, bfloat16 rows", "torch, float32 rows"
    title = "Products with 4-bit weights, us, the least of five turns (measured)"
    return f"{title}\n{table(('product', 'rows', 'this kernel', *others), found)}"


def eight_wide() -> Callable[..., int]:
    """The kernel as a processor without AVX-512 would have it."""
    with patch.object(native, "FLAGS", (*native.FLAGS, "-mno-avx512f")):
        built = native._built(packed_weights.SOURCE, native._compiler())
    multiply: Callable[..., int] = ctypes.CDLL(str(built)).multiply
    return multiply


def best(run: Callable[[], object], times: int) -> float:
    """The least microseconds of five turns, after some that do not count."""
    turns(run, 1, times)
    return min(turns(run, 5, times))


def attention() -> str:
    """Stock attention over floats and over bfloat16."""
    shape = 1, ATTENTION["kv_heads"], ATTENTION["tokens"], ATTENTION["width"]
    found = []
    for rows in ROWS[:3]:
        line: list[object] = [rows]
        for dtype in (torch.float32, torch.bfloat16):
            layers = [
                tuple(torch.randn(shape).to(dtype) for _ in range(2))
                for _ in range(ATTENTION["layers"])
            ]
            query = torch.randn(1, ATTENTION["heads"], rows, ATTENTION["width"]).to(dtype)
            line.append(median(turns(partial(over, query, layers), 18, 1)[3:]) / 1e3)
        found.append(line)
    title = "Attention of 30 layers over 4096 tokens, ms, the median of fifteen turns (measured)"
    return f"{title}\n{table(('rows', 'float32', 'bfloat16'), found)}"


def over(query: torch.Tensor, layers: Sequence[tuple[torch.Tensor, ...]]) -> None:
    """One query's look at every layer."""
    for key, value in layers:
        scaled_dot_product_attention(query, key, value, enable_gqa=True)


def main() -> None:
    """Print both tables."""
    print(machine(torch.device("cpu")), torch.backends.cpu.get_cpu_capability(), sep=", ")
    print("", products(), "", attention(), sep="\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
