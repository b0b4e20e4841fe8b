"""One job at a time, on a thread, with a state that can be looked at meanwhile."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

State = TypeVar("State", bound=str)

# Two panels of one kernel take turns: runs at once would spoil each other's clocks.
turn = threading.Lock()
WAITS = "Waiting: another panel of this notebook is at work"


class Worker(ABC, Generic[State]):
    """A thread that works on one job; `stop` takes effect within a pass of the model.

    Args:
        idle: the state before the first job.
        stopped: the state of a job that was cancelled.
        failed: the state of one that raised; `_error` then says why.
        name: of the thread.
    """

    def __init__(self, idle: State, stopped: State, failed: State, name: str) -> None:
        self._stopped, self._failed, self._name = stopped, failed, name
        self._lock = threading.Lock()
        self._version, self._waits = 0, False
        self._state, self._error = idle, ""
        self._cancel = threading.Event()
        self._worker: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a worker is at work."""
        return self._worker is not None and self._worker.is_alive()

    def stop(self) -> None:
        """Ask the job to end; it keeps what it has produced."""
        self._cancel.set()

    def refuse(self, error: str) -> None:
        """Show an error that kept a job from starting."""
        with self._lock:
            self._set(self._failed, error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the worker's end; False when ``timeout`` seconds passed first."""
        if self._worker is not None:
            self._worker.join(timeout)
        return not self.busy

    def _launch(self, job: Any, *options: Any) -> None:
        """Begin ``job``; called with the lock held, and no worker busy."""
        self._cancel = threading.Event()
        self._worker = threading.Thread(
            target=self._work, args=(job, self._cancel, *options), daemon=True, name=self._name
        )
        self._worker.start()

    def _work(self, job: Any, cancel: threading.Event, *options: Any) -> None:
        try:
            if not self._computes(*options):
                self._run(job, cancel, *options)
                return
            if not self._take_turn(cancel):
                self._enter(job, self._stopped)
                return
            try:
                self._run(job, cancel, *options)
            finally:
                turn.release()
        except Exception as error:  # whatever it is, the panel must say it and stay usable
            text = str(error) if isinstance(error, ValueError) else ""
            self._enter(job, self._failed, text or f"{type(error).__name__}: {error}")

    def _take_turn(self, cancel: threading.Event) -> bool:
        """Wait until no other panel computes; False if this job was cancelled meanwhile."""
        taken = turn.acquire(blocking=False)
        while not taken and not cancel.is_set():
            self._note_waiting(True)
            taken = turn.acquire(timeout=0.1)
        self._note_waiting(False)
        return taken

    def _note_waiting(self, on: bool) -> None:
        with self._lock:
            self._version += self._waits != on
            self._waits = on

    def _computes(self, *options: Any) -> bool:
        """Whether the job needs the machine to itself."""
        return True

    def _enter(self, job: Any, state: State, error: str = "") -> None:
        """A job's new state, unless the job was forgotten meanwhile."""
        with self._lock:
            if self._shown() is job:
                self._set(state, error)

    def _set(self, state: State, error: str = "") -> None:
        self._state, self._error = state, error
        self._version += 1

    @abstractmethod
    def _shown(self) -> Any:
        """The job whose state this is; None if it was forgotten."""

    @abstractmethod
    def _run(self, job: Any, cancel: threading.Event, *options: Any) -> None:
        """Do it, on the worker's thread."""
