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
from mspeckv_widgets.course.teaching.assignments import (
    LabSource,
    code_cell,
    read_labs,
    write_notebook,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUMBER, NAME = "00", "00_start_here"
OPEN = "return ..."
SHARES = {"all": 1.0, "half": 0.5, "nothing": 0.0}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabSource:
    """Two exercises of the first lab, which ask for plain functions: nothing loads a model."""
    (whole,) = read_labs(None, [NUMBER])
    functions = [name for name, task in whole.tasks.items() if OPEN in task.prompt][:2]
    folder = tmp_path_factory.mktemp("labs")
    begin = f'from mspeckv_widgets.course import Lab\n\nlab = Lab("{NAME}")'
    for where in ("", "solutions"):
        cells = [code_cell(begin, "begin")]
        for name in functions:
            task = whole.tasks[name]
            text = task.answer if where else task.prompt
            cells.append(code_cell(f"{text}\n\n\n{task.check}", name, {"exercise": name}))
        notebook = {**whole.notebook, "cells": cells}
        write_notebook(notebook, folder / where / f"{NAME}.ipynb")
    (small,) = read_labs(folder, [])
    assert len(small.tasks) == 2
    return small


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


def answered(notebook: Any, lab: LabSource, share: float) -> Any:
    """A student's notebook with a share of the exercises solved: a prompt becomes its answer."""
    solved = list(lab.tasks.values())[: round(share * len(lab.tasks))]
    for cell in notebook["cells"]:
        for task in solved:
            source = "".join(cell["source"])
            if task.prompt in source:
                cell["source"] = source.replace(task.prompt, task.answer)
    return notebook


def holds_no_solution(path: Path, lab: LabSource) -> None:
    text = "\n".join("".join(cell["source"]) for cell in load(path)["cells"])
    for task in lab.tasks.values():
        assert task.prompt in text
        assert task.answer not in text
        assert task.check in text
    assert "SOLUTION" not in text


def test_nbgrader_grades(lab: LabSource, tmp_path: Path) -> None:
    pytest.importorskip("nbgrader")
    course = export_nbgrader.export([lab], tmp_path / "course")
    run("nbgrader", "generate_assignment", NAME, cwd=course)
    released = course / "release" / NAME / f"{NAME}.ipynb"
    holds_no_solution(released, lab)
    for student, share in SHARES.items():
        target = course / "submitted" / student / NAME / released.name
        write_notebook(answered(load(released), lab, share), target)
    run("nbgrader", "autograde", NAME, cwd=course)
    run("nbgrader", "export", cwd=course)
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        student: share * len(lab.tasks) for student, share in SHARES.items()
    }
    assert {float(row["max_score"]) for row in rows.values()} == {len(lab.tasks)}


def test_otter_grades(lab: LabSource, tmp_path: Path) -> None:
    pytest.importorskip("otter")
    place = export_otter.export([lab], tmp_path / "otter") / NAME
    # runs the solutions against the tests, and fails where one does
    run("otter", "assign", f"{NAME}.ipynb", "dist", cwd=place)
    student = place / "dist" / "student" / f"{NAME}.ipynb"
    holds_no_solution(student, lab)
    (zipped,) = (place / "dist" / "autograder").glob("*.zip")
    for name, share in SHARES.items():
        folder = tmp_path / name
        folder.mkdir()
        write_notebook(answered(load(student), lab, share), folder / student.name)
        shutil.copy(zipped, folder / "autograder.zip")
        run("otter", "run", "-a", "autograder.zip", student.name, cwd=folder)
        found = load(folder / "results.json")["tests"]
        scores = {test["name"]: test.get("score") for test in found if test.get("max_score")}
        assert sum(scores.values()) == share * len(lab.tasks), found
