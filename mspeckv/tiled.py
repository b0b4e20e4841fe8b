"""Weights in the order in which the CPU's kernel reads them, kept from pass to pass.

A verification multiplies a few rows by every weight. torch's CPU product of so few rows reads the
weights row by row and reaches half of the memory's bandwidth; oneDNN's reads them in tiles, and
reaches nearly all, once the weights lie in that order. Inductor orders the weights that it
compiles in the same way; here nothing is compiled.

The copies are as large as the weights. They are made once per model, in float32 on a CPU, where
memory is plentiful; the model's own weights stay, and the model is as it was outside `tiled`.
``MSPECKV_TILED=0`` in the environment does without, where many kernels share a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import psutil
import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

SWITCH = "MSPECKV_TILED"
"""Environment variable; 0 makes no copies."""
SHARE_OF_FREE = 0.25
"""Most of the free memory that copies may take."""
PRODUCT = "mkldnn::_linear_pointwise"
"""The kernel, as a profiler names it."""
_ROWS = 16
"""Rows of a product that the order is chosen for; it serves any number."""


class TiledWeight:
    """A linear layer's product with an ordered copy of its weight.

    Args:
        weight: ``[out, in]``, of which `can_tile` holds.
        bias: ``[out]`` or None.
        holder: a layer's parameters by name, of which ``weight`` is one; not the layer itself,
            which the copy must not keep alive.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        holder: Mapping[str, torch.Tensor | None] | None = None,
    ) -> None:
        self.weight, self.bias, self.ordered = weight, bias, _ordered(weight)
        self.bytes = weight.numel() * weight.element_size()
        self._holder: Mapping[str, torch.Tensor | None] = holder or {"weight": weight}
        self._copied = weight._version, weight.data_ptr()

    @property
    def current(self) -> bool:
        """Whether the weight is still what was copied: not trained, loaded anew, or moved."""
        now = self._holder["weight"]
        return now is self.weight and (now._version, now.data_ptr()) == self._copied

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[..., in] -> [..., out]``."""
        # a copy has no gradient
        if torch.is_grad_enabled() or not self.current:
            weight = self._holder["weight"]
            assert weight is not None
            return linear(hidden, weight, self._holder.get("bias", self.bias))
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self.ordered, self.bias, "none", [], ""
        )
        return out


_copies: WeakKeyDictionary[torch.nn.Module, TiledWeight] = WeakKeyDictionary()
_swaps: WeakKeyDictionary[torch.nn.Module, list[tuple[dict[str, Any], TiledWeight]]]
_swaps = WeakKeyDictionary()


def tile(model: PreTrainedModel) -> None:
    """Make the copies of ``model``'s linear weights; layers that models share are copied once.

    Does nothing where it would not pay, is not possible, is switched off, or would take more than
    a quarter of the free memory.
    """
    if os.environ.get(SWITCH) == "0":
        return
    fresh = [
        module
        for module in model.modules()
        if _plain(module) and not (module in _copies and _copies[module].current)
    ]
    needed = sum(module.weight.numel() * 4 for module in fresh)
    if needed <= SHARE_OF_FREE * psutil.virtual_memory().available:
        for module in fresh:
            _copies[module] = TiledWeight(module.weight, module.bias, module._parameters)
        # a module's own attributes: setting one through it costs more than calling the kernel
        _swaps[model] = [
            (vars(module), _copies[module]) for module in model.modules() if module in _copies
        ]


def tiled_bytes(*models: torch.nn.Module) -> int:
    """Bytes of the copies that ``models`` use, shared ones once."""
    modules = {module for model in models for module in model.modules() if module in _copies}
    return sum(_copies[module].bytes for module in modules)


@contextmanager
def tiled(model: PreTrainedModel) -> Iterator[None]:
    """Inside, ``model`` multiplies by its ordered copies, if `tile` made any."""
    swaps = _swaps.get(model, [])
    for attributes, forward in swaps:
        attributes["forward"] = forward
    try:
        yield
    finally:
        for attributes, _ in swaps:
            attributes.pop("forward", None)


def can_tile(weight: torch.Tensor) -> bool:
    """Whether a weight is a plain one in float32 on a CPU, and this build has a kernel for it."""
    return (
        type(weight) in (torch.nn.Parameter, torch.Tensor)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not weight.is_inference()
        and _kernel_works()
    )


def _plain(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """Whether a layer is a linear one with torch's own forward, and can be tiled."""
    return (
        type(module) is torch.nn.Linear
        and "forward" not in vars(module)
        and can_tile(module.weight)
    )


def _ordered(weight: torch.Tensor) -> torch.Tensor:
    ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return ordered


@cache
def _kernel_works() -> bool:
    """Whether this build of torch has the kernel; asked of a small product."""
    if not torch.backends.mkldnn.is_available():
        return False
    weight, hidden = torch.randn(32, 16), torch.randn(3, 16)
    try:
        out = torch.ops.mkldnn._linear_pointwise(hidden, _ordered(weight), None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.allclose(out, linear(hidden, weight), rtol=1e-4, atol=1e-4))
