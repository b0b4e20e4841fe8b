"""Time of one pass of a model: the roofline, or a table of measured passes.

A layer reads its weights and its keys and values once, whatever the number of tokens (of experts
those that any of the tokens chose), and does two operations per weight and token and four per key,
channel and token. So it takes

    max(bytes / bandwidth, operations / rate)

on the device (Williams et al., "Roofline", CACM 52(4), 2009) and ``LAYER_KERNELS`` launches on the
host. On a GPU launches run ahead, so an eager layer takes the larger of the two; in a graph what is
left of a launch is a short gap, in line with the device; on a CPU each call is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mspeckv_study.whatif.acceptance import Floats
from mspeckv_study.whatif.machines import LAYER_KERNELS, PASS_KERNELS, Hardware
from mspeckv_study.whatif.shapes import ModelShape

_UNPACK_KERNELS = 3
"""Launches that unpack one block of keys where no kernel does it in one: widen, scale, store."""
_CHOOSE_KERNELS = 14
"""Kernels per layer that choose and gather tier 1's chunks."""


@dataclass(frozen=True)
class PassTime:
    """Milliseconds of a pass: per layer over float KV, and outside the layers.

    Where only some layers grow, ``layers`` are those, and each one's time includes its share of the
    others': they come in between, and hide a transfer as well as it does.
    """

    layer: Floats
    outside: Floats
    layers: int

    @property
    def total(self) -> Floats:
        """Of the whole pass."""
        return self.layers * self.layer + self.outside


def work_ms(machine: Hardware, moved: Any, operations: Any, kernels: float) -> Floats:
    """Milliseconds of ``kernels`` kernels that move so many bytes and do so many operations."""
    device = np.maximum(moved / machine.memory_gbps, operations / machine.matrix_gflops) / 1e6
    if machine.kind == "cpu":
        return np.asarray(device + kernels * machine.launch_us / 1e3)
    if machine.graph_us is not None:
        return np.asarray(device + kernels * machine.graph_us / 1e3)
    return np.asarray(np.maximum(device, kernels * machine.launch_us / 1e3))


def pass_time(
    shape: ModelShape,
    machine: Hardware,
    role: str,
    tokens: Any,
    context: Any,
    head_share: Any = 1.0,
) -> PassTime:
    """A pass over ``tokens`` tokens with ``context`` tokens of float KV in every layer.

    Args:
        role: ``target`` or ``draft``: which measured table to use, if the machine has one.
        tokens: mean input tokens, every one of them scored.
        head_share: of the vocabulary that is scored.
    """
    tokens, context = np.asarray(tokens, dtype=float), np.asarray(context, dtype=float)
    dtype = machine.torch_dtype
    table = machine.passes.get(role)
    if table is not None and table.layers == shape.growing:
        # the head's share of a pass without context
        share = shape.outer_bytes(dtype, shape.head_params) / shape.read_bytes(dtype)
        outside = table.at(tokens, 0.0) * share
        layer = (table.at(tokens, context) - outside) / shape.growing
        return PassTime(layer, outside * head_share, shape.growing)
    token = shape.kv(dtype).token_bytes
    # scores and sums are over a latent where there is one
    wide = shape.heads * (shape.latent or shape.head_dim)

    # a layer that reads `kept` bytes of KV or state and attends over `seen` tokens
    def over(kept: Any, seen: Any) -> Floats:
        operations = 2 * shape.read_params() * tokens + 4 * tokens * seen * wide
        read = shape.layer_bytes(dtype, tokens)
        return work_ms(machine, read + kept, operations, LAYER_KERNELS)

    # a state is read and written
    state = 2 * shape.state_bytes / max(1, shape.states)
    beside = state * shape.beside / shape.growing
    layer, seen = over(context * token + beside, context), np.minimum(context, shape.window)
    others = shape.windows * over(seen * token, seen) if shape.windows else 0.0
    if shape.states > shape.beside:
        others = others + (shape.states - shape.beside) * over(state, 0.0)
    layer = layer + others / shape.growing
    head = shape.head_params * head_share
    outside = work_ms(machine, shape.outer_bytes(dtype, head), 2 * head * tokens, PASS_KERNELS)
    return PassTime(layer, outside, shape.growing)


def unpack_ms(machine: Hardware, kind: str, moved: Any, context: Any) -> Floats:
    """Milliseconds of unpacking one layer.

    Args:
        kind: ``8``, ``4``, ``2``, ``full`` or ``nibble``, for a machine with measured figures.
        moved: bytes read in packed form and written as floats.
        context: tokens.
    """
    context = np.asarray(context, dtype=float)
    if kind in machine.unpack_ns:
        return np.asarray(context * machine.unpack_ns[kind] / 1e6)
    per_set = machine.loop.unpack_block
    if not per_set:
        # one fused kernel for keys, one for values
        return work_ms(machine, moved, 0.0, 2.0)
    if kind == "full":
        # attended where it arrives
        return np.zeros_like(context)
    launches = np.ceil(context / per_set) * _UNPACK_KERNELS
    device = work_ms(machine, moved, 0.0, 0.0)
    return np.asarray(device + launches * machine.launch_us / 1e3)


def choose_ms(machine: Hardware, moved: Any) -> Floats:
    """Milliseconds per layer of choosing tier 1's chunks anew; ``moved`` bytes."""
    if machine.choose_us:
        return np.full_like(np.asarray(moved, dtype=float), machine.choose_us / 1e3)
    return work_ms(machine, moved, 0.0, _CHOOSE_KERNELS)
