"""How fast attention of a few rows reads its keys and values on a GPU.

    python -m benchmarks.attention > results/attention.txt     # half a minute on an H200

*Stock* is torch's kernel as transformers calls it, a group's query heads apart; *folded* the same
with a group's heads as rows, which is the engine's core; *ours* is
`mspeckv.accelerate.decode_attention`. Over packed blocks the second is unpacking, then *folded*.
Bytes are those of keys and values, or of records, each once; shares are of a device copy's bytes,
read and written. Head dim 128, float16, replayed from a CUDA graph over layers that together do not
fit into the GPU's cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.report import machine, table
from mspeckv import KVPolicy
from mspeckv.accelerate.decode_attention import decode
from mspeckv.decoding.attention import attend_floats
from mspeckv.kv.floats import Floats
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape

DIM = 128
HEADS = ((32, 1), (8, 4))
"""KV heads, and query heads of each."""
ROWS = (1, 2, 9, 16, 32)
SPREAD = 4e8
"""Bytes over which the same work is repeated, at least."""
Work = Callable[[], object]


def seconds(works: Sequence[Work], repeats: int = 3, turns: int = 3) -> float:
    """Mean time of one of several pieces of work, replayed together; the best of ``turns``."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        works[0]()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for work in works:
                work()
        graph.replay()
        times = []
        for _ in range(turns):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(repeats):
                graph.replay()
            end.record()
            end.synchronize()
            times.append(float(start.elapsed_time(end)) / 1e3 / repeats / len(works))
    return min(times)


def copy_rate() -> float:
    """Bytes per second of a device copy, read and written.

    By a kernel: a graph hands a plain copy to an engine that is slower.
    """
    one, other = torch.empty(2, 1 << 28, dtype=torch.float32, device="cuda").unbind(0)
    return 2 * one.nbytes / seconds([lambda: torch.neg(other, out=one)])


def stock(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """As transformers calls it: a mask where there is more than one row."""
    rows, keys = query.shape[2], key.shape[2]
    seen = None
    if rows > 1:
        place = torch.arange(keys, device=query.device)
        seen = place[None] <= place[keys - rows :, None]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=seen, enable_gqa=query.shape[1] != key.shape[1]
    )


def noise(heads: int, tokens: int) -> torch.Tensor:
    """``[1, heads, tokens, DIM]``."""
    return torch.randn(1, heads, tokens, DIM, device="cuda", dtype=torch.float16)


def floats(heads: int, groups: int, rows: int, context: int, rate: float) -> list[object]:
    """A row of the table: float keys by every kernel."""
    tokens = context + rows
    size = 4 * heads * tokens * DIM
    count = max(2, min(12, round(SPREAD / size) + 1))
    layers = [(noise(heads, tokens), noise(heads, tokens)) for _ in range(count)]
    query = noise(heads * groups, rows)
    slots = torch.arange(context, tokens, device="cuda")
    masks: dict[tuple[int, ...], torch.Tensor | None] = {}
    times = [
        seconds([partial(stock, query, key, value) for key, value in layers]),
        seconds([partial(attend_floats, query, Floats(*kv), None, masks) for kv in layers]),
        seconds([partial(decode, query, *kv, slots, context, None) for kv in layers]),
    ]
    return [f"{heads} x {groups}", context, rows, "float16",
            *(f"{size / time / 1e12:.2f}" for time in times),
            f"{size / times[-1] / rate:.0%}", f"{times[-1] * 1e6:.0f}"]  # fmt: skip


def codes(
    heads: int, groups: int, rows: int, context: int, rate: float, width: int
) -> list[object]:
    """A row of the table: records as they are, beside unpacking them for the folded kernel."""
    shape = KVShape(1, heads, DIM, torch.float16)
    codec = BlockCodec(shape, KVPolicy(width), _restore())
    blocks = context // codec.block
    key, value = noise(heads, context + 64), noise(heads, context + 64)
    records = codec.encode(key[:, :, :context], value[:, :, :context])
    size = records.numel()
    layers = [records.clone() for _ in range(max(2, min(12, round(SPREAD / size) + 1)))]
    query = noise(heads * groups, rows)
    tail = torch.arange(64 - rows, 64, device="cuda")
    new = key[:, :, context:].contiguous(), value[:, :, context:].contiguous()
    masks: dict[tuple[int, ...], torch.Tensor | None] = {}

    def unpacked(records: torch.Tensor) -> torch.Tensor:
        codec.decode(records, key[:, :, :context], value[:, :, :context])
        return attend_floats(query, Floats(key, value), None, masks)

    def straight(records: torch.Tensor) -> torch.Tensor:
        return decode(query, *new, tail + context, context, None, records, codec, tail)

    times = [seconds([partial(way, one) for one in layers]) for way in (unpacked, straight)]
    assert blocks == len(records)
    return [f"{heads} x {groups}", context, rows, f"int{width}", "",
            *(f"{size / time / 1e12:.2f}" for time in times),
            f"{size / times[-1] / rate:.0%}", f"{times[-1] * 1e6:.0f}"]  # fmt: skip


def _restore() -> Callable[..., None]:
    from mspeckv.accelerate.triton_unpack import restore

    return restore


def tables(contexts: Sequence[int] = (8192, 32768), some: Sequence[int] = ROWS) -> str:
    """The table, for passes of ``some`` rows."""
    rate = copy_rate()
    found = []
    for context, (heads, groups), rows in product(contexts, HEADS, some):
        found.append(floats(heads, groups, rows, context, rate))
        widths = (8, 4) if rows in (1, 9, 16) else ()
        found += [codes(heads, groups, rows, context, rate, width) for width in widths]
    headers = (
        "KV heads x group", "keys", "rows", "KV", "stock", "folded or unpacked", "ours",
        "of a copy", "ours, us",
    )  # fmt: skip
    copied = f"a device copy reads and writes {rate / 1e12:.2f} TB/s"
    return f"TB/s of KV read (measured); {copied}\n{table(headers, found)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    options = parser.parse_args()
    print(machine(torch.device("cuda")), flush=True)
    print(tables(options.contexts, options.rows))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
