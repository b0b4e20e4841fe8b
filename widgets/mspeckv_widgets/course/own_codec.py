"""A learner's ``pack`` and ``unpack`` as a codec of the engine's, through its door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mspeckv.kv.codec import Codec, Restore, codecs
from mspeckv.kv.shape import KVShape
from mspeckv.settings import KVPolicy

Array = NDArray[Any]
Pack = Callable[[Array, str], Sequence[Array]]
"""``pack(x, name)``: what is stored of a head's block ``[T, D]`` of ``"keys"`` or ``"values"``."""
Unpack = Callable[[Sequence[Array], str], Array]
"""``unpack(stored, name)``: the block again."""
NAMES = ("keys", "values")


class StoredOtherwise(ValueError):
    """A block's record has another form than the first block's."""


class OwnCodec(Codec):
    """Blocks go head by head through two functions; what they store lies in the record as it is.

    Raises:
        StoredOtherwise: ``pack`` gives no arrays, or arrays of changing form.
    """

    def __init__(self, shape: KVShape, policy: KVPolicy, pack: Pack, unpack: Unpack) -> None:
        super().__init__(shape, policy)
        self._pack, self._unpack = pack, unpack
        count = self.block * self.dim
        tried = np.linspace(-1, 1, count, dtype=np.float32).reshape(self.block, -1)
        self._forms = {
            name: [(one.dtype, one.shape) for one in self._packed(tried, name)] for name in NAMES
        }
        self._sizes = {
            name: sum(np.dtype(kind).itemsize * int(np.prod(form)) for kind, form in forms)
            for name, forms in self._forms.items()
        }
        for name, size in self._sizes.items():
            self.add(name, torch.uint8, (self.heads, size))

    @property
    def bits(self) -> float:
        """Stored bits for each number (counted)."""
        return 8 * self.record_bytes / (2 * self.heads * self.block * self.dim)

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Pack whole blocks; see `Codec.encode`."""
        records = self.records_for(key)
        for name, tensor in zip(NAMES, (key, value), strict=True):
            blocks, out = self.blocks(tensor).float().numpy(), self.part(name, records)
            for block, head in np.ndindex(*blocks.shape[:2]):
                out[block, head] = torch.from_numpy(self._bytes(blocks[block, head], name))
        return records

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        """Unpack ``records`` ``[n, record_bytes]`` into ``[1, H, n * T, D]`` outputs."""
        for name, out in zip(NAMES, (key_out, value_out), strict=True):
            packed, blocks = self.part(name, records).numpy(), self.blocks(out)
            for block, head in np.ndindex(*packed.shape[:2]):
                back = self._restored(packed[block, head], name)
                blocks[block, head] = torch.from_numpy(back)

    def _packed(self, x: Array, name: str) -> list[Array]:
        stored = self._pack(x.copy(), name)
        if not isinstance(stored, tuple | list) or not all(
            isinstance(one, np.ndarray) and one.dtype != object for one in stored
        ):
            raise StoredOtherwise("pack should return a tuple of NumPy arrays, all that is stored")
        return [np.ascontiguousarray(one) for one in stored]

    def _bytes(self, x: Array, name: str) -> Array:
        """One head's block as bytes."""
        stored = self._packed(x, name)
        if [(one.dtype, one.shape) for one in stored] != self._forms[name]:
            raise StoredOtherwise(f"pack stores {name} in arrays of another form now and then")
        return np.concatenate([one.reshape(-1).view(np.uint8) for one in stored])

    def _restored(self, packed: Array, name: str) -> Array:
        """One head's block from its bytes."""
        stored, start = [], 0
        for kind, form in self._forms[name]:
            size = np.dtype(kind).itemsize * int(np.prod(form))
            stored.append(packed[start : start + size].copy().view(kind).reshape(form))
            start += size
        back = np.asarray(self._unpack(tuple(stored), name), dtype=np.float32)
        if back.shape != (self.block, self.dim):
            wanted, found = (self.block, self.dim), back.shape
            raise StoredOtherwise(f"unpack should give {name} of {wanted}, not {found}")
        return back


def register_own(name: str, pack: Pack, unpack: Unpack) -> None:
    """Let ``KVPolicy(codec=name)`` pack with these two functions; on a CPU.

    Args:
        name: what settings call it; a later one of that name takes its place.
    """

    def make(shape: KVShape, policy: KVPolicy, restore: Restore | None = None) -> OwnCodec:
        return OwnCodec(shape, policy, pack, unpack)

    codecs.register(name)(make)
