"""When things happen, on the device's own time line.

On a CPU work is done when its call returns. A GPU runs behind: there a mark is an event in the
stream, which can be read once the device has come by, and reading one later than that waits for
nothing.
"""

from __future__ import annotations

import time
from typing import Any

import torch

Mark = Any
"""A moment: seconds on a CPU, a `torch.cuda.Event` on a GPU."""


class HostClock:
    """Seconds since the clock was made, read at once."""

    def __init__(self) -> None:
        self._origin = time.perf_counter()

    def now(self) -> float:
        """Seconds on the host."""
        return time.perf_counter() - self._origin

    def mark(self) -> Mark:
        """This moment."""
        return self.now()

    def seconds(self, mark: Mark) -> float:
        """When a mark was passed."""
        return float(mark)


class CudaClock(HostClock):
    """The same zero for host and device; marks lie in the current stream."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.current_stream(device).synchronize()
        self._zero = torch.cuda.Event(enable_timing=True)
        self._zero.record(torch.cuda.current_stream(device))
        self._zero.synchronize()
        super().__init__()
        self._device = device

    def mark(self) -> Mark:
        """An event after everything enqueued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, mark: Mark) -> float:
        """When the device passed a mark; waits for it."""
        mark.synchronize()
        return float(self._zero.elapsed_time(mark)) / 1e3


def clock_of(device: torch.device) -> HostClock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()
