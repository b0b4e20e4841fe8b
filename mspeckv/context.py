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
from typing import Any, Protocol

import torch

KV = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, ``[B, H, S, D]`` each."""


class Shown(Protocol):
    """What a cache layer shows to attention: one of a few kinds, which kernels may read as it is.

    ``key`` and ``value`` are what transformers carries from the cache to attention.
    """

    @property
    def key(self) -> torch.Tensor:
        """``[B, H, n, D]``: everything, or those that are floats."""

    @property
    def value(self) -> torch.Tensor:
        """Of the same shape."""

    @property
    def tokens(self) -> int:
        """How many tokens there are, the pass's own included."""

    def newest(self, count: int) -> KV:
        """The last ``count`` tokens as floats ``[B, H, count, D]``."""

    def whole(self) -> KV:
        """Everything as floats ``[B, H, tokens, D]``."""

    def release(self) -> None:
        """Attention has read it."""


class Around:
    """Shows what ``inner`` shows."""

    inner: Shown

    @property
    def key(self) -> torch.Tensor:
        """As of `Shown`."""
        return self.inner.key

    @property
    def value(self) -> torch.Tensor:
        """As of `Shown`."""
        return self.inner.value

    @property
    def tokens(self) -> int:
        """As of `Shown`."""
        return self.inner.tokens

    def release(self) -> None:
        """As of `Shown`."""
        self.inner.release()


Watcher = Callable[[int, torch.Tensor, Shown], None]
"""Called once per layer with (layer index, query ``[B, Hq, Q, D]``, what the layer shows)."""
Masks = dict[tuple[int, ...], torch.Tensor | None]
"""Causal masks by shape: every layer of a pass has the same."""
Kernel = Callable[[torch.Tensor, Any, float | None, Masks], torch.Tensor]
"""Causal attention of the newest Q tokens.

Called with (query ``[B, Hq, Q, D]``, what a layer shows, scale of the scores or None for
``D ** -0.5``, the pass's masks); returns ``[B, Hq, Q, D]``.
"""
Kernels = Mapping[type, Kernel]
"""The kernel for a kind of `Shown`; one without is read whole, as floats."""
Attention = Callable[..., Any]
"""What transformers calls in every layer: (module, query, key, value, mask, scaling=, ...)."""
Product = Callable[[torch.Tensor], torch.Tensor]
"""``[..., in] -> [..., out]``."""
Products = Mapping[torch.nn.Module, Product]
"""What linear layers multiply by instead of their own weights."""


@dataclass
class Pass:
    """One forward pass.

    Attributes:
        kernels: by what a layer shows; the stock one reads floats where none is named.
        shown: by layer, what its cache layer shows to attention, until attention takes it.
        masks: made by the first layer that wants them.
        mask: makes the mask that transformers hands to layers. A pass is never padded, and its
            attention knows which keys come when: None will do.
    """

    attend: Attention
    watcher: Watcher | None = None
    kernels: Kernels = field(default_factory=dict)
    products: Products = field(default_factory=dict)
    shown: dict[int, Shown] = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)
    mask: Callable[..., Any] = lambda **_: None


_thread = threading.local()


def current() -> Pass | None:
    """The pass that this thread is in the middle of."""
    return getattr(_thread, "now", None)


@contextmanager
def carrying(one: Pass) -> Iterator[Pass]:
    """Inside, ``one`` is this thread's pass."""
    before, _thread.now = current(), one
    try:
        yield one
    finally:
        _thread.now = before
