"""Rows on disk: one JSON object a line, appended with fsync, shared by any number of runners.

A runner claims a trial before it runs it. Claims are locks of the operating system, so those of a
killed runner are free at once; nothing has to be cleaned up.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from mspeckv.config import refuse
from mspeckv.experiments.row import Row

CLAIMS = ".claims"
"""Folder of the locks, beside the rows."""
_STEP = 1 << 16
"""Bytes looked through at a time for a line's end."""


class Store:
    """The rows of one experiment under one preset in one folder.

    Args:
        folder: made when a row comes, if it is not there.
        experiment: id, in the file's name.
        preset: name, likewise.
    """

    def __init__(self, folder: Path, experiment: str, preset: str) -> None:
        self.path = folder / f"{experiment}-{preset}.jsonl"
        self._claims = folder / CLAIMS

    def rows(self) -> list[Row]:
        """Every row, failed ones and their retries included."""
        return list(_read(self.path)) if self.path.exists() else []

    def append(self, row: Row) -> None:
        """Add a row; when this returns it is on disk."""
        line = json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        with self._locked(f"{self.path.name}.lock"):
            new = not self.path.exists()
            with self.path.open("a+b") as file:
                _mend(file)
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            if new:
                _sync_folder(self.path.parent)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold ``key`` for the block; False if another runner holds it."""
        lock = self._locked(hashlib.sha256(key.encode()).hexdigest()[:32])
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            # only tidiness: whoever claims it next looks into the store first
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()

    def _locked(self, name: str) -> FileLock:
        self._claims.mkdir(parents=True, exist_ok=True)
        return FileLock(self._claims / name)


def load_rows(source: str | Path | Iterable[str | Path]) -> list[Row]:
    """One row per trial from a folder's stores, from files, or from several of either.

    A last line that was torn by a killed writer is left out; a later row of a trial counts only
    where the earlier ones failed.

    Raises:
        ValueError: nothing there, or a line that is not a row.
    """
    given = [source] if isinstance(source, (str, Path)) else list(source)
    files: list[Path] = []
    for path in map(Path, given):
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise refuse("results", str(path), "use a folder or files that `mspeckv run` wrote")
        files += found
    return settled(row for file in files for row in _read(file))


def settled(rows: Iterable[Row]) -> list[Row]:
    """One row per key: the first that is ok, else the last."""
    by_key: dict[str, Row] = {}
    for row in rows:
        if row.key not in by_key or not by_key[row.key].ok:
            by_key[row.key] = row
    return list(by_key.values())


def _read(path: Path) -> Iterator[Row]:
    """Rows of a file; what follows the last line's end is torn, and left out.

    Raises:
        ValueError: a line is not a row.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            yield Row.from_json(json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def _mend(file: BinaryIO) -> None:
    """Take away what a killed writer left of a line; call under the store's lock."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _STEP)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
        if found >= 0:
            break
    if end < size:
        file.truncate(end)


def _sync_folder(folder: Path) -> None:
    """Have a new file's name on disk too, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
