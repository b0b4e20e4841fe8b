"""Machines as the cost model sees them: bandwidths, rates, overheads, and how a decoder loops."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self

import numpy as np
import torch

from mspeckv.settings import check_choice, check_number, refuse
from mspeckv_study.measured import age
from mspeckv_study.whatif.catalogue import MODELS
from mspeckv_study.whatif.published_tables import published

LAYER_KERNELS = 46
"""Kernels of a Llama layer without fusion: two norms of 8, seven products, rotary embeddings of
queries and keys (12), writing K and V, attention, activation and product, reshapes and sums."""
PASS_KERNELS = 28
"""Kernels of a pass outside its layers: embedding, norm, head, and drawing with top-p."""
COPY_SHARE = 0.87
"""Of a data sheet's memory bandwidth, what a device copy reached on an H200 (4192 of 4800 GB/s)."""
LINK_SHARE = 0.88
"""Of a PCIe slot's raw rate, what a pinned copy reached there (55.5 of 63.0 GB/s)."""
EAGER_US = 39.0
"""Host time of one launch: an eager pass of a Llama-2-7B shape through stock transformers took
57 ms on that machine, 32 layers of `LAYER_KERNELS` kernels."""
GRAPH_US = 3.0
"""Between two kernels of a replayed graph: what the same passes as graphs took beyond their bytes
(an H200, plain, all on-chip: 4.4 ms at 8 k and 32 k; 3.4 since attention has its own kernel)."""


@dataclass(frozen=True)
class Loop:
    """What a decoding loop does beside the arithmetic.

    Attributes:
        prefetch: transfers start before a round's drafting, as many as there are slots; else
            the first transfer of a pass is waited for after the on-chip layers.
        unpack_block: tokens of keys that one set of unpacking launches covers, unquantized layers
            being attended where they arrive; 0: two kernels unpack any layer.
        keeps_unpacked: whether what LRU residency holds is unpacked already.
        closing_passes: further tier-0 passes at the end of a round.
    """

    prefetch: bool = True
    unpack_block: int = 0
    keeps_unpacked: bool = False
    closing_passes: int = 0


@dataclass(frozen=True)
class MeasuredPasses:
    """A model's pass times on one machine: a table in place of the roofline.

    Attributes:
        layers: the model's layers.
        tokens: input tokens of the measured passes, rising, at least two.
        contexts: tokens of context they were measured at, rising, at least two.
        ms: a row per entry of ``tokens``, a column per entry of ``contexts``.
        token_bytes: of a token's unquantized K and V in one layer; 0 if it is not known.

    Raises:
        ValueError: a table of another size, or with times that are none.
    """

    layers: int
    tokens: tuple[int, ...]
    contexts: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    token_bytes: int = 0

    def __post_init__(self) -> None:
        table = np.array(self.ms, dtype=float)
        size = len(self.tokens), len(self.contexts)
        if table.shape != size or not (np.isfinite(table) & (table > 0)).all():
            raise refuse("ms", self.ms, f"use {size[0]} rows of {size[1]} times")

    def at(self, tokens: Any, context: Any) -> Any:
        """Milliseconds of a pass: linear between measured places, and beyond the last ones."""
        tokens, context = np.broadcast_arrays(
            np.asarray(tokens, dtype=float), np.asarray(context, dtype=float)
        )
        table = np.array(self.ms)
        row, down = _between(tokens, self.tokens)
        column, right = _between(context, self.contexts)
        upper = table[row, column] * (1 - right) + table[row, column + 1] * right
        lower = table[row + 1, column] * (1 - right) + table[row + 1, column + 1] * right
        return upper * (1 - down) + lower * down


def _between(values: Any, places: tuple[int, ...]) -> tuple[Any, Any]:
    """The place under each value, and how far it is to the next one, in steps."""
    grid = np.array(places, dtype=float)
    under = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return under, (values - grid[under]) / (grid[under + 1] - grid[under])


@dataclass(frozen=True)
class Hardware:
    """One machine.

    Attributes:
        source: where the figures come from.
        kind: ``gpu``: launches run ahead of the device; ``cpu``: each call is waited for.
        memory_gb: device memory in 1e9 bytes.
        memory_gbps: 1e9 bytes per second that streaming reads reach.
        matrix_gflops: 1e9 operations per second of large products in ``dtype``.
        link_gbps: host to device, 1e9 bytes per second.
        launch_us: host time of one kernel or call.
        graph_us: from kernel to kernel of a replayed graph; None where there are none.
        loop: of the software that decodes.
        row_us: drawing from one distribution over the vocabulary, in microseconds.
        round_us: what the loop itself takes in a round.
        copy_us: what a transfer takes beyond its bytes.
        choose_us: per layer, choosing and gathering tier 1's chunks anew; 0 for the roofline.
        passes: measured pass times by tier kind, ``target`` and ``draft``.
        unpack_ns: measured nanoseconds per token and layer of unpacking, by width: ``8``, ``4``,
            ``2``, ``full``, ``nibble``.
        measured_at: when, in seconds since the epoch; None for what was not measured.
        own: how long passes of each of the calibration's own runs took, in times of ``passes``.
    """

    name: str
    source: str
    kind: str
    memory_gb: float
    memory_gbps: float
    matrix_gflops: float
    link_gbps: float
    launch_us: float
    graph_us: float | None = None
    dtype: str = "float16"
    loop: Loop = Loop()
    row_us: float = 0.0
    round_us: float = 0.0
    copy_us: float = 0.0
    choose_us: float = 0.0
    passes: Mapping[str, MeasuredPasses] = field(default_factory=dict)
    unpack_ns: Mapping[str, float] = field(default_factory=dict)
    measured_at: float | None = None
    own: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("cpu", "gpu"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16", "float16"))
        for name in ("memory_gb", "memory_gbps", "matrix_gflops", "link_gbps"):
            check_number(name, getattr(self, name), 0.0, 1e9, open_low=True)
        check_number("launch_us", self.launch_us, 0.0, 1e6)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The compute dtype."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """One from what `dataclasses.asdict` and a file made of it.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is none.
        """
        passes = {}
        for role, one in found["passes"].items():
            tokens, contexts = (tuple(map(int, one[name])) for name in ("tokens", "contexts"))
            ms = tuple(tuple(map(float, row)) for row in one["ms"])
            sizes = int(one["layers"]), int(one["token_bytes"])
            passes[role] = MeasuredPasses(sizes[0], tokens, contexts, ms, sizes[1])
        own, loop = tuple(map(float, found.get("own", ()))), Loop(**found["loop"])
        made = cls(**{**found, "loop": loop, "passes": passes, "own": own})
        for one in own:
            check_number("own", one, 0.0, 1e9, open_low=True)
        for name in ("row_us", "round_us", "copy_us", "choose_us", "measured_at"):
            check_number(name, getattr(made, name), 0.0, 1e12)
        for width, ns in made.unpack_ns.items():
            check_number(f"unpack_ns {width}", ns, 0.0, 1e12)
        return made

    def describe(self) -> str:
        """One line."""
        since = ""
        if self.measured_at is not None:
            since = f", {age(max(0.0, time.time() - self.measured_at))} ago"
        return (
            f"{self.name}: {self.memory_gb:.0f} GB at {self.memory_gbps:.0f} GB/s, "
            f"{self.matrix_gflops / 1e3:.3g} TFLOP/s {self.dtype}, link {self.link_gbps:.3g} GB/s, "
            f"{self.launch_us:.3g} us a launch ({self.source}{since})"
        )


def _gpu(
    name: str, memory_gb: float, sheet_gbps: float, tflops: float, pcie: float, source: str
) -> Hardware:
    """A data sheet's peaks, scaled by what an H200 reached of its own."""
    return Hardware(
        name, f"{source}; shares of the peaks as measured on an H200", "gpu", memory_gb,
        COPY_SHARE * sheet_gbps, tflops * 1e3, LINK_SHARE * pcie, EAGER_US, GRAPH_US,
    )  # fmt: skip


_PCIE_4, _PCIE_5 = 31.5, 63.0
"""Raw GB/s of sixteen lanes in one direction."""
_CATALOGUE = (
    Hardware(
        "laptop-cpu",
        "assumed: 16 GB, two channels of DDR4-3200 (51.2 GB/s) at 0.7; 4 cores of 3 GHz with two "
        "256-bit FMA units at 0.6",
        "cpu", 16.0, 0.7 * 51.2, 0.6 * 384, 0.7 * 51.2 / 2, 8.0, dtype="float32",
    ),
    _gpu("rtx-4090", 24, 1008, 165.2, _PCIE_4, "NVIDIA Ada GPU architecture paper, appendix A"),
    _gpu("a10g", 24, 600, 70, _PCIE_4, "NVIDIA A10G data sheet"),
    _gpu("a100-40", 40, 1555, 312, _PCIE_4, "NVIDIA A100 data sheet, 40 GB"),
    _gpu("a100-80", 80, 2039, 312, _PCIE_4, "NVIDIA A100 data sheet, 80 GB SXM"),
    _gpu("h100", 80, 3350, 989, _PCIE_5, "NVIDIA H100 data sheet, SXM"),
    _gpu("h200", 141, 4800, 989, _PCIE_5, "NVIDIA H200 data sheet"),
)  # fmt: skip
HARDWARE = {machine.name: machine for machine in _CATALOGUE}
"""Catalogue by name; `mspeckv_study.whatif.hardware` also knows ``origin`` and ``this``."""
NAMES = (*HARDWARE, "origin", "this")


@cache
def origin_machine(relative: bool = False) -> Hardware:
    """The machine of the published tables, which their source does not name.

    Two numbers are fitted, both on A1's autoregressive column alone, by least squares over its
    four latencies: the link's bandwidth and the time of a launch. With 16 layers on-chip, 16
    unquantized ones streamed, and the first transfer and the last layer exposed (that software
    synchronises twice per layer), a pass takes

        (17 layers of launches + those of a pass) + 16 transfers.

    The rest is known or does not matter: weights and caches of the largest published setting need
    more than 24 GB, the folder of the runs is a cloud image's of eight GPUs, so memory and rates
    are an A100's of 40 GB; launches hide them. Of the software (its published source): tier 1
    verifies one guess at a time, tier 0 reads each round's outcome in a pass of its own, unpacking
    takes three launches per 128 tokens, and residents, kept by LRU, are held unpacked.

    Args:
        relative: least squares of relative instead of absolute errors, to see what the choice
            is worth.
    """
    table, shape = published("A1"), MODELS["llama-2-7b"]
    ms = np.array([1e3 / table.speeds[n, "autoregressive"].mean for n in table.values])
    # on average half of the 256 new tokens are there
    streamed = 16 * shape.kv(torch.float16).token_bytes * (np.array(table.values) + 128)
    weight = 1 / ms if relative else np.ones_like(ms)
    columns = np.stack([np.ones_like(ms), streamed], axis=1) * weight[:, None]
    (overhead, per_byte), *_ = np.linalg.lstsq(columns, ms * weight, rcond=None)
    return replace(
        HARDWARE["a100-40"],
        name="origin",
        source="fitted on A1's autoregressive column; memory and rates of an A100, 40 GB",
        link_gbps=float(1e-6 / per_byte),
        launch_us=float(overhead / (17 * LAYER_KERNELS + PASS_KERNELS) * 1e3),
        graph_us=None,
        loop=Loop(prefetch=False, unpack_block=128, keeps_unpacked=True, closing_passes=1),
    )
