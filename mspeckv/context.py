"""What one forward pass carries to the code that transformers calls in the middle of it.

A pass runs in one thread from its first layer to its last, so its `Pass` is that thread's alone.
Whatever answers a model in the middle of a pass (attention, masks, a linear layer's product) asks
`current` and, where there is no pass, does what the model does by itself. So nothing of a model is
swapped, and any number of threads may use one model, through the engine or past it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Watcher = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Called once per layer with (layer index, query [B,H,Q,D], key [B,Hkv,K,D], value)."""
Product = Callable[[torch.Tensor], torch.Tensor]
"""``[..., in] -> [..., out]``."""

Products = Mapping[torch.nn.Module, Product]
"""What linear layers multiply by instead of their own weights."""


@dataclass
class Pass:
    """One forward pass.

    Attributes:
        watcher: shown every layer.
        static: which keys are filled (`mspeckv.static.StaticKeys`), where every slot of a cache is
            handed to attention.
        products: what to multiply by instead of a linear layer's own weight.
        takes_packed: whether attention may be handed packed blocks.
        packed: by layer, the packed blocks (`mspeckv.kv.packed.PackedBlocks`) before the keys that
            the layer returned.
        masks: the causal mask by shape: every layer of a pass has the same.
    """

    watcher: Watcher | None = None
    static: Any = None
    products: Products = field(default_factory=dict)
    takes_packed: bool = False
    packed: dict[int, Any] = field(default_factory=dict)
    masks: dict[tuple[int, ...], torch.Tensor | None] = field(default_factory=dict)


class _Thread(threading.local):
    now: Pass | None = None


_thread = _Thread()


def current() -> Pass | None:
    """The pass that this thread is in the middle of."""
    return _thread.now


@contextmanager
def carrying(one: Pass) -> Iterator[Pass]:
    """Inside, ``one`` is this thread's pass."""
    before, _thread.now = _thread.now, one
    try:
        yield one
    finally:
        _thread.now = before
