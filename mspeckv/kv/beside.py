"""A state beside attention in one layer, as in Falcon-H1 (arXiv 2507.22448).

Transformers asks the layer of an index for its keys and values, and for its state. Here the layer
stays what its placement made of it, and has the state beside it (`PlacedLayer.beside`).
"""

from __future__ import annotations

from functools import cached_property
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

    def has_previous_state(self, *args: Any, **given: Any) -> bool:
        """Whether a layer, or the last one, has read something."""
        return bool(self._asked.has_previous_state(*args, **given))

    def get_conv_state(self, *args: Any, **given: Any) -> Any:
        """What a layer's convolution looks back on."""
        return self._asked.get_conv_state(*args, **given)

    def get_recurrent_state(self, *args: Any, **given: Any) -> Any:
        """A layer's state proper."""
        return self._asked.get_recurrent_state(*args, **given)

    def update_conv_state(self, *args: Any, **given: Any) -> Any:
        """Take new inputs of a layer's convolution."""
        return self._asked.update_conv_state(*args, **given)

    def update_recurrent_state(self, *args: Any, **given: Any) -> Any:
        """Take a layer's new state."""
        return self._asked.update_recurrent_state(*args, **given)
