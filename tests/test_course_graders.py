"""An exported assignment is graded from end to end by nbgrader and by otter-grader themselves.

They have an environment of their own (`make test-graders`); elsewhere these tests are skipped.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mspeckv_widgets.course.teaching import export_nbgrader, export_otter
from mspeckv_widgets.course.teaching.assignments import LabSource, read_labs, write_notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUMBER, NAME = "07", "07_plan_your_gpu"
"""A whole lab, in which everything is modelled: it needs no model, and half a minute."""
WRONG = {
    "e1": "layers = 9",
    "e2": 'def place(gpu_gb, link_gbps, widths):\n    return {"method": "vanilla", "bits": 2}',
    "e3": "def front(settings):\n    raise ZeroDivisionError",
    "e4": "owed = control.ms_per_token / chosen.choice.ms_per_token",
}
"""Answers that do not hold: a number, a setting that is not allowed, an error, the whole gain."""
STUDENTS = {"all": {"e1", "e2", "e3", "e4"}, "some": {"e1", "e3"}, "others": {"e2", "e4"}}
"""Exercises that a student has right; where one is wrong depends on the student."""


@pytest.fixture(scope="module")
def lab() -> LabSource:
    """The lab as it is kept, with all of its exercises."""
    (whole,) = read_labs(None, [NUMBER])
    assert set(whole.tasks) == set(WRONG)
    return whole


def run(*command: str | Path, cwd: Path) -> str:
    """Run one of the graders' commands; its output."""
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PATH": paths, "JUPYTER_PLATFORM_DIRS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def answered(notebook: Any, lab: LabSource, student: str) -> Any:
    """A student's notebook: right answers under some prompts, wrong ones under others.

    Of what is not right the student leaves the first open.
    """
    wrong = [name for name in lab.tasks if name not in STUDENTS[student]]
    for name, task in lab.tasks.items():
        if name in wrong[:1]:
            continue
        written = f"{task.prompt}\n\n\n{WRONG[name] if name in wrong else task.answer}"
        (cell,) = (one for one in notebook["cells"] if task.prompt in "".join(one["source"]))
        cell["source"] = "".join(cell["source"]).replace(task.prompt, written)
    return notebook


def due(student: str) -> dict[str, float]:
    """Points by exercise."""
    return {name: float(name in STUDENTS[student]) for name in WRONG}


def holds_no_solution(path: Path, lab: LabSource) -> None:
    text = "\n".join("".join(cell["source"]) for cell in load(path)["cells"])
    for task in lab.tasks.values():
        assert task.prompt in text
        assert task.answer not in text
        assert task.check in text
    assert "SOLUTION" not in text


def test_nbgrader_grades(lab: LabSource, tmp_path: Path) -> None:
    nbgrader = pytest.importorskip("nbgrader.api")
    course = export_nbgrader.export([lab], tmp_path / "course")
    run("nbgrader", "generate_assignment", NAME, cwd=course)
    released = course / "release" / NAME / f"{NAME}.ipynb"
    holds_no_solution(released, lab)
    for student in STUDENTS:
        target = course / "submitted" / student / NAME / released.name
        write_notebook(answered(load(released), lab, student), target)
    run("nbgrader", "autograde", NAME, cwd=course)
    run("nbgrader", "export", cwd=course)
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        student: len(right) for student, right in STUDENTS.items()
    }
    assert {float(row["max_score"]) for row in rows.values()} == {len(lab.tasks)}
    with nbgrader.Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for student in STUDENTS:
            grades = book.find_submission_notebook(NAME, NAME, student).grades
            assert {one.name.removesuffix("-test"): one.score for one in grades} == due(student)


def test_otter_grades(lab: LabSource, tmp_path: Path) -> None:
    pytest.importorskip("otter")
    place = export_otter.export([lab], tmp_path / "otter") / NAME
    # runs the solutions against the tests, and fails where one does
    run("otter", "assign", f"{NAME}.ipynb", "dist", cwd=place)
    student = place / "dist" / "student" / f"{NAME}.ipynb"
    holds_no_solution(student, lab)
    (zipped,) = (place / "dist" / "autograder").glob("*.zip")
    for name in STUDENTS:
        folder = tmp_path / name
        folder.mkdir()
        write_notebook(answered(load(student), lab, name), folder / student.name)
        shutil.copy(zipped, folder / "autograder.zip")
        run("otter", "run", "-a", "autograder.zip", student.name, cwd=folder)
        found = load(folder / "results.json")["tests"]
        scores = {test["name"].split()[0]: test["score"] for test in found if test.get("max_score")}
        assert scores == due(name), found
