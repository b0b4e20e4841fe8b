"""Caches and their layers: what all have in common.

All are `transformers` caches: a model hands a layer its new tokens' keys and values and gets back
what attention should see. A layer shows that one way, `PlacedLayer.read`: as `floats.Floats`, or,
where an acceleration is plugged in, as something that its kernel reads faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partialmethod
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from mspeckv.context import KV, Shown, current
from mspeckv.kv.latent import Latents, halves

UNBOUNDED = 2**31
_REPEATS = 8
"""Tokens that a pass reads again beside its new ones at most; more have a pass of their own."""


def fold_groups(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """``[B, Hkv*G, Q, D] -> [B, Hkv, G*Q, D]``: the heads that share a KV head become rows."""
    batch, heads, length, dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads * length, dim)


class PlacedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not typed here
    """One layer's keys and values, wherever they lie.

    A new placement says how tokens are written (`put`), shown (`read`), kept (`settle`) and
    counted; see `mspeckv.kv.placement`.
    """

    is_sliding = False
    is_croppable = True
    attends = True
    repeats = 0
    """Tokens of the coming pass that are held already, and read again for other layers."""
    beside: Any = None
    """The state that the layer keeps as well, if it does (`mspeckv.kv.recurrent`)."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.is_initialized = True

    def stand_at(self, length: int) -> None:
        """As if ``length`` tokens had been read; what they were does not matter."""
        self.length = length

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write unsettled tokens ``[1, H, n, D]`` from position ``start`` on."""
        raise NotImplementedError

    def read(self, length: int) -> Shown:
        """Show the first ``length`` tokens to attention."""
        raise NotImplementedError

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Shown:
        """Take a pass's new tokens ``[1, H, n, D]``; show everything."""
        start = self.length
        self.length += key.shape[2]
        self.put(start, key, value)
        return self.read(self.length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """What transformers calls, with new tokens; `Tier.update` knows the layer's index."""
        shown = self.append(key_states, value_states)
        return shown.key, shown.value

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; keep the rest for good."""
        self.length = length

    def restart(self) -> None:
        """Forget everything, and keep the memory for another run."""
        self.stand_at(0)

    def bytes_to_read(self, length: int) -> int:
        """Bytes of stored KV that a pass over the first ``length`` tokens reads."""
        raise NotImplementedError

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        raise NotImplementedError

    @property
    def contents(self) -> list[torch.Tensor]:
        """Everything held, as views: of the same shapes in any layer like it that holds as much."""
        raise NotImplementedError

    # Questions that transformers asks of any layer.

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: sizes are known, and checked, before a run starts."""

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a pass of ``query_length`` tokens sees."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """No maximum beyond the sizes checked before the run."""
        return -1

    get_max_cache_shape = get_max_length


class Tier(Cache):  # type: ignore[misc]  # transformers is not typed here
    """A tier's cache: layers, and what a reader asks before and after a pass.

    Transformers asks the layer of an index for its keys and values, and for its state. A layer may
    keep both, as in Falcon-H1 (arXiv 2507.22448): it stays what its placement made of it, and has
    the state beside it (`PlacedLayer.beside`).

    Attributes:
        came: shown a layer's index, and its new keys and values as they come.
        repeats: tokens of the pass that its layers of attention hold already.
        source: a cache whose recurrent states may be taken over.
        settled_slots: the prompt's slots, which no pass over it rewrites; None: one a token.
    """

    layers: list[Any]
    repeats = 0
    source: Tier | None = None
    settled_slots: int | None = None
    came: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None

    @cached_property
    def _asked(self) -> Cache:
        """The cache, of layers that have a state beside them the states alone."""
        return Cache(layers=[layer.beside or layer for layer in self.layers])

    def _ask(self, name: str, *args: Any, **given: Any) -> Any:
        """What transformers asks of the state of a layer: in its convolution, or proper."""
        return getattr(self._asked, name)(*args, **given)

    has_previous_state = partialmethod(_ask, "has_previous_state")
    get_conv_state = partialmethod(_ask, "get_conv_state")
    get_recurrent_state = partialmethod(_ask, "get_recurrent_state")
    update_conv_state = partialmethod(_ask, "update_conv_state")
    update_recurrent_state = partialmethod(_ask, "update_recurrent_state")

    @property
    def parts(self) -> list[Any]:
        """Layers, and the states beside them."""
        return [*self.layers, *(layer.beside for layer in self.layers if layer.beside)]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> KV:
        """Hand a layer its new tokens, and leave what it shows where attention finds it."""
        layer, again = self.layers[layer_idx], self.repeats
        layer.repeats = again
        parts = key_states[:, :, again:], value_states[:, :, again:]
        widths = key_states.shape[-1], value_states.shape[-1]
        latents = None
        if widths[0] == widths[1]:
            shown: Shown = layer.append(*parts)
        else:
            shown = latents = Latents(layer.append(*halves(*parts)), widths)
        now = current()
        if now is not None:
            now.shown[layer_idx] = shown
        if self.came is not None:
            self.came(layer_idx, key_states, value_states)
        return latents.parts() if latents else (shown.key, shown.value)

    @property
    def length(self) -> int:
        """Tokens of the sequence that the cache stands for."""
        return int(self.attending[0].length)

    @property
    def attending(self) -> list[Any]:
        """Layers that hold keys and values."""
        return [layer for layer in self.layers if layer.attends]

    @property
    def states(self) -> list[Any]:
        """What holds a recurrent state (`mspeckv.kv.recurrent`)."""
        return [part for part in self.parts if getattr(part, "number_of_states", 0)]

    def to_read(self, tokens: list[int]) -> Iterator[tuple[list[int], int]]:
        """What passes must read, in order, so that the cache stands for ``tokens``.

        Yields:
            Token ids, and the position of the first of them; the last pass ends with the last of
            ``tokens``.
        """
        if not self.states:
            yield tokens[self.length :], self.length
            return
        if self.source is not None:
            for own, other in zip(self.states, self.source.states, strict=True):
                own.adopt(other, self.length)
        length, start = self.length, int(self.states[0].length)
        if length - start > _REPEATS or (start < length and self.due(length)):
            yield from self.again(tokens[start:length], start)
            self.settle(length)
            start = length
        yield from self.again(tokens[start:], start)

    def again(self, tokens: list[int], start: int) -> Iterator[tuple[list[int], int]]:
        """One pass, whose first tokens may be known to all layers but the recurrent ones."""
        self.repeats = self.length - start if self.length else 0
        for state in self.states:
            state.mark()
        yield tokens, start
        for state in self.states:
            state.length = self.length
        self.repeats = 0

    def due(self, length: int) -> bool:
        """Whether settling ``length`` tokens changes how those before are held."""
        return False

    def room(self, length: int) -> int:
        """Most tokens that may follow the first ``length`` in one pass."""
        return UNBOUNDED

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        for part in self.parts:
            part.settle(length)

    def restart(self) -> None:
        """Forget everything, and keep the memory."""
        self.repeats = 0
        for part in self.parts:
            part.restart()

    def read_bytes(self) -> int:
        """Bytes of stored KV that one pass reads."""
        return sum(int(part.bytes_to_read(part.length)) for part in self.parts)

    def lookups(self) -> tuple[int, int]:
        """Packed layers found on the device, and fetched, since the last call."""
        return 0, 0

    def state(self) -> tuple[tuple[int, ...], list[torch.Tensor]]:
        """How many tokens each layer holds, and everything that layers hold, as views."""
        tensors = [tensor for part in self.parts for tensor in part.contents]
        return tuple(part.length for part in self.parts), tensors
