"""`Lab`: what a notebook of the course is written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.core import display_functions

from mspeckv import RunSummary
from mspeckv.settings import refuse
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.course.exercise import Verdict, find_exercises, is_open, judge
from mspeckv_widgets.course.hints import HintBox, find_solution
from mspeckv_widgets.course.leaderboard import Entry, LeaderboardFile
from mspeckv_widgets.course.predict import PredictBox, compare, parse_number, words_of
from mspeckv_widgets.course.progress import (
    Answer,
    ExerciseRecord,
    LabRecord,
    PredictionRecord,
    ProgressFile,
)
from mspeckv_widgets.course.score import score_html, score_text
from mspeckv_widgets.course.shown import Shown, line
from mspeckv_widgets.course.verdict_view import leaderboard_shown, ranking_words, verdict_shown

UNRECORDED = "taken as it stood in the field"


@dataclass(frozen=True)
class Outcome:
    """Whether an answer is right: true or false, and as a cell's result nothing to see."""

    passed: bool

    def __bool__(self) -> bool:
        return self.passed

    def _ipython_display_(self) -> None:
        """The verdict has been shown already."""


class Lab:
    """One lab's predictions, exercises and progress.

    Every method shows what it has to say under its cell, as HTML and as plain text.

    Args:
        lab_id: the notebook's stem, such as ``02_quantize``.
        folder: of the progress file; default: what the environment variable ``MSPECKV_PROGRESS``
            names, else the notebook's own folder.

    Raises:
        ValueError: there are no exercises for such a lab.
    """

    def __init__(self, lab_id: str, folder: str | Path | None = None) -> None:
        self.lab_id = lab_id
        self.exercises = find_exercises(lab_id)
        self.boxes: dict[str, PredictBox] = {}
        self._file = ProgressFile(folder, _say)
        self._board = LeaderboardFile(self._file.path.parent, _say)
        # a notebook's kernel begins in its folder, and a cell may leave it
        self._labs = Path.cwd()

    def predict(
        self, name: str, question: str, unit: str = "", choices: Sequence[str] = ()
    ) -> None:
        """Ask for a guess: a number in ``unit``, or one of ``choices``.

        A guess that was recorded before is shown again; one can be changed until `reveal`.
        """
        box = PredictBox(name, question, unit, choices, lambda guess: self._record(name, guess))
        self.boxes[name] = box
        box.show(self._prediction(name))
        _show(box)

    def guess(self, name: str, guess: float | str) -> None:
        """Record a guess from code instead of with the control.

        Raises:
            ValueError: no such prediction was asked, or the guess is no answer to it.
        """
        if name not in self.boxes:
            raise refuse("prediction", name, f"run its predict cell first; asked: {self._asked()}")
        self._record(name, self.boxes[name].parse(guess))

    def reveal(self, name: str, result: Any, explain: bool = True) -> None:
        """Show the result beside the guess, keep both, and open the *Explain* that comes next.

        A guess that was typed or chosen but not recorded counts, and the table says so. Where the
        result is ``...`` or None, it is said to be not known yet. Outside of JupyterLab and
        Notebook the reader opens *Explain*.

        Args:
            name: the prediction's id, such as ``p1``.
            result: a number, or one of the choices.
            explain: False where another guess is asked before the *Explain*.

        Raises:
            ValueError: the result is no answer to the question.
        """
        if is_open(result):
            _say(f"{name}: the result is not known yet; come back once it is.")
            return
        box = self.boxes.get(name)
        if box is not None:
            found: Answer = box.parse(result)
        else:
            found = result if isinstance(result, str) else parse_number(name, result)
        typed = box.unrecorded() if box is not None else None
        with self._file.change(self.lab_id) as lab:
            record = lab.predictions.setdefault(name, PredictionRecord())
            self._describe(record, box)
            typed = typed if record.result is None else None
            if typed is not None:
                record.guess = typed
            record.result = found
        if box is not None:
            box.show(record)
            box.revealed(explain)
        guess, words = words_of(record.guess, record.unit), words_of(found, record.unit)
        note = " (late)" if record.late else ""
        note += f" ({UNRECORDED})" if typed is not None else ""
        row = (guess, words, compare(record) + note)
        asked = f"{name}: {record.question}" if record.question else name
        table = table_html(asked, ("your guess", "result", "so the guess was"), [row], text=3)
        _show(Shown(table, f"{name}: guess {guess}, result {words}: {row[2]}"))

    def check(self, name: str, answer: Any) -> Outcome:
        """Judge an answer to an exercise, show the verdict, keep whether it passed and its score.

        Where it has not passed, what was tried is shown, and a button opens hints in stages; how
        many were opened at most is kept.

        Args:
            name: the exercise's id, such as ``e1``.
            answer: a value or a function, as the exercise asks; ``...`` means not solved yet.

        Returns:
            True if the answer is right, false if not. A wrong answer never raises.

        Raises:
            ValueError: there is no such exercise.
        """
        if name not in self.exercises:
            raise refuse("exercise", name, f"use one of {', '.join(self.exercises)}")
        exercise = self.exercises[name]
        verdict = judge(exercise, answer)
        with self._file.change(self.lab_id) as lab:
            record = lab.exercises.setdefault(name, ExerciseRecord())
            record.tries += 1
            record.passed = record.passed or verdict.passed
        _show(verdict_shown(name, exercise, verdict, self._rank(name, verdict, answer)))
        if not verdict.passed:
            solution = find_solution(self.lab_id, name, self._labs)
            _show(HintBox(name, exercise, solution, lambda count: self._helped(name, count)))
        return Outcome(verdict.passed)

    def leaderboard(self, name: str | None = None) -> None:
        """Show the best scores that are kept here, of one exercise or of all.

        Args:
            name: the exercise's id; default: every exercise that has a score.

        Raises:
            ValueError: there is no such exercise.
        """
        if name is not None and name not in self.exercises:
            raise refuse("exercise", name, f"use one of {', '.join(self.exercises)}")
        entries = self._board.entries(self.lab_id, name)
        if not entries:
            _say("No score is kept yet: it comes with a solved exercise that has one.")
            return
        titles = {one: exercise.title for one, exercise in self.exercises.items()}
        _show(leaderboard_shown(f"{self.lab_id}: best scores", entries, titles))

    def score(self, runs: RunSummary | Sequence[RunSummary]) -> None:
        """Show the score card of a run, or of several side by side."""
        listed = [runs] if isinstance(runs, RunSummary) else list(runs)
        if not listed:
            _say("The score card comes with the end of a run.")
            return
        _show(Shown(score_html(listed), score_text(listed)))

    def progress(self) -> None:
        """Show predictions and exercises of this lab, and what is recorded of each."""
        lab = self._file.read(self.lab_id)
        rows = [*self._prediction_rows(lab), *self._exercise_rows(lab)]
        solved = sum(lab.exercises[e].passed for e in self.exercises if e in lab.exercises)
        caption = f"{self.lab_id}: {solved} of {len(self.exercises)} exercises solved"
        heads = ("id", "what", "yours", "result")
        text = "\n".join([caption, *("  ".join(cell for cell in row if cell) for row in rows)])
        _show(Shown(table_html(caption, heads, rows, text=4), text))

    def reset(self) -> None:
        """Forget this lab's guesses, results and solved exercises."""
        with self._file.change(self.lab_id) as lab:
            lab.predictions.clear()
            lab.exercises.clear()
        for box in self.boxes.values():
            box.show(PredictionRecord())
        _say(f"{self.lab_id}: guesses and solved exercises are forgotten.")

    def _helped(self, name: str, stages: int) -> None:
        """Keep how many hints of an exercise were open at most."""
        with self._file.change(self.lab_id) as lab:
            record = lab.exercises.setdefault(name, ExerciseRecord())
            record.hints = max(record.hints, stages)

    def _rank(self, name: str, verdict: Verdict, answer: Any) -> str:
        """Keep a score; returns how it stands beside the student's best."""
        if not verdict.passed or verdict.score is None:
            return ""
        entry = Entry.of(self.lab_id, name, verdict.score, answer)
        return ranking_words(entry, self._board.add(entry))

    def _record(self, name: str, guess: Answer) -> None:
        """Keep a guess, unless one stands beside its result already."""
        box = self.boxes[name]
        with self._file.change(self.lab_id) as lab:
            record = lab.predictions.setdefault(name, PredictionRecord())
            settled = record.result is not None and record.guess is not None
            if not settled:
                self._describe(record, box)
                record.late = record.result is not None
                record.guess = guess
        box.show(record)
        if settled:
            box.say(
                f"The result is known, so the guess stays {words_of(record.guess, record.unit)}; "
                "lab.reset() starts over."
            )

    def _prediction(self, name: str) -> PredictionRecord:
        """What is recorded of a prediction, as long as it still answers the question's kind."""
        box = self.boxes[name]
        record = self._file.read(self.lab_id).predictions.get(name, PredictionRecord())
        try:
            for answer in (record.guess, record.result):
                if answer is not None:
                    box.parse(answer)
        except ValueError:
            return PredictionRecord()
        return record

    def _describe(self, record: PredictionRecord, box: PredictBox | None) -> None:
        if box is not None:
            record.question, record.unit = box.question, box.unit

    def _asked(self) -> str:
        return ", ".join(self.boxes) or "none so far"

    def _prediction_rows(self, lab: LabRecord) -> list[tuple[str, ...]]:
        names = sorted({*self.boxes, *lab.predictions})
        rows: list[tuple[str, ...]] = []
        for name in names:
            record = lab.predictions.get(name, PredictionRecord())
            box = self.boxes.get(name)
            question = box.question if box is not None else record.question
            guess = words_of(record.guess, record.unit) + (" (late)" if record.late else "")
            result = "" if record.result is None else words_of(record.result, record.unit)
            rows.append((name, question, f"guess: {guess}", result))
        return rows

    def _exercise_rows(self, lab: LabRecord) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for name, exercise in self.exercises.items():
            record = lab.exercises.get(name, ExerciseRecord())
            state = "solved" if record.passed else "not yet"
            work = f"tries: {record.tries}" + (f", hints: {record.hints}" if record.hints else "")
            rows.append((name, exercise.title, work, state))
        return rows


def _show(thing: Any) -> None:
    display_functions.display(thing)  # type: ignore[no-untyped-call]  # IPython leaves it untyped


def _say(words: str) -> None:
    """Show one line to the learner."""
    _show(line(words))
