"""Runs `mspeckv.stream` on a worker thread and keeps what it says, ready to be looked at.

No widget in here: the panel asks for a `View` as often as it wants to draw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mspeckv import Event, Pair, RunSummary, documents, load_pair, profile, stream
from mspeckv_widgets.panels.worker import Worker
from mspeckv_widgets.record import RunRecord, Setting

State = Literal["idle", "loading", "rehearsal", "prefill", "decoding", "done", "stopped", "failed"]
"""``rehearsal``: a profile's first run, without the profiler."""
KEPT = 6


@dataclass(frozen=True)
class View:
    """What there is to draw, at one moment.

    Attributes:
        version: grows with every change.
        busy: a worker is still at work, perhaps for a run that was already forgotten.
        progress: stage, steps done and steps in all of the prefill.
        past: finished runs before ``current``, newest first.
    """

    version: int
    state: State
    busy: bool
    error: str
    progress: tuple[str, int, int] | None
    current: RunRecord | None
    past: tuple[RunRecord, ...]


class Runner(Worker[State]):
    """One run at a time, on a thread."""

    def __init__(self, pair: Pair | None, on_pair: Callable[[Pair], None]) -> None:
        super().__init__("idle", "stopped", "failed", "mspeckv")
        self.pair = pair
        self._on_pair = on_pair
        self._progress: tuple[str, int, int] | None = None
        self._current: RunRecord | None = None
        self._past: tuple[RunRecord, ...] = ()
        self._started = 0

    def view(self) -> View:
        """The state of things now; later events do not change it."""
        busy = self.busy
        with self._lock:
            return View(
                self._version,
                self._state,
                busy,
                self._error,
                self._progress,
                self._current.snapshot() if self._current else None,
                self._past,
            )

    def start(self, setting: Setting, profiled: bool = False) -> bool:
        """Begin a run, or a profile of one; False, and nothing happens, while one is at work."""
        with self._lock:
            if self.busy:
                return False
            self._keep_current()
            self._started += 1
            self._current = RunRecord(self._started, setting)
            self._set("loading" if self.pair is None else "prefill")
            self._launch(self._current, profiled)
            return True

    def forget(self) -> None:
        """Stop, and drop this run and all before it."""
        self._cancel.set()
        with self._lock:
            self._current, self._past, self._started = None, (), 0
            self._set("idle")

    def _set(self, state: State, error: str = "") -> None:
        super()._set(state, error)
        self._progress = None

    def _shown(self) -> RunRecord | None:
        return self._current

    def _keep_current(self) -> None:
        if self._current is not None and self._current.summary and self._current.rounds:
            # a profile is large: the panel keeps the newest alone
            self._current.profile = None
            self._past = (self._current, *self._past)[:KEPT]

    def _run(self, record: RunRecord, cancel: threading.Event, *options: Any) -> None:
        (profiled,) = options
        if self.pair is None:
            self.pair = load_pair()
            self._on_pair(self.pair)
        if cancel.is_set():
            self._enter(record, "stopped")
            return
        if self.pair.tokenizer is None:
            raise ValueError("this pair has no tokenizer, so there is no text to read or to show")
        setting, config = record.setting, record.setting.config
        prompt = documents.load_document(setting.document, self.pair.tokenizer, setting.prefill)

        def on_progress(stage: str, done: int, total: int) -> None:
            with self._lock:
                if record is self._current and self._state != "rehearsal":
                    self._progress = (stage, done, total)
                    self._version += 1

        ways: dict[str, Any] = {"cancel": cancel, "on_progress": on_progress}
        if not profiled:
            for event in stream(self.pair, prompt, config, **ways):
                self._take(record, event)
            return
        with self._lock:
            if record is self._current:
                self._set("rehearsal")
        try:
            found = profile(
                self.pair, prompt, config, on_event=lambda event: self._take(record, event), **ways
            )
        except RuntimeError:
            if not cancel.is_set():
                raise
            self._enter(record, "stopped")
            return
        with self._lock:
            record.profile = found
            self._version += 1

    def _take(self, record: RunRecord, event: Event) -> None:
        """Keep an event, unless its run was forgotten meanwhile."""
        with self._lock:
            if record is not self._current:
                return
            record.add(event)
            if isinstance(event, RunSummary):
                self._set("stopped" if event.cancelled else "done")
            else:
                self._state = "decoding"
                self._version += 1
