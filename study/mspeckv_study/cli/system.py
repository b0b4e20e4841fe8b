"""What commands ask of the system: signals, and places to write into."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mspeckv.settings import refuse


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


GRAMMAR = "rfc3987_syntax"
"""What `jsonschema` asks to check IRIs. At its import it compiles a grammar: 2 s of a processor
(measured) for the server and again for each kernel, and no schema of Jupyter's has an IRI."""


@contextmanager
def without(module: str) -> Iterator[None]:
    """In here, the import of ``module`` fails as where it is not installed.

    One that is loaded already stays.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # so Python marks what is not there
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def on_interrupt(cancel: threading.Event, terminate: bool = True) -> Iterator[list[int]]:
    """Ctrl-C sets ``cancel``, and so does SIGTERM; a second one stops the block at once.

    ``terminate`` is whether SIGTERM is ours to answer. Yields the signals that come.
    """
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield signals  # which reach the main thread alone
        return
    with answering([signal.SIGINT, *([signal.SIGTERM] if terminate else [])], stop):
        yield signals


def check_writable(field: str, path: str | Path, folder: bool = False) -> None:
    """Refuse a file, or a ``folder``, that cannot be written; makes the folder.

    Raises:
        ValueError: something of the other kind stands there, or the system says no.
    """
    where, kind = Path(path).expanduser(), "folder" if folder else "file"
    if not str(path):
        raise refuse(field, path, f"use a {kind} to write into")
    there = where.exists()
    try:
        (where if folder else where.parent).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=where) if folder else where.open("ab") as file:
            file.write(b"0" if folder else b"")
    except OSError as error:
        raise refuse(field, str(path), f"use a {kind} to write into ({error.strerror})") from error
    if not there and not folder:
        where.unlink()
