"""Ordered copies of a model's weights, kept current, for the engine's passes to multiply by.

Saves 24 % of a plain step and 44 % of guessing on two AMD cores; next to nothing on a Xeon with
AVX-512 (benchmarks/results/accelerations-2-cores.txt, -16-cores).

The copies (`mspeckv.accelerate.ordered_weights`) are as large as the weights. They are made once
per model, in float32 on a CPU, where memory is plentiful; layers that read the same share one
(`mspeckv.accelerate.siblings`). The model's own weights stay, and only passes of ours use them
(`mspeckv.accelerate.products`). Where the processor gains nothing by
them, none are made; ``MSPECKV_TILED=0`` in the environment does without too, where many kernels
share a machine.

Every run begins with `tile`, which compares what was copied with the weights as they are, bit by
bit, and copies anew what has changed, by whatever way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeGuard
from weakref import WeakKeyDictionary

import psutil
import torch
from transformers import PreTrainedModel

from mspeckv.accelerate.ordered_weights import TiledWeight, can_tile
from mspeckv.accelerate.products import is_routed, route
from mspeckv.accelerate.siblings import siblings, together
from mspeckv.context import Products
from mspeckv.decoding.hooks import Hooks

SHARE_OF_FREE = 0.25
"""Most of the free memory that copies may take."""

_copies: WeakKeyDictionary[torch.nn.Module, TiledWeight] = WeakKeyDictionary()
_turn = threading.Lock()


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Multiply by ordered copies on a CPU."""
    if device.type != "cpu":
        return hooks
    return replace(hooks, products=tile, copy_bytes=copy_bytes)


@torch.inference_mode(mode=False)
@torch.no_grad()
def tile(model: PreTrainedModel) -> Products:
    """What ``model``'s linear layers multiply by in a pass; what they share is copied once.

    Copies what was not copied yet or has changed since. Copies nothing where that would not pay
    (`mspeckv.accelerate.ordered_weights`), is not possible, is switched off, or would take more
    than a quarter of the free memory.
    """
    with _turn:
        layers = {module for module in model.modules() if _plain(module)}
        fresh = {layer for layer in layers if layer not in _copies or not _copies[layer].holds()}
        for module in model.modules():
            if module in fresh or module not in layers:
                _copies.pop(module, None)
        needed = sum(layer.weight.numel() * 4 for layer in fresh)
        if needed <= SHARE_OF_FREE * psutil.virtual_memory().available:
            # those that read the same together
            for group in siblings(model, fresh):
                _copies.update(zip(group, together(group), strict=True))
            for layer in fresh:
                route(layer)
        return {layer: _copies[layer] for layer in layers if layer in _copies}


def copy_bytes(models: Iterable[torch.nn.Module]) -> int:
    """Bytes of the copies that ``models`` use, shared ones once."""
    modules = {module for model in models for module in model.modules() if module in _copies}
    return sum(_copies[module].bytes for module in modules)


def _plain(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """Whether a layer is a linear one with torch's own forward, and can be tiled."""
    return (
        type(module) is torch.nn.Linear
        and ("forward" not in vars(module) or is_routed(module))
        and can_tile(module.weight)
        and not (module.bias is not None and module.bias.is_inference())
    )
