"""Answering a signal for the length of a block."""

from __future__ import annotations

import signal
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
