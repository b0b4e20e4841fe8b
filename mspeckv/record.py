"""What happens during a run, noted where it happens: when, for how long, and how many bytes.

* A *clock* tells time on the device's own time line. On a CPU work is done when its call returns. A
  GPU runs behind: there a mark is an event in the stream. It can be read once the device has passed
  it; reading it later waits for nothing.
* A *span* is a named range for the profiler; it costs next to nothing while none is running.
* The *ledger* is the one place where bytes over the link are counted.
* The *recorder* collects passes, guesses and transfers, round by round.
* Numbers are read from the device, and sent there, without stopping it.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.profiler import record_function

from mspeckv.events import Guess, Pass, TierCount, Transfer, count_tiers

OnStep = Callable[[Pass | Transfer], None]
"""Told of each pass and transfer."""
Mark = Any
"""A moment: seconds on a CPU, a `torch.cuda.Event` on a GPU."""


class HostClock:
    """Seconds since the clock was made, read at once."""

    at_once = True

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

    at_once = False

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


_NOTHING: AbstractContextManager[None] = nullcontext()
_active = False


def record_spans(on: bool) -> None:
    """Record ranges, or stop recording them."""
    global _active  # noqa: PLW0603  # one profiler at a time, as torch has it
    _active = on


def span(name: str) -> AbstractContextManager[object]:
    """A range called ``name`` in the profile's tables, such as ``kv/flush``."""
    return record_function(name) if _active else _NOTHING


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in host memory; waits until it has been computed and copied."""
    return all_to_host(tensor)[0]


def all_to_host(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors of one device in host memory, with one wait."""
    device = tensors[0].device
    if device.type != "cuda":
        return tensors
    out = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
    for copy, tensor in zip(out, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    with span("wait"):
        torch.cuda.current_stream(device).record_event().synchronize()
    return out


def to_device(values: list[int] | list[list[int]], device: torch.device) -> torch.Tensor:
    """int64 values on ``device``, in the order of its stream."""
    on_host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)


class Ledger:
    """Every copy over the link, in the order it finished.

    Copies finish on the link's thread while the run reads on its own, so access is locked.

    Args:
        clock: the run's clock; default: a new one of the host's.
        on_step: told of every pass and copy, on whatever thread it is noted. What it raises ends
            the telling, not the run: the run's thread warns of it (`Recorder.take`).
    """

    def __init__(self, clock: HostClock | None = None, on_step: OnStep | None = None) -> None:
        self.clock, self.on_step = clock or HostClock(), on_step
        self._failure: Exception | None = None
        self._entries: list[Transfer] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the run began."""
        return self.clock.now()

    def add(self, copy: Transfer) -> int:
        """Count one finished copy; returns its place in the ledger."""
        with self._lock:
            self._entries.append(copy)
            place = len(self._entries) - 1
        self.tell(copy)
        return place

    def tell(self, step: Pass | Transfer) -> None:
        """Tell ``on_step`` of one."""
        tell = self.on_step
        if tell is not None:
            try:
                tell(step)
            except Exception as failure:
                self.on_step, self._failure = None, failure

    def warn(self) -> None:
        """Say once what ``on_step`` raised."""
        failure, self._failure = self._failure, None
        if failure is not None:
            warnings.warn(f"on_step raised {failure!r}: it is told no more", stacklevel=2)

    def set_wait(self, place: int, wait_ms: float) -> None:
        """Note how long compute stood still for the copy at ``place``."""
        with self._lock:
            self._entries[place] = replace(self._entries[place], wait_ms=wait_ms)

    def since(self, mark: int = 0) -> tuple[Transfer, ...]:
        """Copies from place ``mark`` on."""
        with self._lock:
            return tuple(self._entries[mark:])


Progress = Callable[[str, int, int], None]
"""Called as ``(stage, done, total)``."""


class Cancelled(Exception):
    """The run was asked to stop."""


class Noted(NamedTuple):
    """What happened between two calls of `Recorder.take`."""

    passes: tuple[Pass, ...]
    tiers: tuple[TierCount, ...]
    transfers: tuple[Transfer, ...]
    guesses: tuple[Guess, ...]


class Recorder:
    """Collects passes, guesses and transfers between two calls of `take`.

    Args:
        ledger: the run's ledger; its clock is the run's clock.
        cancel: when set, the next `check` ends the run.
        on_progress: told of prefill's layers.
    """

    def __init__(
        self,
        ledger: Ledger,
        cancel: threading.Event | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.ledger, self.on_progress = ledger, on_progress
        self._cancel = cancel
        self._passes: list[tuple[Pass, Mark, Mark]] = []
        self._read: list[Pass] = []
        self._guesses: list[Guess] = []
        self._mark = 0

    def check(self) -> None:
        """End the run, by `Cancelled`, if that was asked for."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def mark(self) -> Mark:
        """A moment on the run's clock."""
        return self.ledger.clock.mark()

    def passed(self, untimed: Pass, start: Mark) -> None:
        """Note a forward pass that began at ``start`` and ends now: its times come later."""
        self._passes.append((untimed, start, self.mark()))
        if self.ledger.on_step is not None and self.ledger.clock.at_once:
            self._timed()

    def tested(self, guess: Guess) -> None:
        """Note a guess, and how much of it was kept."""
        self._guesses.append(guess)

    def so_far(self) -> tuple[tuple[Pass, ...], tuple[Guess, ...]]:
        """Passes and guesses since the last `take`, left in place."""
        return self._timed(), tuple(self._guesses)

    def take(self, kept: int | None = None) -> Noted:
        """What was noted since the last call: a round, of which the run's end left ``kept`` tokens.

        None where it left all.
        """
        transfers = self.ledger.since(self._mark)
        passes, guesses = self.so_far()
        counts = [TierCount(p.tier, 1, 0, 0, p.ms) for p in passes]
        counts += count_guesses(guesses, kept)
        self._mark += len(transfers)
        self._passes, self._read, self._guesses = [], [], []
        self.ledger.warn()
        return Noted(passes, count_tiers(counts), transfers, guesses)

    def _timed(self) -> tuple[Pass, ...]:
        """The passes noted, with their times: a GPU tells them once it has come by."""
        seconds = self.ledger.clock.seconds
        for untimed, begun, ended in self._passes[len(self._read) :]:
            start = seconds(begun)
            self._read.append(replace(untimed, start=start, ms=(seconds(ended) - start) * 1e3))
            self.ledger.tell(self._read[-1])
        return tuple(self._read)


def count_guesses(guesses: Sequence[Guess], kept: int | None) -> list[TierCount]:
    """What each of a round's guesses proposed, and how much of it was accepted before the end.

    A guess to the top tier begins where the round does; one to a tier below where the one before
    it ended.
    """
    counts, place = [], 0
    for guess in guesses:
        accepted = guess.accepted
        if kept is not None:
            start = 0 if guess is guesses[-1] else place
            accepted = max(0, min(accepted, kept - start))
        counts.append(TierCount(guess.tier, 0, len(guess.tokens), accepted, 0.0))
        place += guess.accepted + 1
    return counts
