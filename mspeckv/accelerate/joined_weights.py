"""Layers that read one hidden state, multiplied by one product of their weights together.

A decoder's query, key and value projections read the same hidden state, and so do an MLP's gate
and up projections. A pass of a few rows spends a good part of a narrow product on starting it; one
product of all their weights reads as many bytes with fewer starts. The model stays as it is: the
first layer asked computes for all, the others take their part if they are shown the very same
tensor, and compute anew if they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mspeckv.accelerate.ordered_weights import Copy, Origin, multiply, order

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one module that read the same, as transformers' decoders call them."""


class JoinedWeights:
    """One ordered copy of several layers' weights, a part of its product for each.

    Args:
        layers: with the same input features, all with a bias or none.
    """

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        self.sizes = [layer.out_features for layer in layers]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.ordered, self.bytes = order(weight), weight.nbytes
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        # one attribute, so that a second thread's pass finds either all of a product or none
        self._waiting: tuple[torch.Tensor, dict[int, torch.Tensor]] | None = None

    def part(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Layer ``index``'s product: ``[..., in] -> [..., out]``, a view of the joined one."""
        waiting = self._waiting
        if waiting is None or waiting[0] is not hidden or index not in waiting[1]:
            product = multiply(hidden, self.ordered, self.bias)
            waiting = hidden, dict(enumerate(product.split(self.sizes, -1)))
        part = waiting[1].pop(index)
        self._waiting = waiting if waiting[1] else None
        return part


class JoinedPart(Copy):
    """One layer's share of `JoinedWeights`, called as the layer is."""

    def __init__(self, joined: JoinedWeights, index: int, layer: torch.nn.Linear) -> None:
        self.joined, self.index = joined, index
        self.origin = Origin(layer._parameters)
        self.bytes = joined.bytes * joined.sizes[index] // sum(joined.sizes)

    def product(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[..., in] -> [..., out]``, this layer's part of the joined product."""
        return self.joined.part(self.index, hidden)


def siblings(module: torch.nn.Module) -> Iterator[list[torch.nn.Linear]]:
    """Sets of ``module``'s own layers that can be joined."""
    for names in SIBLINGS:
        layers = [layer for name in names if (layer := module._modules.get(name)) is not None]
        if (
            len(layers) == len(names)
            and len({id(layer) for layer in layers}) == len(names)
            and all(type(layer) is torch.nn.Linear for layer in layers)
            and len({(layer.in_features, layer.bias is None) for layer in layers}) == 1
        ):
            yield layers  # type: ignore[misc]  # checked just above
