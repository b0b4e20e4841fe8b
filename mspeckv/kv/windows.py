"""Layers that see a window or a chunk: its tokens as floats on the device, and no more.

Such a layer does not grow with the text, so no policy packs or moves it. What it holds is the
window, and before it as many tokens as rejected guesses could take it back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mspeckv.context import KV
from mspeckv.kv.floats import Buffer, Floats
from mspeckv.kv.kinds import Sight
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.shape import KVShape


@dataclass(frozen=True)
class Recent(Floats):
    """Floats of a text's last tokens, for queries that see so far and no further.

    Attributes:
        sight: how far that is.
        first: position of the first token.
    """

    sight: Sight
    first: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the text."""
        return self.first + self.key.shape[2]


WINDOW_SLACK = 64
"""Tokens between two slides of a window."""


def floats_seen(key: torch.Tensor, value: torch.Tensor, sight: Sight) -> Floats:
    """Keys and values of a whole text, for queries that see so far."""
    return Recent(key, value, sight) if sight.tokens else Floats(key, value)


def window_slots(sight: Sight, slack: int, capacity: int) -> int:
    """Slots of a `WindowLayer`: the window, what may be taken back, and room before it slides."""
    return min(capacity, sight.tokens + 2 * slack)


class WindowLayer(PlacedLayer):
    """The last tokens of a text, in slots that slide now and then.

    Args:
        buffer: as many slots as `window_slots` says.
        slack: tokens that may be taken back at most.

    Attributes:
        first: position of slot 0.
    """

    def __init__(self, buffer: Buffer, sight: Sight, slack: int) -> None:
        super().__init__()
        self.buffer, self.sight, self.slack = buffer, sight, slack
        self.slots, self.first = int(buffer.key.shape[2]), 0

    @classmethod
    def of(
        cls, shape: KVShape, sight: Sight, slack: int, capacity: int, device: torch.device
    ) -> WindowLayer:
        """One for a cache of ``capacity`` tokens."""
        return cls(Buffer(shape, window_slots(sight, slack, capacity), device), sight, slack)

    def stand_at(self, length: int) -> None:
        """As if ``length`` tokens had been read; what they were does not matter."""
        self.length, self.first = length, max(0, self.sight.first(length - self.slack))

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Recent:
        """Take a pass's new tokens; show those that its queries see."""
        start, new = self.length, (key, value)
        first = max(self.first, self.sight.first(start - self.repeats))
        before = self.buffer.read(start - self.first, first - self.first)
        if not self._slide(start, key.shape[2]):
            # more than there is room for, as a prompt is: its end is kept
            whole = tuple(torch.cat(parts, 2) for parts in zip(before, new, strict=True))
            self.length = start + key.shape[2]
            self.first = self.length - min(self.slots, whole[0].shape[2])
            self.put(self.first, *(part[:, :, self.first - self.length :] for part in whole))
            return Recent(whole[0], whole[1], self.sight, first)
        self.length = start + key.shape[2]
        self.put(start, key, value)
        return Recent(*self._slots_from(first, self.length), self.sight, first)

    def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write unsettled tokens from position ``start`` on."""
        self._slide(start, key.shape[2])
        self.buffer.write(start - self.first, key, value)

    def read(self, length: int) -> Recent:
        """What is held of the first ``length`` tokens."""
        return Recent(*self._slots_from(self.first, length), self.sight, self.first)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        if self.first > max(0, self.sight.first(length)):
            raise RuntimeError(f"{length} tokens: of their window the first have been dropped")
        self.length = length

    def bytes_to_read(self, length: int) -> int:
        """Bytes of what the next query sees."""
        return (length - max(0, self.sight.first(length))) * self.buffer.token_bytes

    @property
    def contents(self) -> list[torch.Tensor]:
        """What the next query sees: how much else is held depends on how the text came."""
        return [*self._slots_from(max(0, self.sight.first(self.length)), self.length)]

    def bytes_by_place(self) -> dict[str, int]:
        """Bytes allocated for this layer alone."""
        return {"windows": self.buffer.bytes}

    def _slots_from(self, first: int, end: int) -> KV:
        return self.buffer.read(end - self.first, first - self.first)

    def _slide(self, start: int, new: int) -> bool:
        """Make room for ``new`` tokens from ``start`` on; whether there is as much."""
        if start + new - self.first <= self.slots:
            return True
        keep = max(self.first, self.sight.first(start - self.slack))
        if start + new - keep > self.slots:
            return False
        kept = [part.clone() for part in self._slots_from(keep, start)]
        self.first = keep
        self.buffer.write(0, kept[0], kept[1])
        return True
