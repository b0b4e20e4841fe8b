"""Where a plain step's time goes on a CPU, and how fast it reads what it must."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import median_ms
from benchmarks.speculation import shares
from benchmarks.workbench import Workbench
from mspeckv import Pair
from mspeckv.api import engine_of
from mspeckv.context import Pass, Products, carrying
from mspeckv.decoding.attention import attend
from mspeckv.models.pair import own_part

_REPEATS = 9


@dataclass(frozen=True)
class Step:
    """One token by plain decoding, in milliseconds and bytes.

    Attributes:
        ms: the whole step.
        products_ms: every linear layer's product, one after the other, with nothing in between.
        attention_ms: attention's kernels, as the profiler sees them; zero if not measured.
        weight_bytes, kv_bytes: what it reads.
    """

    ms: float
    products_ms: float
    attention_ms: float
    weight_bytes: float
    kv_bytes: float

    def gbps(self) -> float:
        """Bytes read per second of the step, in 1e9."""
        return (self.weight_bytes + self.kv_bytes) / self.ms / 1e6


@torch.inference_mode()
def step_of(bench: Workbench) -> Step:
    """Our plain step after the bench's prompt, all KV on-chip in floats."""
    top, prompt = bench.root.top, bench.prompt

    def read() -> None:
        top.read(prompt, 1)
        top.settle(len(prompt) - 1)

    ms = median_ms(read, _REPEATS)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        read()
    given = engine_of(bench.pair).hooks.products(bench.pair.target)
    products = median_ms(lambda: _multiply(bench.pair, given), _REPEATS)
    kv = bench.pair.layers * len(prompt) * bench.pair.kv_shape.token_bytes
    return Step(ms, products, shares(trace)[1], weight_bytes(bench.pair), kv)


def weight_bytes(pair: Pair) -> int:
    """Bytes of the target's weights in memory; a head that is the embedding counts once."""
    parts = {own_part(weight) for weight in pair.target.parameters()}
    return sum({part.data_ptr(): part.nbytes for part in parts}.values())


def _multiply(pair: Pair, products: Products) -> None:
    """Multiply one row by every linear layer in its order, as a pass does."""
    rows: dict[int, torch.Tensor] = {}
    with carrying(Pass(attend, products=products)):
        for layer in pair.target.modules():
            if type(layer) is torch.nn.Linear:
                layer(rows.setdefault(layer.in_features, torch.ones(1, 1, layer.in_features)))
