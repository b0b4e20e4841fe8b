"""Hints come in stages under a failing check, and how many were opened is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mspeckv_widgets.course import Exercise, Lab, Verdict
from mspeckv_widgets.course import lab as course_lab
from mspeckv_widgets.course.exercise import find_exercises
from mspeckv_widgets.course.hints import FOLD, HintBox, Solution, find_solution

LAB = "00_start_here"


def check_seven(found: Any) -> Verdict:
    return Verdict(found == 7, "told")


DOUBLE = Exercise("twice the number", check_seven, "Add it to itself.")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed so far."""
    things: list[Any] = []
    monkeypatch.setattr(course_lab, "_show", things.append)
    return things


@pytest.fixture
def lab(tmp_path: Path, shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose notebook lies in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSPECKV_PROGRESS", raising=False)
    return Lab(LAB, tmp_path)


def solutions(folder: Path) -> None:
    cells: list[dict[str, object]] = [
        {"cell_type": "code", "source": ["other"], "metadata": {"exercise": "e0"}},
        {"cell_type": "markdown", "source": ["What all of them are for."]},
        {
            "cell_type": "markdown",
            "source": ["## Exercise 1\n", "\n", "Add `x * y * z` <twice>, *so*."],
        },
        {"cell_type": "code", "source": ["lab.check(1 < 2)"], "metadata": {"exercise": "e1"}},
    ]
    (folder / "solutions").mkdir()
    text = json.dumps({"cells": [{"metadata": {}, **cell} for cell in cells]})
    (folder / "solutions" / f"{LAB}.ipynb").write_text(text, encoding="utf-8")


def opened(lab: Lab) -> int:
    return lab._file.read(LAB).exercises["e1"].hints


def test_hints_come_in_stages_and_are_counted(lab: Lab, shown: list[Any], tmp_path: Path) -> None:
    solutions(tmp_path)
    lab.exercises = {"e1": replace(DOUBLE, step="Write x + x.")}
    lab.check("e1", ...)
    box = shown[-1]
    stages = {
        "Hint": "Add it to itself.",
        "The first step": "Write x + x.",
        "A solution": "lab.check(1 &lt; 2)",
    }
    assert box._shown.value == ""
    for count, (title, words) in enumerate(stages.items(), 1):
        assert opened(lab) == count - 1
        assert box.button.description == title
        assert words not in box._shown.value
        box.button.click()
        assert words in box._shown.value
    assert opened(lab) == 3
    assert "Add <code>x * y * z</code> &lt;twice&gt;, <em>so</em>." in box._shown.value
    assert "Exercise 1" not in box._shown.value
    assert "all of them" not in box._shown.value
    assert "Your teacher" not in box._shown.value
    box.button.click()
    assert (box._shown.value, box.button.description) == ("", "Hint")
    # folding takes nothing back, and neither does another try with fewer
    lab.check("e1", ...)
    shown[-1].button.click()
    assert opened(lab) == 3
    lab.progress()
    assert "tries: 2, hints: 3" in repr(shown[-1])


def test_where_solutions_are_withheld_the_teacher_has_them(lab: Lab, shown: list[Any]) -> None:
    lab.exercises = {"e1": DOUBLE}
    lab.check("e1", ...)
    box = shown[-1]
    box.button.click()
    assert "Your teacher has the solution." in box._shown.value
    assert box.button.description == FOLD
    assert opened(lab) == 1, "there is no first step to show, and no solution"


def test_hints_are_escaped() -> None:
    exercise = Exercise("a < b", check_seven, "<i>hint</i>", "<i>step</i>")
    box = HintBox("e1", exercise, Solution("why <b>", "a < b"), lambda count: None)
    for _ in range(3):
        box.press()
    for words in ("&lt;i&gt;hint", "&lt;i&gt;step", "why &lt;b&gt;", "a &lt; b"):
        assert words in box._shown.value


def test_without_widgets_the_nudge_is_told(lab: Lab, shown: list[Any]) -> None:
    lab.exercises = {"e1": DOUBLE}
    lab.check("e1", ...)
    assert shown[-1]._repr_mimebundle_()["text/plain"] == "Hint: Add it to itself."


def test_a_solved_exercise_shows_no_hints(lab: Lab, shown: list[Any]) -> None:
    lab.exercises = {"e1": DOUBLE}
    assert lab.check("e1", 7)
    assert not [one for one in shown if isinstance(one, HintBox)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": [{}]}', '{"cells": 3}'])
def test_damaged_solutions_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / f"{LAB}.ipynb").write_text(text, encoding="utf-8")
    assert find_solution(LAB, "e1", tmp_path) is None


def test_every_exercise_of_the_course_has_its_solution() -> None:
    labs = Path(__file__).resolve().parents[1] / "labs"
    for path in sorted((labs / "solutions").glob("*.ipynb")):
        for name in find_exercises(path.stem):
            found = find_solution(path.stem, name, labs)
            assert found is not None, (path.stem, name)
            assert "lab.check" in found.code
            assert found.why, (path.stem, name)
