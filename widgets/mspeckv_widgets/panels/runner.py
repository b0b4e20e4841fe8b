"""Runs `mspeckv.stream` on a worker thread and keeps what it says, ready to be looked at.

No widget in here: the panel asks for a `View` as often as it wants to draw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mspeckv import Event, Pair, RunSummary, Transfer, documents, load_pair, profile, stream
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.events import Pass
from mspeckv_widgets.charts.run_styles import RUNS
from mspeckv_widgets.compared import Compared, names_of
from mspeckv_widgets.panels.worker import Worker
from mspeckv_widgets.record import RunRecord, Setting
from mspeckv_widgets.recording import Recording

State = Literal[
    "idle", "loading", "measuring", "rehearsal", "prefill", "decoding", "done", "stopped", "failed",
    "replay",
]  # fmt: skip
"""``measuring``: the machine, once; ``rehearsal``: a profile's first run, without the profiler;
``replay``: of a recorded run."""
KEPT = 40
"""Finished runs that are kept."""
prompts = Prefills()
"""Prompts that were read, of every panel in this kernel."""


@dataclass(frozen=True)
class View:
    """What there is to draw, at one moment.

    Attributes:
        version: grows with every change.
        busy: a worker is still at work, perhaps for a run that was already forgotten.
        waits: the worker waits until another panel's has ended.
        turn: which of how many runs of a series is at work.
        past: finished runs before ``current``, newest first.
        slots: colours of the settings that are compared, in the order in which they came.
    """

    version: int
    state: State
    busy: bool
    waits: bool
    error: str
    turn: tuple[int, int]
    current: RunRecord | None
    past: tuple[RunRecord, ...]
    slots: tuple[tuple[Setting, int], ...]

    @property
    def records(self) -> list[RunRecord]:
        """All runs, newest first."""
        return [*([self.current] if self.current else []), *self.past]

    @property
    def names(self) -> dict[Setting, str]:
        """What each setting with a colour is called: by what differs among them."""
        settings = [setting for setting, _ in self.slots]
        return dict(zip(settings, names_of(settings), strict=True))

    @property
    def compared(self) -> list[Compared]:
        """Finished runs by compared setting, profiled ones left out; so are settings without."""
        found = [self.runs_of(setting, slot) for setting, slot in self.slots]
        return [one for one in found if one is not None]

    def runs_of(self, setting: Setting | None, slot: int = 0) -> Compared | None:
        """A setting's runs that can be compared, whether it has a colour or not; None without."""
        runs = [one for one in self.records if one.setting == setting and one.timed]
        return Compared(runs[0].setting, slot, tuple(reversed(runs))) if runs else None


class Runner(Worker[State]):
    """One run, or a series of them, at a time, on a thread.

    Args:
        pair: a loaded pair; without one, the default pair is loaded at the first run.
        on_pair: told of it.
        prepare: called on the worker's thread before a run, once the pair is there.
    """

    def __init__(
        self,
        pair: Pair | None,
        on_pair: Callable[[Pair], None],
        prepare: Callable[[Pair, Setting], None] = lambda pair, setting: None,
    ) -> None:
        super().__init__("idle", "stopped", "failed", "mspeckv")
        self.pair = pair
        self._on_pair, self._prepare = on_pair, prepare
        self._turn = (0, 0)
        self._current: RunRecord | None = None
        self._past: tuple[RunRecord, ...] = ()
        self._slots: dict[Setting, int] = {}
        self._started = 0
        self._series = 0

    def view(self) -> View:
        """The state of things now; later events do not change it."""
        busy = self.busy
        with self._lock:
            return View(
                self._version,
                self._state,
                busy,
                self._waits,
                self._error,
                self._turn,
                self._current.snapshot() if self._current else None,
                self._past,
                tuple(self._slots.items()),
            )

    def start(self, setting: Setting, profiled: bool = False, repeats: int = 1) -> bool:
        """Begin a run, or a profile of one; False, and nothing happens, while one is at work.

        With ``repeats`` above 1 every compared setting runs so many times, in turns, so that
        whatever else the machine does meets all alike.
        """
        with self._lock:
            if self.busy:
                return False
            self._give_slot(setting)
            series = [setting] if repeats == 1 else [*self._slots] * repeats
            self._series += 1
            self._begin(series[0], (1, len(series)), profiled)
            self._launch(self._series, series)
            return True

    def replay(self, recording: Recording) -> bool:
        """Show a recorded run again; False, and nothing happens, while a run is at work."""
        with self._lock:
            if self.busy:
                return False
            self._series += 1
            self._put_away()
            self._turn = (1, 1)
            self._current = RunRecord(0, recording.setting, pieces=recording.pieces)
            self._set("replay")
            self._launch(self._series, recording)
            return True

    def forget(self) -> None:
        """Stop, and drop this run and all before it."""
        self._cancel.set()
        with self._lock:
            self._current, self._past, self._started = None, (), 0
            self._slots.clear()
            self._series += 1
            self._set("idle")

    def _give_slot(self, setting: Setting) -> None:
        """A colour for a setting; the one compared longest gives up its own where all are taken."""
        if setting in self._slots:
            return
        if len(self._slots) == len(RUNS):
            del self._slots[next(iter(self._slots))]
        taken = set(self._slots.values())
        self._slots[setting] = next(slot for slot in range(len(RUNS)) if slot not in taken)

    def _begin(self, setting: Setting, turn: tuple[int, int], profiled: bool = False) -> RunRecord:
        """Make a new run the current one; called with the lock held."""
        self._put_away()
        self._started += 1
        self._turn = turn
        self._current = RunRecord(self._started, setting, profiled=profiled)
        self._set("loading" if self.pair is None else "prefill")
        return self._current

    def _put_away(self) -> None:
        """Keep the current run, if it has ended, among the past ones; with the lock held."""
        if self._current is not None and self._current.summary and self._current.rounds:
            # a profile is large: the panel keeps the newest alone
            self._current.profile = None
            self._past = (self._current, *self._past)[:KEPT]

    def _computes(self, *options: Any) -> bool:
        """A recorded run is only shown."""
        return not isinstance(options[0], Recording)

    def _shown(self) -> int:
        return self._series

    def _run(self, job: Any, cancel: threading.Event, *options: Any) -> None:
        if isinstance(options[0], Recording):
            self._play(options[0], cancel)
        else:
            self._run_series(job, cancel, *options)

    def _play(self, recording: Recording, cancel: threading.Event) -> None:
        record = self._current
        assert record is not None
        for event in recording.play(self._watch(record), cancel.wait):
            self._take(record, event)

    def _watch(self, record: RunRecord) -> Callable[[Pass | Transfer], None]:
        """Keeps each step of a run as it is told."""

        def on_step(step: Pass | Transfer) -> None:
            with self._lock:
                record.steps.append(step)
                self._version += record is self._current

        return on_step

    def _run_series(self, job: Any, cancel: threading.Event, series: Sequence[Setting]) -> None:
        if self.pair is None:
            self.pair = load_pair()
            self._on_pair(self.pair)
            self._enter(job, "prefill")
        if self.pair.tokenizer is None:
            raise ValueError("this pair has no tokenizer, so there is no text to read or to show")
        for place, setting in enumerate(series):
            with self._lock:
                if job != self._series:
                    return
                if place and cancel.is_set():
                    # the run that was stopped stays the one that is shown
                    self._set("stopped")
                    return
                if place:
                    self._begin(setting, (place + 1, len(series)))
                record = self._current
            assert record is not None
            if cancel.is_set():
                self._enter(job, "stopped")
                return
            self._prepare(self.pair, setting)
            if cancel.is_set():
                self._enter(job, "stopped")
                return
            self._run_one(job, record, self.pair, cancel)

    def measuring(self, on: bool) -> None:
        """Say that the machine is being measured, or that it is done; not of a forgotten run."""
        with self._lock:
            if self._current is not None:
                self._set("measuring" if on else "prefill")

    def _run_one(self, job: Any, record: RunRecord, pair: Pair, cancel: threading.Event) -> None:
        assert pair.tokenizer is not None
        setting, config = record.setting, record.setting.config
        prompt = documents.load_document(setting.document, pair.tokenizer, setting.prefill)

        def on_progress(stage: str, done: int, total: int) -> None:
            with self._lock:
                record.read = done / total
                self._version += record is self._current

        ways: dict[str, Any] = {"cancel": cancel, "on_progress": on_progress}
        if not record.profiled:
            ways |= {"on_step": self._watch(record), "prefills": prompts}
            for event in stream(pair, prompt, config, **ways):
                self._take(record, event)
            return
        with self._lock:
            if record is self._current:
                self._set("rehearsal")
        try:
            found = profile(
                pair, prompt, config, on_event=lambda event: self._take(record, event), **ways
            )
        except RuntimeError:
            if not cancel.is_set():
                raise
            self._enter(job, "stopped")
            return
        with self._lock:
            # stopped while it read the prompt, it has nothing to show
            record.profile = found if found.rounds else None
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
                self._state = "decoding" if record.pieces is None else "replay"
                self._version += 1
