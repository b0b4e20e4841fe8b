"""A local file that several notebooks change at once: locked while it is changed, written whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_LOCK_SECONDS = 10.0


@contextmanager
def locked(path: Path, on_error: Callable[[OSError], None]) -> Iterator[None]:
    """Hold a file's lock; what is inside goes on without it where it cannot be had.

    The lock is another file, ``.lock``, which anyone may use who may write in the folder.
    """
    lock = FileLock(f"{path}.lock", timeout=_LOCK_SECONDS, mode=0o666)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        on_error(error)
    try:
        yield
    finally:
        lock.release()


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, then put it there: never half of it. It keeps its rights.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        with suppress(OSError):
            shutil.copymode(path, new)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
