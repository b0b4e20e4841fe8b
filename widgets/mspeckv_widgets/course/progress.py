"""What a learner guessed and solved, in one local JSON file.

The file is ``{"version": 1, "labs": {lab id: {"predictions": {id: PredictionRecord},
"exercises": {id: ExerciseRecord}}}}``, each record an object with the fields named below.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from mspeckv_widgets.course.files import locked, write_whole

Answer = float | str
"""A guess or a result: a number, or one of the choices."""

FILE_NAME = ".mspeckv-progress.json"
FOLDER_VARIABLE = "MSPECKV_PROGRESS"
"""Environment variable that names another folder than the notebook's."""

_Record = TypeVar("_Record", "PredictionRecord", "ExerciseRecord")


@dataclass
class PredictionRecord:
    """A prediction: the guess, and the result once it is known.

    Attributes:
        late: the guess came after the result.
    """

    question: str = ""
    unit: str = ""
    guess: Answer | None = None
    result: Answer | None = None
    late: bool = False


@dataclass
class ExerciseRecord:
    """An exercise: whether it was ever passed, and what that took.

    Attributes:
        tries: answers that were judged.
        hints: stages of hints that were opened at most: 3 where the solution was looked at, if
            there is a first step to show before it.
    """

    passed: bool = False
    tries: int = 0
    hints: int = 0


@dataclass
class LabRecord:
    """One lab's predictions and exercises by their ids."""

    predictions: dict[str, PredictionRecord] = field(default_factory=dict)
    exercises: dict[str, ExerciseRecord] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Read one lab of the file; keys of later versions are passed over."""
        return cls(
            {name: _read(PredictionRecord, one) for name, one in found["predictions"].items()},
            {name: _read(ExerciseRecord, one) for name, one in found["exercises"].items()},
        )


def _read(kind: type[_Record], found: dict[str, Any]) -> _Record:
    known = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in found.items() if name in known})


class ProgressFile:
    """The file of one learner; several notebooks may use it at once.

    A file that cannot be read is set aside under the name ``.broken``, and one that cannot be
    written leaves progress in memory; both are told once through ``say``.

    Args:
        folder: where the file is; default: what `FOLDER_VARIABLE` names, else the working folder,
            which for a notebook is its own.
        say: shows one line to the learner.
    """

    def __init__(self, folder: str | Path | None, say: Callable[[str], None]) -> None:
        where = folder if folder is not None else os.environ.get(FOLDER_VARIABLE) or Path.cwd()
        self.path = Path(where).expanduser() / FILE_NAME
        self._say = say
        self._told: set[str] = set()
        self._thread_lock = threading.RLock()
        # what could not be written
        self._kept: dict[str, LabRecord] | None = None

    def read(self, lab_id: str) -> LabRecord:
        """One lab's record; an empty one where there is none."""
        with self._thread_lock:
            labs = self._load()
            return labs.get(lab_id) or LabRecord()

    @contextmanager
    def change(self, lab_id: str) -> Iterator[LabRecord]:
        """A lab's record to change; it is written at the end, whole or not at all."""
        with self._thread_lock, locked(self.path, self._tell_unwritable):
            labs = self._load()
            record = labs.setdefault(lab_id, LabRecord())
            yield record
            self._kept = None if self._store(labs) else labs

    def _load(self) -> dict[str, LabRecord]:
        if self._kept is not None:
            return self._kept
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: LabRecord.from_json(lab) for name, lab in found["labs"].items()}
        except OSError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._set_aside(error)
            return {}

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(".broken")
        words = f"{self.path.name} could not be read ({type(error).__name__}): starting afresh"
        try:
            self.path.replace(aside)
            words += f"; the old file is kept as {aside.name}"
        except OSError:
            words += "; it could not be moved away either"
        self._tell(words + ".")

    def _store(self, labs: dict[str, LabRecord]) -> bool:
        """Whether the file now holds ``labs``: written beside it, then put in its place."""
        text = json.dumps(
            {"version": 1, "labs": {name: asdict(lab) for name, lab in labs.items()}}, indent=1
        )
        try:
            write_whole(self.path, text)
        except OSError as error:
            self._tell_unwritable(error)
            return False
        return True

    def _tell_unwritable(self, error: Exception) -> None:
        self._tell(
            f"{self.path} cannot be written ({type(error).__name__}): progress lasts until the "
            f"kernel stops. Set {FOLDER_VARIABLE} to a folder of yours to keep it."
        )

    def _tell(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self._say(words)
