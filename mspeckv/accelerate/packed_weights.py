"""Products that read packed weights as they are: no float copy of them is written.

Saves 64 % of a plain step's processor time (46 ms instead of 130 on one thread of a busy machine,
512 tokens of context; no table yet): the default target's 538 MB of floats are 98 MB of codes.

torch has products with packed weights, and none serves here. Measured on two AMD cores with AVX2,
torch 2.13, on the default target's shapes and 1, 9 and 16 rows, against this kernel: in float32
rows ``_weight_int4pack_mm_for_cpu``, ``_weight_int8pack_mm`` and ``_dyn_quant_matmul_4bit`` take 12
to 130 times as long; in bfloat16 rows the first two take 1.2 to 3.6 times as long, and every row is
rounded to 8 bits of precision on its way in and out. So there is a kernel of our own, compiled like
that of `mspeckv.accelerate.packed_attention`. Sums are float32, and run in one order however many
rows there are: a row's bits do not depend on the rows beside it, up to `MOST_ROWS` of them. A
prompt has more; its layers are made floats, one at a time, for the stock product.

The compiler makes it for the processor at hand: AVX2 and AVX-512 get vectors of eight floats with
fused multiplication (AVX-512's wider ones and AMX are not used), ARM gets pairs of NEON's. Layers
that read the same are multiplied in one call (`mspeckv.accelerate.siblings`). Without a compiler
the model multiplies by floats that it makes anew each time, which is right, and slow.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch._C._profiler import _RecordFunctionFast
from torch.nn.functional import linear
from transformers import PreTrainedModel

from mspeckv.accelerate.native import library, once, pointer
from mspeckv.accelerate.products import route
from mspeckv.accelerate.siblings import Siblings, siblings
from mspeckv.context import Product, Products
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.packed import GROUP, PANEL, Packed, pack
from mspeckv.settings import refuse

SOURCE = Path(__file__).with_name("packed_weights.cpp")
PRODUCT = "mspeckv::packed_product"
"""The kernel, as a profiler names it."""
MOST_ROWS = 64
"""Rows of a product by the kernel, at most."""
_PARTS = 3
_TOLERANCE = 1e-4

_routed: WeakKeyDictionary[torch.nn.Module, torch.Tensor] = WeakKeyDictionary()
"""Layers that multiply by the kernel, and by which weight."""


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Multiply packed weights on a CPU, where the kernel can be had."""
    if device.type != "cpu":
        return hooks

    def products(model: PreTrainedModel) -> Products:
        read_packed(model)
        return hooks.products(model)

    return replace(hooks, products=products)


def compiled() -> bool:
    """Whether the kernel is there; compiles it if need be."""
    return _kernel() is not None


def read_packed(model: torch.nn.Module) -> None:
    """Have ``model``'s packed layers multiply by the kernel from now on, inside passes and out."""
    if not any(isinstance(weight, Packed) for weight in model.parameters()) or not compiled():
        return
    for module in model.modules():
        for layers in siblings(module):
            if all(isinstance(layer.weight, Packed) for layer in layers):
                _route(layers)
    for module in model.modules():
        if type(module) is torch.nn.Linear and isinstance(module.weight, Packed):
            _route([module])


def _route(layers: Sequence[torch.nn.Linear]) -> None:
    """Products for layers that read the same, unless they have them."""
    if all(_routed.get(layer) is layer.weight for layer in layers):
        return
    weights = [cast("Packed", layer.weight) for layer in layers]
    joint = Siblings(partial(multiply, weights, [layer.bias for layer in layers]))
    for place, layer in enumerate(layers):
        route(layer, _while_current(layer, partial(joint.part, place)))
        _routed[layer] = layer.weight


def _while_current(layer: torch.nn.Linear, product: Product) -> Product:
    """``product`` as long as ``layer``, which it does not keep alive, has the weights it has."""
    holder = layer._parameters
    was = dict(holder)

    def multiplied(hidden: torch.Tensor) -> torch.Tensor:
        if all(holder.get(name) is part for name, part in was.items()):
            return product(hidden)
        weight = holder["weight"]
        assert weight is not None
        return linear(hidden, weight, holder.get("bias"))

    return multiplied


def product(weight: Packed, bias: torch.Tensor | None = None) -> Product | None:
    """``[..., in] -> [..., out]`` by a packed weight; None without the kernel."""
    return (lambda hidden: multiply([weight], [bias], hidden)[0]) if compiled() else None


def multiply(
    weights: Sequence[Packed], biases: Sequence[torch.Tensor | None], hidden: torch.Tensor
) -> list[torch.Tensor]:
    """Products of ``hidden`` ``[..., in]`` with up to three weights: ``[..., out]`` each."""
    rows = hidden.numel() // hidden.shape[-1]
    kernel = _kernel()
    if kernel is None or hidden.dtype != torch.float32 or not hidden.is_cpu or hidden.requires_grad:
        return [linear(hidden, *both) for both in zip(weights, biases, strict=True)]
    if rows > MOST_ROWS:
        outs = [hidden @ one[:, : weight.shape[0]] for weight, one in zip(
            weights, _run(kernel.unpack, weights), strict=True)]  # fmt: skip
    else:
        with _RecordFunctionFast(PRODUCT, [hidden, *weights]):
            made = _run(kernel.multiply, weights, hidden)
        outs = [
            out[:, : weight.shape[0]].view(*hidden.shape[:-1], -1)
            for weight, out in zip(weights, made, strict=True)
        ]
    return [out if bias is None else out + bias for out, bias in zip(outs, biases, strict=True)]


class Task(ctypes.Structure):
    """``Task`` of the source: sizes, addresses, and how many elements lie from each on."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "inputs", "bits", "threads", "parts")),
        *((name, ctypes.c_int64 * _PARTS) for name in ("outputs", "packed_has", "out_has")),
        *((name, ctypes.c_int64) for name in ("hidden_has", "work_has")),
        *((name, ctypes.c_void_p) for name in ("hidden", "work")),
        *((name, ctypes.c_void_p * _PARTS) for name in ("packed", "out")),
    )


def _run(
    function: ctypes._CFuncPtr,  # type: ignore[name-defined]
    weights: Sequence[Packed],
    hidden: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """``[rows, outputs]`` for each weight, of rows ``[..., inputs]``, or of its columns.

    Raises:
        ValueError: a part is not as C++ takes it, or ends too soon.
    """
    inputs, bits = weights[0].shape[1], weights[0].bits
    rows = inputs if hidden is None else hidden.numel() // inputs
    task = Task(rows=rows, inputs=inputs, bits=bits, threads=torch.get_num_threads())
    task.parts = len(weights)
    outs = []
    for place, weight in enumerate(weights):
        panels = len(weight.codes)
        shape = panels, inputs // GROUP, 4 * PANEL * (bits + 1)
        out = torch.empty(rows, panels * PANEL)
        where = pointer("weights", weight.codes, torch.uint8, shape)
        task.packed[place], task.packed_has[place] = where
        task.out[place], task.out_has[place] = out.data_ptr(), out.numel()
        task.outputs[place] = panels * PANEL
        outs.append(out)
    if hidden is not None:
        flat = hidden.reshape(rows, inputs).contiguous()
        work = torch.empty(rows * (inputs + inputs // GROUP))
        task.hidden, task.hidden_has = pointer("hidden", flat, torch.float32, (rows, inputs))
        task.work, task.work_has = work.data_ptr(), work.numel()
    if function(ctypes.byref(task)):
        raise refuse("weights", [list(one.shape) for one in weights], "they and the rows must fit")
    return outs


@once
def _kernel() -> ctypes.CDLL | None:
    """The compiled kernel, if it can be had and multiplies as torch does."""
    found = library(SOURCE)
    if found is None:
        return None
    for function in (found.multiply, found.unpack):
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int64
    return found if _agrees(found) else None


@torch.inference_mode()
def _agrees(kernel: ctypes.CDLL) -> bool:
    """Whether small cases come out as by floats."""
    numbers = torch.Generator().manual_seed(0)
    for bits in (4, 8):
        weight = pack(torch.randn(70, 2 * GROUP, generator=numbers), bits)
        hidden, floats = torch.randn(9, 2 * GROUP, generator=numbers), weight.floats()
        (out,), (whole,) = _run(kernel.multiply, [weight], hidden), _run(kernel.unpack, [weight])
        if not torch.allclose(out[:, :70], hidden @ floats.T, atol=_TOLERANCE):
            return False
        if not torch.allclose(whole[:, :70], floats.T, atol=_TOLERANCE):
            return False
    return True
