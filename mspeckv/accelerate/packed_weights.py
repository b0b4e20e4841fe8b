"""Products that read packed weights as they are: no float copy of them is written.

Saves 34 to 60 % of a plain step on two AMD cores with AVX-512, 19 to 42 % with AVX2, most after
short prompts (benchmarks/results/laptop-2-cores.txt): 538 MB of floats are 98 MB of codes.

torch has products with packed weights, and none serves here: over float32 rows they take 12 to 130
times as long as this kernel, and bfloat16 rows are rounded to 8 bits of precision on their way in
and out (packed-products-2-cores.txt). Sums are float32, and run in one order however many rows
there are: a row's bits do not depend on the rows beside it, up to `MOST_ROWS` of them. A prompt has
more; its layers are made floats, one at a time, for the stock product.

The compiler makes it for the processor at hand: AVX2 gets vectors of eight floats, AVX-512 of
sixteen (AMX is not used), ARM pairs of NEON's. Layers that read the same are multiplied in one call
(`mspeckv.accelerate.siblings`). Without a compiler the model multiplies by floats that it makes
anew each time, which is right, and slow.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
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
_FLOATS = torch.empty(0, dtype=torch.float32, device="cpu")
"""What C++ writes is like this, whatever torch's default is."""
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


def read_packed(model: torch.nn.Module) -> None:
    """Have ``model``'s packed layers multiply by the kernel from now on, inside passes and out."""
    linears = [module for module in model.modules() if type(module) is torch.nn.Linear]
    packed = [layer for layer in linears if isinstance(layer.weight, Packed)]
    if not packed or kernel() is None:
        return
    for layers in siblings(model, packed):
        if all(_routed.get(layer) is layer.weight for layer in layers):
            continue
        weights = [cast("Packed", layer.weight) for layer in layers]
        joint = Siblings(Reading(weights, [layer.bias for layer in layers]).multiply)
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
        return linear(hidden, cast("torch.Tensor", holder["weight"]), holder.get("bias"))

    return multiplied


def product(weight: Packed, bias: torch.Tensor | None = None) -> Product:
    """``[..., in] -> [..., out]`` by a packed weight."""
    reading = Reading([weight], [bias])
    return lambda hidden: reading.multiply(hidden)[0]


class Task(ctypes.Structure):
    """``Task`` of the source: sizes, addresses, and how many elements lie from each on."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "inputs", "bits", "threads", "parts")),
        *((name, ctypes.c_int64 * _PARTS) for name in ("outputs", "packed_has", "out_has")),
        *((name, ctypes.c_int64) for name in ("hidden_has", "work_has")),
        *((name, ctypes.c_void_p) for name in ("hidden", "work")),
        *((name, ctypes.c_void_p * _PARTS) for name in ("packed", "out")),
    )


class Reading:
    """Up to three weights, and biases, of what reads the same rows; where they lie is noted once.

    A step has up to 120 products; noting where weights lie takes as long as a small one.
    """

    def __init__(self, weights: Sequence[Packed], biases: Sequence[torch.Tensor | None]) -> None:
        self.weights, self.biases = list(weights), list(biases)
        self._at: list[int] = []

    def task(self) -> Task:
        """Sizes and addresses of the weights as they lie now; rows and results are to be told."""
        at = [weight.codes.data_ptr() for weight in self.weights]
        if at != self._at:
            # kept, so that nothing else comes to lie there
            self._codes = [weight.codes for weight in self.weights]
            self.outputs = [weight.shape[0] for weight in self.weights]
            self.sizes = [len(codes) * PANEL for codes in self._codes]
            self.inputs, bits = self.weights[0].shape[1], self.weights[0].bits
            task = Task(inputs=self.inputs, bits=bits, parts=len(self.weights))
            for place, (codes, size) in enumerate(zip(self._codes, self.sizes, strict=True)):
                shape = size // PANEL, self.inputs // GROUP, 4 * PANEL * (bits + 1)
                where = pointer("weights", codes, torch.uint8, shape)
                task.packed[place], task.packed_has[place] = where
                task.outputs[place] = size
            self._task, self._at = bytes(task), at
        return Task.from_buffer_copy(self._task)

    def multiply(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Products of ``hidden`` ``[..., in]`` with every weight: ``[..., out]`` each."""
        cpp, plain = kernel(), hidden.dtype == torch.float32 and hidden.is_cpu
        if cpp is None or not plain or hidden.requires_grad:
            return [linear(hidden, *two) for two in zip(self.weights, self.biases, strict=True)]
        if hidden.numel() > MOST_ROWS * hidden.shape[-1]:
            outs = [hidden @ whole for whole in self.run(cpp.unpack)]
        else:
            with _RecordFunctionFast(PRODUCT, [hidden, *self.weights]):
                outs = self.run(cpp.multiply, hidden)
        if self.outputs != self.sizes:
            outs = [out[..., :size] for out, size in zip(outs, self.outputs, strict=True)]
        every = zip(outs, self.biases, strict=True)
        return [out if bias is None else out + bias for out, bias in every]

    def run(
        self, function: Callable[..., int], hidden: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """``[..., panels' outputs]`` for each weight, of rows ``[..., inputs]``, or its columns.

        Raises:
            ValueError: codes or rows are not as C++ takes them, or a part ends too soon.
        """
        task, inputs = self.task(), self.inputs
        rows = inputs if hidden is None else hidden.numel() // inputs
        lead = (inputs,) if hidden is None else hidden.shape[:-1]
        task.rows, task.threads = rows, torch.get_num_threads()
        outs = [_FLOATS.new_empty((*lead, size)) for size in self.sizes]
        if hidden is not None:
            hidden, room = hidden.contiguous(), rows * (inputs + inputs // GROUP)
            where = pointer("hidden", hidden, torch.float32, (*lead, inputs))
            task.hidden, task.hidden_has = where
            work = _FLOATS.new_empty(room)
            task.work, task.work_has = work.data_ptr(), room
            # held by the task until C++ is done: torch.compile drops what no later line names
            task.held = hidden, work
        for place, out in enumerate(outs):
            task.out[place], task.out_has[place] = out.data_ptr(), rows * self.sizes[place]
        if function(ctypes.byref(task)):
            shapes = [list(weight.shape) for weight in self.weights]
            raise refuse("weights", shapes, "they and the rows must fit")
        return outs


@once
def kernel() -> ctypes.CDLL | None:
    """The compiled kernel, if it can be had and multiplies as torch does."""
    found = library(SOURCE)
    if found is None:
        return None
    for function in (found.multiply, found.unpack, found.before, found.after):
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int64
    return found if _agrees(found) else None


@torch.inference_mode()
def _agrees(kernel: ctypes.CDLL) -> bool:
    """Whether small cases come out as by floats."""
    numbers = torch.Generator().manual_seed(0)
    for bits in (4, 8):
        weight = pack(torch.randn(70, 2 * GROUP, generator=numbers), bits)
        hidden, floats = torch.randn(9, 2 * GROUP, generator=numbers), weight.floats()
        reading, wanted = Reading([weight], [None]), (hidden @ floats.T, floats.T)
        made = reading.run(kernel.multiply, hidden) + reading.run(kernel.unpack)
        for out, right in zip(made, wanted, strict=True):
            if not torch.allclose(out[:, :70], right, atol=_TOLERANCE):
                return False
    return True
