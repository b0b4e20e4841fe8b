"""A state beside attention in one layer, as in Falcon-H1 (arXiv 2507.22448).

Transformers asks the layer of an index for its keys and values, and for its state. Here the layer
stays what its placement made of it, and has the state beside it (`PlacedLayer.beside`).
"""

from __future__ import annotations

from functools import cached_property, partialmethod
from typing import Any

from transformers.cache_utils import Cache


class StatesBeside(Cache):  # type: ignore[misc]  # transformers is not typed here
    """A cache that answers for the states of its layers, wherever they are."""

    layers: list[Any]

    @cached_property
    def _asked(self) -> Cache:
        """The cache, of layers that have a state beside them the states alone."""
        return Cache(layers=[layer.beside or layer for layer in self.layers])

    @property
    def parts(self) -> list[Any]:
        """Layers, and the states beside them."""
        return [*self.layers, *(layer.beside for layer in self.layers if layer.beside)]

    def _ask(self, name: str, *args: Any, **given: Any) -> Any:
        """What transformers asks of the state of a layer: in its convolution, or proper."""
        return getattr(self._asked, name)(*args, **given)

    has_previous_state = partialmethod(_ask, "has_previous_state")
    get_conv_state = partialmethod(_ask, "get_conv_state")
    get_recurrent_state = partialmethod(_ask, "get_recurrent_state")
    update_conv_state = partialmethod(_ask, "update_conv_state")
    update_recurrent_state = partialmethod(_ask, "update_recurrent_state")
