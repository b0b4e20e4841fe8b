"""What panels with a worker share: drawing at each tick, the wait for the end, the status line.

The worker's thread only keeps what it finds; a thread of the panel's own draws it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from mspeckv_widgets.panel import HasPanel
from mspeckv_widgets.panels.worker import Worker

Kind = TypeVar("Kind", bound=Worker[Any])


class WorkerPanel(HasPanel, ABC, Generic[Kind]):
    """A panel that shows how far its worker is.

    Args:
        runner: the worker.
        tick: seconds between two drawings.
    """

    def __init__(self, runner: Kind, tick: float) -> None:
        self.runner, self._tick = runner, tick
        self._drawing = threading.RLock()
        self._drawn = -1, False
        self._painter: threading.Thread | None = None

    def stop(self) -> None:
        """Ask the worker to end within one pass; it keeps what it has produced."""
        self.runner.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the work has ended and is drawn; False when ``timeout`` seconds passed."""
        ended = self.runner.wait(timeout)
        if ended and self._painter is not None:
            self._painter.join(timeout)
        return ended

    def _begin_painting(self) -> None:
        self._painter = threading.Thread(target=self._paint, daemon=True, name="mspeckv-paint")
        self._painter.start()

    def _paint(self) -> None:
        """Draw at each tick while the worker is busy, and once more at its end."""
        pause = threading.Event()
        while self._draw():
            pause.wait(self._tick)

    @abstractmethod
    def _draw(self) -> bool:
        """Draw what has changed, under `_drawing`; returns whether the worker is busy."""


def status_line(state: str, words: str, done: int = 0, total: int = 0) -> str:
    """What a panel is at, as HTML, with a progress bar where there is a ``total``.

    Args:
        state: the worker's.
        words: escaped already.
        done: steps done.
        total: steps in all.
    """
    bar = f'<progress class="mskv-progress" value="{done}" max="{total}"></progress>'
    kind = "mskv-error" if state == "failed" else ""
    return (
        f'<div class="mskv-status {kind}" role="status" data-state="{state}" '
        f'style="margin-left:8px">{words}{bar if total else ""}</div>'
    )
