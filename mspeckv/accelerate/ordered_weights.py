"""Weights in the order in which the CPU's kernel reads them.

What `mspeckv.accelerate.weight_copies` saves, it saves by these.

A verification multiplies a few rows by every weight. torch's CPU product of so few rows reads the
weights row by row and reaches half of the memory's bandwidth; oneDNN's reads them in tiles, and
reaches nearly all, once the weights lie in that order. Inductor orders the weights that it
compiles in the same way; here nothing is compiled.

Whether that pays is the processor's matter: on an AMD EPYC with AVX2 the ordered product of 1 to 9
rows took half as long, on an Intel Xeon with AVX-512, where torch's own reaches the memory's
bandwidth, 1.2 times as long. So both are timed once per process, unless ``MSPECKV_TILED`` in the
environment decides: 1 for copies wherever the kernel exists, 0 for none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.nn.functional import linear

from mspeckv.accelerate.fingerprint import digest
from mspeckv.accelerate.native import once
from mspeckv.context import Product

PRODUCT = "mkldnn::_linear_pointwise"
"""The kernel, as a profiler names it."""
SWITCH = "MSPECKV_TILED"
"""Environment variable: 1 for ordered copies, 0 for none, else as measured."""
LEAST_GAIN = 1.1
"""Copies cost memory: they must save a tenth."""
_ROWS = 16
"""Rows of a product that the order is chosen for; it serves any number."""
_TIMED_ROWS, _TIMED_WEIGHTS, _TIMED_SHAPE, _TURNS = (1, 9), 16, (1536, 576), 3
"""A plain step and a verification; 57 MB of weights, so that they come from memory."""


class TiledWeight:
    """A linear layer's product by an ordered copy of its weight, as long as the copy is current.

    Args:
        holder: ``weight`` ``[out, in]``, of which `can_tile` holds, and ``bias`` ``[out]`` or None,
            such as a layer's ``_parameters``: a copy must not keep the layer itself alive.
        product: multiplies by a copy that was made already; default: one of this weight alone.

    Attributes:
        bytes: of the copy.
        digests: fingerprints of what was copied.
    """

    def __init__(
        self, holder: Mapping[str, torch.Tensor | None], product: Product | None = None
    ) -> None:
        self.holder = holder
        held = {name: part for name, part in holder.items() if part is not None}
        weight = held["weight"]
        self.product = product or partial(multiply, ordered=order(weight), bias=held.get("bias"))
        self.bytes = weight.nbytes
        self._copied = [(name, part, _stamp(part)) for name, part in held.items()]
        self.digests = {part: digest(part) for part in held.values()}

    @property
    def current(self) -> bool:
        """Whether, as far as torch knows, nothing was trained, loaded anew, or moved since."""
        return all(
            self.holder.get(name) is part and _stamp(part) == stamp
            for name, part, stamp in self._copied
        )

    def holds(self) -> bool:
        """Whether every bit is what was copied: torch does not notice writes through ``.data``."""
        return self.current and all(digest(part) == was for part, was in self.digests.items())

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[..., in] -> [..., out]``; by the layer's own weight where that has changed."""
        if self.current:
            return self.product(hidden)
        weight = self.holder["weight"]
        assert weight is not None
        return linear(hidden, weight, self.holder.get("bias"))


def _stamp(part: torch.Tensor) -> tuple[int, int]:
    """What changes when a tensor is written to, or its data replaced."""
    return part._version, part.data_ptr()


def can_tile(weight: torch.Tensor) -> bool:
    """Whether a weight is a plain one in float32 on a CPU, and ordered copies pay there."""
    plain = (
        type(weight) in (torch.nn.Parameter, torch.Tensor)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not weight.is_inference()
    )
    threads, choice = torch.get_num_threads(), os.environ.get(SWITCH)
    if not plain or choice == "0" or not _kernel_works(threads):
        return False
    return choice == "1" or gain(threads) >= LEAST_GAIN


def order(weight: torch.Tensor) -> torch.Tensor:
    """A copy of ``weight`` ``[out, in]`` in the order in which the kernel reads."""
    ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return ordered


def multiply(
    hidden: torch.Tensor, ordered: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``[..., in] -> [..., out]`` by what `order` made."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, ordered, bias, "none", [], "")
    return out


@once
@torch.inference_mode(mode=False)
@torch.no_grad()
def gain(threads: int) -> float:
    """How many times as long the stock product takes as the ordered one, on this many threads."""
    weights = [torch.ones(_TIMED_SHAPE, dtype=torch.float32) for _ in range(_TIMED_WEIGHTS)]
    copies = [order(weight) for weight in weights]
    took = [0.0, 0.0]
    with torch.autocast("cpu", enabled=False):
        for rows in _TIMED_ROWS:
            hidden = torch.ones(1, rows, _TIMED_SHAPE[1], dtype=torch.float32)
            turns = [
                (_seconds(linear, hidden, weights), _seconds(multiply, hidden, copies))
                for _ in range(_TURNS)
            ]
            took = [sofar + min(times) for sofar, *times in zip(took, *turns, strict=True)]
    return took[0] / took[1]


def _seconds(
    product: Callable[..., torch.Tensor], hidden: torch.Tensor, weights: list[torch.Tensor]
) -> float:
    start = time.perf_counter()
    for weight in weights:
        product(hidden, weight)
    return time.perf_counter() - start


@once
def _kernel_works(threads: int) -> bool:
    """Whether this build of torch has the kernel, and it does its work on this many threads.

    Where OpenMP grants fewer than torch was set to (``OMP_THREAD_LIMIT``), it leaves out a part.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    numbers = torch.Generator().manual_seed(0)
    rows, columns = _TIMED_SHAPE
    both = torch.randn(rows + 9, columns, generator=numbers, dtype=torch.float32)
    weight, hidden = both.split([rows, 9])
    try:
        out = multiply(hidden, order(weight))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    with torch.autocast("cpu", enabled=False):
        expected = linear(hidden, weight)
    return bool(torch.allclose(out, expected, rtol=1e-3, atol=1e-3))
