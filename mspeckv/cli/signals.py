"""Answers a signal for the length of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def answering(
    numbers: Iterable[int], answer: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Signals ``numbers`` call ``answer``; afterwards they do again what they did before.

    Only the main thread may do this: Python hands signals to it alone.
    """
    before = [(number, signal.signal(number, answer)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def on_interrupt(
    cancel: threading.Event, signals: list[int], terminate: bool = True
) -> Iterator[None]:
    """Ctrl-C asks the run to stop, and so does SIGTERM; a second one stops it at once.

    Args:
        cancel: set then.
        signals: the signals that came.
        terminate: whether SIGTERM is ours to answer; torchrun's must end a rank that hangs.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield  # Signals reach the main thread alone.
        return
    answered = [signal.SIGINT, *([signal.SIGTERM] if terminate else [])]
    with answering(answered, stop):
        yield
