"""A model that multiplies by ordered copies of its weights, inside the engine's passes only.

The copies (`mspeckv.ordered`) are as large as the weights. They are made once per model, in float32
on a CPU, where memory is plentiful; layers that read the same input share one
(`mspeckv.joined`). The model's own weights stay, and the model is as it was outside `tiled`.
Where the processor gains nothing by them, none are made; ``MSPECKV_TILED=0`` in the environment
does without too, where many kernels share a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import psutil
import torch
from transformers import PreTrainedModel

from mspeckv.joined import JoinedPart, JoinedWeights, siblings
from mspeckv.ordered import TiledWeight, can_tile

SHARE_OF_FREE = 0.25
"""Most of the free memory that copies may take."""

Copy = TiledWeight | JoinedPart

_copies: WeakKeyDictionary[torch.nn.Module, Copy] = WeakKeyDictionary()
_swaps: WeakKeyDictionary[torch.nn.Module, list[tuple[dict[str, Any], Copy]]]
_swaps = WeakKeyDictionary()


def tile(model: PreTrainedModel) -> None:
    """Make the copies of ``model``'s linear weights; layers that models share are copied once.

    Does nothing where it would not pay (`mspeckv.ordered`), is not possible, is switched off, or
    would take more than a quarter of the free memory.
    """
    fresh = {
        module
        for module in model.modules()
        if _plain(module) and not (module in _copies and _copies[module].current)
    }
    needed = sum(module.weight.numel() * 4 for module in fresh)
    if needed <= SHARE_OF_FREE * psutil.virtual_memory().available:
        _copy(model, fresh)
        # a module's own attributes: setting one through it costs more than calling the kernel
        _swaps[model] = [
            (vars(module), _copies[module]) for module in model.modules() if module in _copies
        ]


def _copy(model: PreTrainedModel, fresh: set[torch.nn.Linear]) -> None:
    """Copy the ``fresh`` layers of ``model``, those that read the same together."""
    single = set(fresh)
    for parent in model.modules():
        for layers in siblings(parent):
            if single.issuperset(layers):
                single.difference_update(layers)
                joined = JoinedWeights(layers)
                parts = (JoinedPart(joined, n, layer) for n, layer in enumerate(layers))
                _copies.update(zip(layers, parts, strict=True))
    for layer in single:
        _copies[layer] = TiledWeight(layer.weight, layer.bias, layer._parameters)


def tiled_bytes(*models: torch.nn.Module) -> int:
    """Bytes of the copies that ``models`` use, shared ones once."""
    modules = {module for model in models for module in model.modules() if module in _copies}
    return sum(_copies[module].bytes for module in modules)


@contextmanager
def tiled(model: PreTrainedModel) -> Iterator[None]:
    """Inside, ``model`` multiplies by what ordered copies `tile` made, as far as they are current.

    Where gradients are asked for it multiplies by its own weights: a copy has none.
    """
    swaps = [] if torch.is_grad_enabled() else _swaps.get(model, [])
    for attributes, copy in swaps:
        if copy.current:
            attributes["forward"] = copy
    try:
        yield
    finally:
        for attributes, _ in swaps:
            attributes.pop("forward", None)


def _plain(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """Whether a layer is a linear one with torch's own forward, and can be tiled."""
    return (
        type(module) is torch.nn.Linear
        and "forward" not in vars(module)
        and can_tile(module.weight)
        and not (module.bias is not None and module.bias.is_inference())
    )
