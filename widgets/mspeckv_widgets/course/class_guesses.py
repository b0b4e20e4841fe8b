"""A class's guesses beside the results, for the teacher: a chart for each prediction, no names.

Guesses come from the students' progress files (`mspeckv_widgets.course.progress`), which only have
to be readable: nothing is sent, and nothing is written.
"""

from __future__ import annotations

import html
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import ipywidgets as ipw

from mspeckv.settings import refuse
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.course.guess_chart import draw
from mspeckv_widgets.course.predict import words_of
from mspeckv_widgets.course.progress import FILE_NAME, Answer, LabRecord
from mspeckv_widgets.panel import HasPanel, button, panel

DEPTH = 3
"""A student's file is looked for in the student's folder and so many folders below it."""


@dataclass
class Asked:
    """What a class answered to one prediction.

    Attributes:
        question: what was asked.
        unit: of a number; empty where it has none.
        guesses: by student.
        results: by student, where it is known: measured ones differ between machines.
        late: students who guessed after the result was shown.
    """

    question: str = ""
    unit: str = ""
    guesses: dict[str, Answer] = field(default_factory=dict)
    results: dict[str, Answer] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)

    @property
    def counted(self) -> list[Answer]:
        """The guesses that were made before the result was shown."""
        return [guess for name, guess in self.guesses.items() if name not in self.late]

    @property
    def numbers(self) -> list[float]:
        """Those that are numbers."""
        return [guess for guess in self.counted if not isinstance(guess, str)]

    @property
    def result(self) -> Answer | None:
        """What came out: of numbers the median, of choices the most frequent one."""
        found = list(self.results.values())
        numbers = [one for one in found if not isinstance(one, str)]
        if numbers and len(numbers) == len(found):
            return median(numbers)
        return Counter(found).most_common(1)[0][0] if found else None

    def words(self) -> str:
        """The chart in a sentence or two."""
        counted, numbers = self.counted, self.numbers
        if not counted:
            said = "No guess yet."
        elif len(numbers) == len(counted):
            low, middle, high = (
                words_of(one, self.unit) for one in (min(numbers), median(numbers), max(numbers))
            )
            said = f"{len(counted)} guesses from {low} to {high}, half of them up to {middle}."
        else:
            shares = Counter(words_of(one, self.unit) for one in counted).most_common()
            said = f"{len(counted)} guesses: {', '.join(f'{one} {many}' for one, many in shares)}."
        if self.late:
            said += f" {len(self.late)} more came after the result and are left out."
        if self.result is not None:
            middle = "the median result" if len(set(self.results.values())) > 1 else "the result"
            said += f" {middle[:1].upper()}{middle[1:]}: {words_of(self.result, self.unit)}."
        return said


@dataclass(frozen=True)
class Answers:
    """What was read of a class.

    Attributes:
        students: whose files were read.
        asked: predictions by their ids.
        unreadable: what could not be read, and why.
    """

    students: tuple[str, ...]
    asked: dict[str, Asked]
    unreadable: tuple[str, ...]


class ClassGuesses(HasPanel):
    """The guesses of a class for one lab; **Read again** shows what has come meanwhile.

    Args:
        folder: holds a folder for each student, named for the student; progress files are looked
            for in each and `DEPTH` folders further down. Of several the newest counts.
        lab_id: the lab, such as ``00_start_here``.
        names: whether to list who guessed what.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, folder: str | Path, lab_id: str, names: bool = False) -> None:
        self.folder, self.lab_id, self.names = Path(folder).expanduser(), lab_id, names
        if not self.folder.is_dir():
            raise refuse("folder", str(folder), "name the folder with the students' folders")
        self.answers = Answers((), {}, ())
        self._status, self._charts = ipw.HTML(), ipw.VBox([])
        again = button("Read again", "refresh", "Read the students' files again")
        again.on_click(lambda _: self.refresh())
        self.panel = panel(f"The class's guesses in {lab_id}", [again, self._status, self._charts])
        self.refresh()

    def refresh(self) -> None:
        """Read the files and draw anew."""
        self.answers = read_class(self.folder, self.lab_id)
        said = [f"{self.lab_id}: guesses of {len(self.answers.students)} students."]
        if self.answers.unreadable:
            said.append(f"Could not be read: {'; '.join(self.answers.unreadable)}.")
        self._status.value = f'<div role="status">{html.escape(" ".join(said))}</div>'
        parts = [self._part(*one) for one in sorted(self.answers.asked.items())]
        self._charts.children = tuple(part for some in parts for part in some)

    def _part(self, name: str, asked: Asked) -> list[Any]:
        """One prediction: question, chart, the chart in words, and names if they are asked for."""
        title = html.escape(f"{name}: {asked.question}")
        parts: list[Any] = [ipw.HTML(f'<div class="mskv-title">{title}</div>')]
        if asked.counted:
            parts.append(draw(name, asked.counted, asked.result, asked.unit))
        parts.append(ipw.HTML(f'<div class="mskv-small">{html.escape(asked.words())}</div>'))
        if self.names:
            rows = [
                (one, words_of(guess, asked.unit) + (" (late)" if one in asked.late else ""))
                for one, guess in sorted(asked.guesses.items())
            ]
            parts.append(ipw.HTML(table_html(f"Guesses for {name}", ("student", "guess"), rows, 2)))
        return parts

    def __repr__(self) -> str:
        lines = [
            f"{name}: {one.question} {one.words()}" for name, one in self.answers.asked.items()
        ]
        return "\n".join([f"{self.lab_id}, guesses of the class", *lines])


def read_class(folder: Path, lab_id: str) -> Answers:
    """Every student's guesses in one lab.

    Args:
        folder: holds a folder for each student.
    """
    students: list[str] = []
    asked: dict[str, Asked] = {}
    unreadable: list[str] = []
    for home in sorted(one for one in folder.iterdir() if one.is_dir()):
        found = _newest(home, unreadable)
        if found is None:
            continue
        try:
            lab = _lab(found, lab_id)
        except OSError as error:
            unreadable.append(f"{home.name} ({error.strerror})")
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(f"{home.name} (the file is damaged)")
        else:
            students.append(home.name)
            _enter(asked, home.name, lab)
    return Answers(tuple(students), asked, tuple(unreadable))


def _newest(home: Path, unreadable: list[str]) -> Path | None:
    """A student's progress file; folders that may not be looked into are told."""
    found: list[Path] = []
    for where, folders, files in os.walk(
        home, onerror=lambda error: unreadable.append(f"{home.name} ({error.strerror})")
    ):
        if len(Path(where).relative_to(home).parts) >= DEPTH:
            folders.clear()
        found += [Path(where) / FILE_NAME] if FILE_NAME in files else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _lab(path: Path, lab_id: str) -> LabRecord:
    labs = json.loads(path.read_text(encoding="utf-8"))["labs"]
    return LabRecord.from_json(labs[lab_id]) if lab_id in labs else LabRecord()


def _enter(asked: dict[str, Asked], student: str, lab: LabRecord) -> None:
    for name, record in lab.predictions.items():
        one = asked.setdefault(name, Asked())
        one.question, one.unit = one.question or record.question, one.unit or record.unit
        if record.guess is not None:
            one.guesses[student] = record.guess
            one.late |= {student} if record.late else set()
        if record.result is not None:
            one.results[student] = record.result
