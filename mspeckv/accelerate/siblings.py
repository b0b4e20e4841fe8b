"""Layers that read one hidden state, multiplied by one product of their weights together.

Saves 4 to 6 % of a plain step beyond `mspeckv.accelerate.weight_copies` on two AMD cores
(benchmarks/results/accelerations-2-cores.txt; without this 20 and 38 % instead of its 24 and 44).

Queries, keys and values are made of the same hidden state, and so are an MLP's gate and up parts.
Starting a product of few rows costs some 12 us; one of all their weights reads as many bytes and
starts once. The first layer asked computes for all; the others take their part if they are shown
the very same tensor, and compute anew if they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch

from mspeckv.accelerate.ordered_weights import TiledWeight, multiply, order

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one module that read the same, as transformers' decoders call them."""


class Siblings:
    """Several layers' products, made together, a part for each.

    Args:
        products: ``[..., in]`` to each layer's ``[..., out]``.
    """

    def __init__(self, products: Callable[[torch.Tensor], Sequence[torch.Tensor]]) -> None:
        self.products = products
        # one attribute, so that a second thread's pass finds either all of a product or none
        self._waiting: tuple[torch.Tensor, dict[int, torch.Tensor]] | None = None

    def part(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Layer ``index``'s product: ``[..., in] -> [..., out]``."""
        waiting = self._waiting
        if waiting is None or waiting[0] is not hidden or index not in waiting[1]:
            waiting = hidden, dict(enumerate(self.products(hidden)))
        part = waiting[1].pop(index)
        self._waiting = waiting if waiting[1] else None
        return part


def together(layers: Sequence[torch.nn.Linear]) -> list[TiledWeight]:
    """A product for each of ``layers``, current as long as that layer's own weight is.

    Args:
        layers: one set of `siblings`.
    """
    if len(layers) == 1:
        return [TiledWeight(layers[0]._parameters)]
    sizes = [layer.out_features for layer in layers]
    ordered = order(torch.cat([layer.weight.detach() for layer in layers]))
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = torch.cat(biases) if biases else None
    joint = Siblings(lambda hidden: multiply(hidden, ordered, bias).split(sizes, -1))
    return [
        TiledWeight(layer._parameters, partial(joint.part, index))
        for index, layer in enumerate(layers)
    ]


def siblings(
    model: torch.nn.Module, layers: Iterable[torch.nn.Linear]
) -> Iterator[list[torch.nn.Linear]]:
    """``layers`` of ``model`` in sets of one module that read the same; the others each alone."""
    alone = set(layers)
    for module, names in product(model.modules(), SIBLINGS):
        held: dict[str, Any] = module._modules
        found = [held[name] for name in names if held.get(name) in alone]
        inputs = {(layer.in_features, layer.bias is None) for layer in found}
        if len(set(found)) == len(names) and len(inputs) == 1:
            alone.difference_update(found)
            yield found
    yield from ([layer] for layer in alone)
