"""Cache layers: what all have in common, and floats on the device.

All are `transformers` cache layers: a model calls `update` with the new tokens' K and V and gets
back everything attention should see, ``[1, H, S, D]``. Layers of packed blocks:
`mspeckv.kv.blocks`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

KV = tuple[torch.Tensor, torch.Tensor]


class PlacedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not typed here
    """What the layers share: a length, and the questions transformers asks of a layer."""

    is_sliding = False
    is_croppable = True
    brings = False
    """Whether `bring` has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.is_initialized = True

    @property
    def filled(self) -> int:
        """Slots of `view` that hold a token."""
        return self.length

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

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; keep the rest for good."""
        self.length = length

    def restart(self) -> None:
        """Forget everything, and keep the memory for another run."""
        self.length = 0

    @property
    def contents(self) -> list[torch.Tensor]:
        """Everything held, as views: of the same shapes in any layer like it that holds as much."""
        raise NotImplementedError

    # What a static pass (`mspeckv.static`) asks of a layer.

    @property
    def view(self) -> Buffer:
        """Where every token can be found, by slot, once brought."""
        raise NotImplementedError

    def bring(self, length: int, coarse: bool = False) -> None:
        """Have `view` hold the first ``length`` tokens."""

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]`` of `view` and, to keep, in the float tail."""
        raise NotImplementedError

    @property
    def tail_start(self) -> int:
        """Slot of `view` at which the float tail begins."""
        return 0


class Buffer:
    """Preallocated K and V of one layer ``[1, H, capacity, D]``."""

    def __init__(
        self, heads: int, capacity: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.key = torch.empty(1, heads, capacity, dim, dtype=dtype, device=device)
        self.value = torch.empty_like(self.key)

    def write(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put ``[1, H, n, D]`` at slots ``start .. start + n``."""
        end = start + key.shape[2]
        self.key[:, :, start:end] = key
        self.value[:, :, start:end] = value

    def read(self, end: int, start: int = 0) -> KV:
        """Slots ``start .. end`` as views."""
        return self.key[:, :, start:end], self.value[:, :, start:end]

    def write_at(self, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]``, which only the device needs to know."""
        self.key.index_copy_(2, slots, key)
        self.value.index_copy_(2, slots, value)

    @property
    def whole(self) -> KV:
        """Every slot."""
        return self.key, self.value

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return 2 * self.key.numel() * self.key.element_size()


class FloatLayer(PlacedLayer):
    """Unquantized KV on the device: on-chip layers, and the small caches of tiers 0 and 1."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__()
        self.buffer = buffer

    @property
    def contents(self) -> list[torch.Tensor]:
        """The tokens."""
        return [*self.buffer.read(self.length)]

    @property
    def view(self) -> Buffer:
        """The buffer."""
        return self.buffer

    def write_at(
        self, slots: torch.Tensor, tail: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put ``[1, H, n, D]`` at ``slots`` ``[n]``."""
        self.buffer.write_at(slots, key, value)

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        return {"on_chip": self.buffer.bytes}

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write tokens from position ``start`` on."""
        self.buffer.write(start, key, value)

    def show(self, length: int, coarse: bool = False) -> KV:
        """The first ``length`` tokens, as views; floats are never coarse."""
        return self.buffer.read(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Append and return views of everything held."""
        self.put(self.length, key_states, value_states)
        self.length += key_states.shape[2]
        return self.show(self.length)
