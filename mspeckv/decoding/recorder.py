"""What happens during a run, noted where it happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from mspeckv.clock import Mark
from mspeckv.events import Pass, Step, TierCount, Transfer, count_tiers
from mspeckv.kv.ledger import Ledger

Progress = Callable[[str, int, int], None]
"""Called as ``(stage, done, total)``."""


class Cancelled(Exception):
    """The run was asked to stop."""


class Verdict(NamedTuple):
    """What became of one guess: ``tier`` proposed to ``verifier``, which kept ``accepted``."""

    tier: int
    verifier: int
    proposed: int
    accepted: int


class Recorder:
    """Collects passes, acceptance counts and transfers between two calls of `take`.

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
        self._passes: list[_Timed] = []
        self._counts: list[TierCount] = []
        self._verdicts: list[Verdict] = []
        self._mark = 0

    def check(self) -> None:
        """End the run if that was asked for.

        Raises:
            Cancelled: it was.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def mark(self) -> Mark:
        """A moment on the run's clock."""
        return self.ledger.clock.mark()

    def passed(
        self,
        tier: int,
        step: Step,
        tokens: int,
        kv_bytes: int,
        start: Mark,
        lookups: tuple[int, int] = (0, 0),
    ) -> None:
        """Note a forward pass that began at ``start`` and ends now; see `Pass`."""
        self._passes.append(_Timed(tier, step, tokens, kv_bytes, start, self.mark(), lookups))

    def count(self, tier: int, verifier: int, proposed: int, accepted: int) -> None:
        """Note how much of what ``tier`` handed up to ``verifier`` was kept."""
        self._counts.append(TierCount(tier, 0, proposed, accepted, 0.0))
        self._verdicts.append(Verdict(tier, verifier, proposed, accepted))

    def so_far(self) -> tuple[tuple[Pass, ...], tuple[Verdict, ...]]:
        """Passes and verdicts since the last `take`, left in place."""
        return self._timed(), tuple(self._verdicts)

    def take(self) -> tuple[tuple[Pass, ...], tuple[TierCount, ...], tuple[Transfer, ...]]:
        """What was noted since the last call."""
        transfers = self.ledger.since(self._mark)
        passes = self._timed()
        counts = [TierCount(p.tier, 1, 0, 0, p.ms) for p in passes]
        out = passes, count_tiers([*counts, *self._counts]), transfers
        self._mark += len(transfers)
        self._passes, self._counts, self._verdicts = [], [], []
        return out

    def _timed(self) -> tuple[Pass, ...]:
        """The passes noted, with their times: a GPU tells them once it has come by."""
        seconds = self.ledger.clock.seconds
        out = []
        for one in self._passes:
            start = seconds(one.start)
            ms = (seconds(one.end) - start) * 1e3
            out.append(Pass(one.tier, one.step, one.tokens, one.kv_bytes, start, ms, *one.lookups))
        return tuple(out)


class _Timed(NamedTuple):
    """A pass between two marks."""

    tier: int
    step: Step
    tokens: int
    kv_bytes: int
    start: Mark
    end: Mark
    lookups: tuple[int, int]
