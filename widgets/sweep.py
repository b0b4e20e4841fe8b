"""Runs a reduced sweep on a worker thread and keeps its rows, ready to be looked at."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

from mspeckv_widgets.results import rerun
from mspeckv_widgets.runner import turn

from mspeckv import Pair, load_pair
from mspeckv.experiments import Row

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
        left_seconds: time left at the pace so far; None before the first row.
    """

    version: int
    state: SweepState
    busy: bool
    error: str
    order: Order | None
    rows: tuple[Row, ...]
    left_seconds: float | None


class SweepRunner:
    """One sweep at a time, on a thread; `stop` takes effect within a pass of the model."""

    def __init__(self, pair: Pair | None = None) -> None:
        self.pair = pair
        self._lock = threading.Lock()
        self._version = 0
        self._state: SweepState = "idle"
        self._error = ""
        self._order: Order | None = None
        self._rows: tuple[Row, ...] = ()
        self._began = 0.0
        self._cancel = threading.Event()
        self._worker: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a worker is at work."""
        return self._worker is not None and self._worker.is_alive()

    def view(self) -> SweepView:
        """The state of things now; later rows do not change it."""
        busy = self.busy
        with self._lock:
            left = None
            if self._order is not None and self._rows:
                pace = (time.monotonic() - self._began) / len(self._rows)
                left = pace * (self._order.trials - len(self._rows))
            return SweepView(
                self._version, self._state, busy, self._error, self._order, self._rows, left
            )

    def start(self, order: Order) -> bool:
        """Begin a sweep; False, and nothing happens, while one is at work."""
        with self._lock:
            if self.busy:
                return False
            self._order, self._rows = order, ()
            self._set("loading")
            self._cancel = threading.Event()
            self._worker = threading.Thread(
                target=self._work, args=(order, self._cancel), daemon=True, name="mspeckv-sweep"
            )
            self._worker.start()
            return True

    def stop(self) -> None:
        """Ask the sweep to end; it keeps the rows that it has."""
        self._cancel.set()

    def forget(self) -> None:
        """Stop, and drop the rows."""
        self._cancel.set()
        with self._lock:
            self._order, self._rows = None, ()
            self._set("idle")

    def refuse(self, error: str) -> None:
        """Show an error that kept a sweep from starting."""
        with self._lock:
            self._set("failed", error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the worker's end; False when ``timeout`` seconds passed first."""
        if self._worker is not None:
            self._worker.join(timeout)
        return not self.busy

    def _set(self, state: SweepState, error: str = "") -> None:
        self._state, self._error = state, error
        self._version += 1

    def _work(self, order: Order, cancel: threading.Event) -> None:
        try:
            while not turn.acquire(timeout=0.1):
                if cancel.is_set():
                    self._enter(order, "stopped")
                    return
            try:
                self._run(order, cancel)
            finally:
                turn.release()
        except Exception as error:  # whatever it is, the panel must say it and stay usable
            text = str(error) if isinstance(error, ValueError) else ""
            self._enter(order, "failed", text or f"{type(error).__name__}: {error}")

    def _run(self, order: Order, cancel: threading.Event) -> None:
        if self.pair is None:
            self.pair = load_pair()
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

    def _enter(self, order: Order, state: SweepState, error: str = "") -> None:
        with self._lock:
            if order is self._order:
                self._set(state, error)
