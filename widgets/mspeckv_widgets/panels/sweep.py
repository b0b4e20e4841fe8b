"""Runs a reduced sweep on a worker thread and keeps its rows, ready to be looked at."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from mspeckv import Pair
from mspeckv_study.experiments import Models, Row
from mspeckv_widgets.panels.worker import Worker
from mspeckv_widgets.results import rerun

SweepState = Literal["idle", "loading", "running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Order:
    """A sweep that is asked for; see `mspeckv_widgets.results.rerun`."""

    name: str
    values: tuple[int, ...]
    variants: tuple[str, ...]
    new_tokens: int
    seeds: tuple[int, ...]

    @property
    def trials(self) -> int:
        """Rows that it will give."""
        return len(self.values) * len(self.variants) * len(self.seeds)


@dataclass(frozen=True)
class SweepView:
    """What there is to draw, at one moment.

    Attributes:
        version: grows with every change.
        busy: a worker is still at work, perhaps for a sweep that was already forgotten.
        waits: the worker waits until another panel's has ended.
        left_seconds: time left at the pace so far; None before the first row.
    """

    version: int
    state: SweepState
    busy: bool
    error: str
    order: Order | None
    rows: tuple[Row, ...]
    left_seconds: float | None
    waits: bool = False


class SweepRunner(Worker[SweepState]):
    """One sweep at a time, on a thread."""

    def __init__(self, pair: Pair | None = None) -> None:
        super().__init__("idle", "stopped", "failed", "mspeckv-sweep")
        self.pair = pair
        self._order: Order | None = None
        self._rows: tuple[Row, ...] = ()
        self._began = 0.0

    def view(self) -> SweepView:
        """The state of things now; later rows do not change it."""
        busy = self.busy
        with self._lock:
            left = None
            if self._order is not None and self._rows:
                pace = (time.monotonic() - self._began) / len(self._rows)
                left = pace * (self._order.trials - len(self._rows))
            return SweepView(
                self._version, self._state, busy, self._error, self._order, self._rows, left,
                self._waits,
            )  # fmt: skip

    def start(self, order: Order) -> bool:
        """Begin a sweep; False, and nothing happens, while one is at work."""
        with self._lock:
            if self.busy:
                return False
            self._order, self._rows = order, ()
            self._set("loading")
            self._launch(order)
            return True

    def forget(self) -> None:
        """Stop, and drop the rows."""
        self._cancel.set()
        with self._lock:
            self._order, self._rows = None, ()
            self._set("idle")

    def _shown(self) -> Order | None:
        return self._order

    def _run(self, order: Order, cancel: threading.Event, *_: Any) -> None:
        if self.pair is None:
            self.pair = Models().load()
        self._began = time.monotonic()
        self._enter(order, "running")

        def on_row(row: Row) -> None:
            with self._lock:
                if order is self._order:
                    self._rows = (*self._rows, row)
                    self._version += 1

        rerun(
            order.name, order.values, order.variants, new_tokens=order.new_tokens,
            seeds=order.seeds, pair=self.pair, on_row=on_row, cancel=cancel,
        )  # fmt: skip
        self._enter(order, "stopped" if cancel.is_set() else "done")
