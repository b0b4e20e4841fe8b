"""The one place where bytes over the link are counted."""

from __future__ import annotations

import threading
from dataclasses import replace

from mspeckv.clock import HostClock
from mspeckv.events import Direction, Purpose, Transfer


class Ledger:
    """Every copy over the link, in the order it finished.

    Copies finish on the link's thread while the run reads on its own, so access is locked.

    Args:
        clock: the run's clock; default: a new one of the host's.
    """

    def __init__(self, clock: HostClock | None = None) -> None:
        self.clock = clock or HostClock()
        self._entries: list[Transfer] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the run began."""
        return self.clock.now()

    def add(
        self,
        direction: Direction,
        purpose: Purpose,
        layer: int,
        tier: int,
        count: int,
        start: float,
        ms: float,
    ) -> int:
        """Count one finished copy of ``count`` bytes; returns its place in the ledger."""
        with self._lock:
            self._entries.append(Transfer(direction, purpose, layer, tier, count, start, ms))
            return len(self._entries) - 1

    def set_wait(self, place: int, wait_ms: float) -> None:
        """Note how long compute stood still for the copy at ``place``."""
        with self._lock:
            self._entries[place] = replace(self._entries[place], wait_ms=wait_ms)

    def since(self, mark: int = 0) -> tuple[Transfer, ...]:
        """Copies from place ``mark`` on."""
        with self._lock:
            return tuple(self._entries[mark:])

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)
