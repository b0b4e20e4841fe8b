"""`mspeckv course merge`: one table of a class from its result files, and one leaderboard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspeckv.models.download import write_whole
from mspeckv_study.cli.system import check_writable
from mspeckv_widgets.course.exercise import find_exercises
from mspeckv_widgets.course.teaching.recompute import Again, Entry, judge_anew
from mspeckv_widgets.course.teaching.result import KEY_VARIABLE, Result, read_key, read_result

_CLOCKS = ("measured", "emulated")
"""Kinds of score that differ each time."""


@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes:
        table: the file of students by exercises; left as it is where there is no student.
        board: the file of the leaderboard; None where nobody has an entry.
        students: how many there are.
        complaints: a line for each file or entry that cannot be trusted.
    """

    table: Path
    board: Path | None
    students: int
    complaints: tuple[str, ...]

    def describe(self) -> str:
        """In a line for each file that was written."""
        told = f"{self.students} students" if self.students else "not written: nothing to merge"
        lines = [f"{self.table}: {told}"]
        return "\n".join([*lines, *([str(self.board)] if self.board is not None else [])])


def merge(
    files: Sequence[str | Path],
    out: str | Path,
    key: str | Path | None = None,
    recompute: bool = False,
) -> Merged:
    """Write the table, and beside it ``...-leaderboard.csv``.

    Of two files of one student the later one counts. A file that cannot be read is left out and
    named; one whose signature is bad stays in, marked, and is named too.

    Args:
        files: that `mspeckv course result` wrote.
        out: the table.
        key: a file with the key; default: what ``MSPECKV_COURSE_KEY`` holds.
        recompute: judge the leaderboard's answers anew, instead of believing their scores.

    Raises:
        ValueError: a key or a place for the table that cannot be used, or no leaderboard that
            could be recomputed.
    """
    secret, table = read_key(key), Path(out).expanduser()
    check_writable("out", table)
    results, complaints = _read(files, secret)
    if not results:
        return Merged(table, None, 0, tuple(complaints))
    latest = _latest(results, complaints)
    _write(table, _table(latest))
    board, doubts = _board(latest, recompute)
    complaints += doubts
    place = table.with_name(f"{table.stem}-leaderboard.csv")
    if board:
        _write(place, board)
    return Merged(table, place if board else None, len(latest), tuple(complaints))


def _read(files: Sequence[str | Path], key: bytes | None) -> tuple[list[Result], list[str]]:
    results, complaints = [], []
    for path in files:
        try:
            found = read_result(path, key)
        except ValueError as error:
            complaints.append(f"left out: {error}")
            continue
        results.append(found)
        if found.signature == "bad":
            told = "the signature is bad: it was changed, or signed with another key"
            complaints.append(f"{path}: {found.student}: {told}")
        elif found.signature == "unsigned" and key is not None:
            complaints.append(f"{path}: {found.student}: not signed")
    if any(one.signature == "not checked" for one in results):
        complaints.append(f"signatures were not checked: give --key or set {KEY_VARIABLE}")
    return results, complaints


def _latest(results: Sequence[Result], complaints: list[str]) -> list[Result]:
    """One result for each student, by name."""
    latest: dict[str, Result] = {}
    for found in sorted(results, key=lambda one: one.made):
        before = latest.get(found.student)
        if before is not None:
            told = f"{found.path} of {found.made} counts, not {before.path} of {before.made}"
            complaints.append(f"{found.student}: two files: {told}")
        latest[found.student] = found
    return [latest[name] for name in sorted(latest)]


def _table(results: Sequence[Result]) -> list[list[Any]]:
    """Heads, then a row for each student: 1 for a solved exercise, 0 for a tried one."""
    labs = sorted({lab for found in results for lab in found.labs})
    places = [(lab, name) for lab in labs for name in _exercises(lab, results)]
    heads = ["student", "made", "signature", "solved", "guessed", "hints"]
    rows: list[list[Any]] = [[*heads, *(f"{lab[:2]} {name}" for lab, name in places)]]
    for found in results:
        marks = [_mark(found, lab, name) for lab, name in places]
        solved = sum(mark for mark in marks if mark)
        first = [found.student, found.made, found.signature]
        counts = [solved, _guesses(found), _hints(found)]
        rows.append([*first, *counts, *("" if mark is None else mark for mark in marks)])
    return rows


def _exercises(lab: str, results: Sequence[Result]) -> list[str]:
    """Ids of a lab's exercises: those that are installed, and others that somebody solved."""
    try:
        known = list(find_exercises(lab))
    except ValueError:
        known = []
    more = {name for found in results for name in found.labs.get(lab, {}).get("exercises", {})}
    return [*known, *sorted(more - set(known))]


def _mark(found: Result, lab: str, name: str) -> int | None:
    record = found.labs.get(lab, {}).get("exercises", {}).get(name)
    return None if record is None else int(bool(record["passed"]))


def _hints(found: Result) -> int:
    """Stages of hints that were opened, over all exercises."""
    records = (one for lab in found.labs.values() for one in lab["exercises"].values())
    return sum(int(one.get("hints", 0)) for one in records)


def _guesses(found: Result) -> int:
    """Predictions that were made before the result was shown."""
    records = (one for lab in found.labs.values() for one in lab["predictions"].values())
    return sum(one.get("guess") is not None and not one.get("late") for one in records)


def _board(results: Sequence[Result], recompute: bool) -> tuple[list[list[Any]], list[str]]:
    """Heads and entries by exercise, the best first; and what could not be confirmed."""
    rows: list[tuple[Any, ...]] = []
    complaints: list[str] = []
    for found in results:
        entries = found.leaderboard
        again = judge_anew(entries) if recompute and entries else [None] * len(entries)
        for entry, judged in zip(entries, again, strict=True):
            place = f"{entry.get('lab', '')} {entry.get('exercise', '')}"
            score, doubt = (entry, "") if judged is None else _compared(entry, judged)
            if score is not None and not isinstance(score.get("value"), (int, float)):
                score, doubt = None, "an entry without a score"
            if doubt:
                complaints.append(f"{found.student}: {place}: {doubt}")
            if score is None:
                continue
            value = score["value"]
            order = place, value if score.get("less_is_better") else -value, found.student
            shown = [value, score.get("unit", ""), score.get("kind", "")]
            checked = "yes" if recompute else "no"
            rows.append((order, [place, found.student, *shown, checked, found.signature]))
    heads = ["exercise", "student", "score", "unit", "kind", "recomputed", "signature"]
    ranked = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    return [heads, *ranked] if ranked else [], complaints


def _compared(entry: Entry, judged: Again) -> tuple[Entry | None, str]:
    """The score of an answer that was judged anew, and what is wrong with the one claimed."""
    score, claimed = judged.score, entry.get("value")
    if score is None:
        return None, f"claimed {claimed}; judged anew it has no score: {judged.message}"
    if score["kind"] in _CLOCKS or score["value"] == claimed:
        return score, ""
    return score, f"claimed {claimed}; judged anew it is {score['value']}"


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    write_whole(path, text.getvalue())


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
