"""A linear layer whose product a pass may bring along.

A part of `mspeckv.accelerate.weight_copies` and `short_head`; saves nothing by itself.

A layer is routed once. In a thread that is in a pass of ours it then multiplies by what the pass
says (`mspeckv.context.Pass.products`): an ordered copy of its weight, or a head over fewer tokens.
For everyone else, and in a copy or a pickle of the model, it is the layer it was.
"""

from __future__ import annotations

from types import MethodType
from weakref import WeakKeyDictionary

import torch

from mspeckv.context import Product, current

_always: WeakKeyDictionary[torch.nn.Module, Product] = WeakKeyDictionary()
"""What layers multiply by where no pass says otherwise; torch.compile does not look at it."""
_own: WeakKeyDictionary[torch.nn.Module, Product] = WeakKeyDictionary()
"""Forwards that routed layers had instead of their class's, such as a split head's."""


# By this name a pickle of a routed layer finds its class's own method.
def forward(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """``[..., in] -> [..., out]``, by the pass's product or the layer's own."""
    product = None
    if not torch.compiler.is_compiling():
        now = current()
        product = (now.products.get(self) if now is not None else None) or _always.get(self)
    return (product or _own.get(self) or MethodType(type(self).forward, self))(hidden)


def route(layer: torch.nn.Module, always: Product | None = None) -> None:
    """Have ``layer`` ask the pass for its product from now on.

    Args:
        always: what it multiplies by where there is no pass, or the pass names none.
    """
    if always is not None:
        _always[layer] = always
    if is_routed(layer):
        return
    if "forward" in vars(layer):
        _own.setdefault(layer, vars(layer)["forward"])
    layer.forward = MethodType(forward, layer)


def is_routed(layer: torch.nn.Module) -> bool:
    """Whether ``layer`` asks already."""
    return getattr(vars(layer).get("forward"), "__func__", None) is forward
