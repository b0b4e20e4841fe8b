"""The best scored answers, in one local JSON file that an instructor can merge and recompute.

The file is ``{"version": 1, "entries": [...]}``; each entry is an object with the fields of
`Entry`. It holds one entry for each lab, exercise and student: that student's best.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import linecache
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse
from mspeckv_widgets.course.exercise import Score, Verdict, find_exercises, judge
from mspeckv_widgets.course.files import locked, write_whole
from mspeckv_widgets.course.source import ANSWER, source_of

FILE_NAME = ".mspeckv-leaderboard.json"
FOLDER_VARIABLE = "MSPECKV_LEADERBOARD"
"""Environment variable that names the file's folder, where a class has one file together."""
STUDENT_VARIABLE = "MSPECKV_STUDENT"
"""Environment variable that holds the student's name."""

_runs = itertools.count()


@dataclass(frozen=True)
class Entry:
    """A scored answer.

    Attributes:
        lab: the lab's id.
        exercise: its id in the lab.
        student: the name it was given in under.
        value: the score.
        unit: what the score counts.
        kind: ``counted``, ``measured``, ``emulated`` or ``modelled``.
        less_is_better: whether the smaller of two scores is the better one.
        source: a program that makes the answer anew (`source_of`); empty where there is none.
        date: when it was judged, in UTC.
    """

    lab: str
    exercise: str
    student: str
    value: float
    unit: str
    kind: str
    less_is_better: bool
    source: str
    date: str

    @classmethod
    def of(cls, lab: str, exercise: str, score: Score, answer: Any) -> Entry:
        """This student's entry of an answer that was judged now."""
        return cls(
            lab, exercise, student_name(), float(score.value), score.unit, score.kind,
            score.less_is_better, source_of(answer),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Entry:
        """Read an entry; keys of later versions are passed over.

        Raises:
            ValueError: a field is missing.
        """
        try:
            return cls(**{one.name: found[one.name] for one in fields(cls)})
        except (KeyError, TypeError) as error:
            raise refuse("entry", found, f"give every field; missing: {error}") from None

    def beats(self, other: Entry | None) -> bool:
        """Whether this score is better than another one; than none, it always is."""
        if other is None:
            return True
        better = self.value < other.value if self.less_is_better else self.value > other.value
        return better or self.unit != other.unit


class LeaderboardFile:
    """The file, which several notebooks and students may write at once.

    What cannot be read counts as empty and is not overwritten; what cannot be written is told once.

    Args:
        folder: where the file is, unless `FOLDER_VARIABLE` names another one.
        say: shows one line to the learner.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        named = os.environ.get(FOLDER_VARIABLE)
        self.path = (Path(named).expanduser() if named else folder) / FILE_NAME
        self._say = say
        self._told: set[str] = set()
        self._lock = threading.RLock()

    def entries(self, lab: str, exercise: str | None = None) -> list[Entry]:
        """Entries of a lab, or of one of its exercises, the best of each exercise first."""
        with contextlib.suppress(OSError, ValueError):
            return ranked(
                one for one in self._load() if one.lab == lab and exercise in {None, one.exercise}
            )
        return []

    def best(self, lab: str, exercise: str, student: str) -> Entry | None:
        """A student's best so far."""
        mine = (one for one in self.entries(lab, exercise) if one.student == student)
        return next(mine, None)

    def add(self, entry: Entry) -> Entry | None:
        """Keep an entry that beats the student's best; returns the best there was before."""
        with self._lock, locked(self.path, self._tell):
            before = self.best(entry.lab, entry.exercise, entry.student)
            if entry.beats(before):
                self._store(entry)
        return before

    def _store(self, entry: Entry) -> None:
        place = (entry.lab, entry.exercise, entry.student)
        try:
            kept = [one for one in self._load() if (one.lab, one.exercise, one.student) != place]
            body = {"version": 1, "entries": [asdict(one) for one in (*kept, entry)]}
            write_whole(self.path, json.dumps(body, indent=1))
        except (OSError, ValueError) as error:
            self._tell(error)

    def _load(self) -> list[Entry]:
        """All entries; none where there is no file.

        Raises:
            OSError: the file is there and cannot be read.
            ValueError: it is damaged.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        try:
            return [Entry.from_json(one) for one in json.loads(text)["entries"]]
        except (KeyError, TypeError, AttributeError):
            raise refuse("leaderboard", self.path.name, "it is damaged; move it away") from None

    def _tell(self, error: Exception) -> None:
        words = (
            f"The score is not kept: {self.path} cannot be read or written "
            f"({type(error).__name__})."
        )
        if words not in self._told:
            self._told.add(words)
            self._say(words)


def student_name() -> str:
    """The student's name: `STUDENT_VARIABLE`, else the hub's, else the one logged in under."""
    for variable in (STUDENT_VARIABLE, "JUPYTERHUB_USER"):
        if os.environ.get(variable, "").strip():
            return os.environ[variable].strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "nobody"


def ranked(entries: Iterator[Entry] | Sequence[Entry]) -> list[Entry]:
    """Entries by exercise, the best first, the earlier of two equal ones before the other."""
    return sorted(
        entries,
        key=lambda one: (
            one.lab, one.exercise, one.value if one.less_is_better else -one.value, one.date,
        ),
    )  # fmt: skip


def recompute(entry: Entry | Mapping[str, Any]) -> Verdict:
    """Judge an entry anew from its source.

    This executes a student's code, in this process and with this user's rights. Call it only on
    demand, and for students' files only where such code may run, as in a container.

    The source runs in a namespace of its own, with what the exercise gives (`Exercise.gives`). A
    score that is measured or emulated will differ from the entry's; a counted one should not.

    Args:
        entry: an `Entry`, or one as the file has it.

    Returns:
        The verdict; it has not passed where the source is missing or raises.

    Raises:
        ValueError: there is no such lab or exercise, or a field is missing.
    """
    one = entry if isinstance(entry, Entry) else Entry.from_json(entry)
    exercises = find_exercises(one.lab)
    if one.exercise not in exercises:
        raise refuse("exercise", one.exercise, f"use one of {', '.join(exercises)}")
    exercise = exercises[one.exercise]
    if not one.source:
        return Verdict(False, "the entry has no source: this answer cannot be made anew")
    name = f"<answer {next(_runs)} of {one.student}>"
    lines = one.source.splitlines(keepends=True)
    # where tracebacks and `inspect` look a file's lines up
    linecache.cache[name] = (len(one.source), None, lines, name)
    given = dict(exercise.gives()) if exercise.gives is not None else {}
    space: dict[str, Any] = {"__name__": "mspeckv_answer", **given}
    try:
        exec(compile(one.source, name, "exec"), space)  # on demand only: see above
    except (Exception, SystemExit) as error:
        return Verdict(False, f"its source raised {type(error).__name__}: {error}")
    return judge(exercise, space.get(ANSWER))
