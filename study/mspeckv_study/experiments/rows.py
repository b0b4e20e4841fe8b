"""One row per trial: what it says, the files that rows stand in, and what a folder's rows share.

A file has one JSON object a line, appended with fsync, and is shared by any number of runners. A
runner claims a trial before it runs it. Claims are locks of the operating system, so those of a
killed runner are free at once; nothing has to be cleaned up.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from pathlib import Path
from typing import Any, Self

import psutil
import torch
from filelock import FileLock, Timeout

from mspeckv.models.kept import processor
from mspeckv.settings import refuse

CLAIMS = ".claims"
"""Folder of the locks, beside the rows."""
_KINDS = {
    "key": str, "experiment": str, "preset": str, "axis": str, "value": int, "variant": str,
    "seed": int, "status": str, "seconds": Real, "hardware": dict, "versions": dict,
}  # fmt: skip
_OF_RESULTS = {"ms_per_token": Real, "link": dict, "config": dict}
"""What reports read, so that a damaged row is refused by its line."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial's outcome.

    Attributes:
        key: the trial's; see `mspeckv_study.experiments.ablations.Trial`.
        axis, value: the setting that was varied, and to what.
        status: ``"ok"`` or ``"failed"``.
        error: what failed, such as ``"ValueError: ..."``.
        result: `mspeckv.RunSummary` as plain dictionaries; None if it failed.
        link_bytes_per_token: over the link while decoding, both ways (counted).
        kv_read_per_token: bytes of KV that attention read while decoding, by tier (counted).
        prefill_shared: whether an earlier trial's prefill was used again; then the result's
            ``prefill_seconds`` is the time of that (its ``link`` counts the same bytes).
        prefill_saved_seconds: what that saved: the time of reading less that of using it again
            (measured).
        started: when, in ISO 8601 with the zone.
        seconds: how long it took, prefill included, warm-up not (measured).
        versions: of what the result depends on.
    """

    key: str
    experiment: str
    preset: str
    axis: str
    value: int
    variant: str
    seed: int
    status: str
    error: str | None = None
    result: dict[str, Any] | None = None
    link_bytes_per_token: float = 0.0
    kv_read_per_token: dict[str, float] = field(default_factory=dict)
    prefill_shared: bool = False
    prefill_saved_seconds: float = 0.0
    started: str
    seconds: float
    hardware: dict[str, Any]
    versions: dict[str, str]
    mspeckv: str

    @property
    def ok(self) -> bool:
        """Whether it has a result."""
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row of a parsed line, less keys of later versions; refuses one that lacks a key."""
        names = [part.name for part in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(f"not a row of an experiment: it lacks {', '.join(missing)}")
        row = cls(**{name: values[name] for name in names})
        for name, kind in _KINDS.items():
            if not isinstance(getattr(row, name), kind):
                raise ValueError(f"{name}: {getattr(row, name)!r} is no {kind.__name__}")
        if row.result is not None and not isinstance(row.result, dict):
            raise ValueError("result: it is none of a run")
        if row.result is not None:
            for name, kind in _OF_RESULTS.items():
                if not isinstance(row.result.get(name), kind):
                    raise ValueError(f"result: its {name} is no {kind.__name__}")
        return row


def hardware(device: torch.device) -> dict[str, Any]:
    """``machine`` ``cores`` ``threads`` ``memory_gb``, and ``gpu`` where it ran."""
    found: dict[str, Any] = {
        "machine": processor(),
        "cores": len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_properties(device).name
    return found


def installed(package: str) -> str:
    """A package's version, or ``not installed``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


class RowStore:
    """The rows of one experiment under one preset; their folder is made when a row comes."""

    def __init__(self, folder: Path, experiment: str, preset: str) -> None:
        self.path = folder / f"{experiment}-{preset}.jsonl"

    def rows(self) -> list[Row]:
        """Every row, failed ones and their retries included."""
        return list(_read(self.path)) if self.path.exists() else []

    def append(self, row: Row) -> None:
        """Add a row; when this returns it is on disk."""
        line = json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        with _locked(self.path.parent, f"{self.path.name}.lock"):
            if there := self.path.exists():
                # what a killed writer left of a line goes
                os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
            _write(self.path, line, "a")
            if not there:
                _sync_folder(self.path.parent)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold ``key`` for the block; False if another runner holds it."""
        lock = _locked(self.path.parent, hashlib.sha256(key.encode()).hexdigest()[:32])
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


def _locked(folder: Path, name: str) -> FileLock:
    (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
    return FileLock(folder / CLAIMS / name)


def load_rows(source: str | Path | Iterable[str | Path]) -> list[Row]:
    """One row per trial from a folder's stores, from files, or from several of either.

    Of a folder, files named after an experiment count, such as ``A1-classroom.jsonl``. A last line
    that was torn by a killed writer is left out; a later row of a trial counts only where the
    earlier ones failed.

    Raises:
        ValueError: nothing there, or a line that is not a row.
    """
    given = [source] if isinstance(source, (str, Path)) else list(source)
    files: list[Path] = []
    for path in map(Path, given):
        found = sorted(path.glob("[A-Z][0-9]-*.jsonl")) if path.is_dir() else [path]
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
    """Rows of a file; what follows the last line's end is torn, and left out."""
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            yield Row.from_json(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def _write(path: Path, text: str, mode: str) -> None:
    """Write or append; when this returns it is on disk."""
    with path.open(mode, encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Have a new file's name on disk too, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Setup:
    """What all rows under one preset in one folder share.

    Attributes:
        target, draft, device, dtype: see `mspeckv_study.experiments.Models`.
        step_seconds: measured time of one target step, by which an ``origin`` link is scaled;
            None where there is no such link.
        hardware: where that was measured.
        measured: when, in ISO 8601.
        weights: how the target's are held, as `mspeckv.load_pair` is told.
    """

    target: str
    draft: str
    device: str
    dtype: str
    step_seconds: float | None
    hardware: dict[str, Any]
    measured: str
    weights: str = "float"


def agree(folder: Path, preset: str, describe: Callable[[float | None], Setup]) -> Setup:
    """The folder's setup, made by the first run into it and kept by every later one.

    ``describe`` tells this run's setup; it is given the step that was measured before, if any.

    Raises:
        ValueError: the folder's rows are of other models.
    """
    path = folder / f"{preset}.json"
    with _locked(folder, f"{path.name}.lock"):
        try:
            kept = Setup(**json.loads(path.read_bytes())) if path.exists() else None
        except (ValueError, TypeError) as error:
            raise refuse("out", str(path), f"it is not a sweep's setup ({error})") from error
        now = describe(kept.step_seconds if kept else None)
        if kept is None:
            # all or nothing, so that a killed run leaves no half of it
            half = path.with_suffix(".part")
            _write(half, json.dumps(asdict(now), indent=2) + "\n", "w")
            half.replace(path)
            return now
        for name in ("target", "draft", "device", "dtype", "weights"):
            if getattr(now, name) != getattr(kept, name):
                allowed = f"{folder} has rows of {getattr(kept, name)!r}: use another folder"
                raise refuse(name, getattr(now, name), allowed)
        if now.hardware != kept.hardware:
            warnings.warn(
                f"{folder} was begun on {kept.hardware}, this is {now.hardware}: the emulated "
                "link keeps its first bandwidth, and times compare badly",
                stacklevel=2,
            )
        return kept
