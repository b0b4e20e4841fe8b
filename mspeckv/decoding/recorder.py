"""What happens during a run, noted where it happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mspeckv.clock import Mark
from mspeckv.events import Guess, Pass, Step, TierCount, Transfer, count_tiers
from mspeckv.kv.ledger import Ledger

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
        self._passes: list[_Timed] = []
        self._read: list[Pass] = []
        self._guesses: list[Guess] = []
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
        builds: bool = False,
    ) -> None:
        """Note a forward pass that began at ``start`` and ends now; see `Pass`."""
        timed = _Timed(tier, step, tokens, kv_bytes, start, self.mark(), lookups, builds)
        self._passes.append(timed)

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
        return Noted(passes, count_tiers(counts), transfers, guesses)

    def _timed(self) -> tuple[Pass, ...]:
        """The passes noted, with their times: a GPU tells them once it has come by."""
        seconds = self.ledger.clock.seconds
        for one in self._passes[len(self._read) :]:
            start = seconds(one.start)
            ms = (seconds(one.end) - start) * 1e3
            self._read.append(
                Pass(
                    one.tier, one.step, one.tokens, one.kv_bytes, start, ms,
                    *one.lookups, builds=one.builds,
                )
            )  # fmt: skip
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


class _Timed(NamedTuple):
    """A pass between two marks."""

    tier: int
    step: Step
    tokens: int
    kv_bytes: int
    start: Mark
    end: Mark
    lookups: tuple[int, int]
    builds: bool
