"""What all rows of a folder share: models, and the one bandwidth of its emulated link."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mspeckv.config import refuse
from mspeckv.experiments.store import CLAIMS


@dataclass(frozen=True)
class Setup:
    """What all rows under one preset in one folder share.

    Attributes:
        target: the target's id.
        draft: the draft's.
        device: ``cpu`` or ``cuda``.
        dtype: compute dtype.
        step_seconds: measured time of one target step, by which an ``origin`` link is scaled;
            None where there is no such link.
        hardware: where that was measured.
        measured: when, in ISO 8601.
    """

    target: str
    draft: str
    device: str
    dtype: str
    step_seconds: float | None
    hardware: dict[str, Any]
    measured: str


def agree(folder: Path, preset: str, describe: Callable[[float | None], Setup]) -> Setup:
    """The folder's setup, made by the first run into it and kept by every later one.

    Args:
        folder: of the rows.
        preset: its name.
        describe: this run's setup; is given the step that was measured before, if any, and
            measures it otherwise.

    Raises:
        ValueError: the folder's rows are of other models.
    """
    path = folder / f"{preset}.json"
    (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
    with FileLock(folder / CLAIMS / f"{path.name}.lock"):
        kept = _read(path) if path.exists() else None
        now = describe(kept.step_seconds if kept else None)
        if kept is None:
            _write(path, now)
            return now
        for name in ("target", "draft", "device", "dtype"):
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


def _read(path: Path) -> Setup:
    try:
        return Setup(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise refuse("out", str(path), f"it is not a sweep's setup ({error})") from error


def _write(path: Path, setup: Setup) -> None:
    """All or nothing, so that a killed run leaves no half of it."""
    half = path.with_suffix(".part")
    with half.open("w", encoding="utf-8") as file:
        json.dump(asdict(setup), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
