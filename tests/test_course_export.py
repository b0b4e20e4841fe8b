"""Exported assignments hold what nbgrader and otter ask for, for every lab.

`test_course_graders.py` has the graders themselves grade one, in an environment of their own.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mspeckv_study.cli import main
from mspeckv_widgets.course.exercise import find_exercises
from mspeckv_widgets.course.teaching import export_nbgrader, export_otter
from mspeckv_widgets.course.teaching.assignments import LabSource, code_cell, read_labs

from .labs import LABS, NOTEBOOKS

ALL = read_labs(LABS, [])


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_nbgrader.export(ALL, tmp_path_factory.mktemp("nbgrader"))


@pytest.fixture(scope="module")
def otter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_otter.export(ALL, tmp_path_factory.mktemp("otter"))


def load(path: Path) -> Any:
    notebook: Any = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    return notebook


def cut(source: str, begin: str, end: str) -> str:
    """What is left of a cell without what stands between the marks."""
    before, rest = source.split(begin)
    return before + rest.split(end)[1]


def test_every_lab_is_read() -> None:
    assert [lab.name for lab in ALL] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("lab", ALL, ids=lambda lab: lab.name)
def test_every_exercise_is_a_task(lab: LabSource) -> None:
    assert set(lab.tasks) == set(find_exercises(lab.name))
    for task in lab.tasks.values():
        assert "..." in task.prompt
        assert "lab" in task.reads
        ast.parse(f"{task.prompt}\n{task.answer}\n{task.check}")


@pytest.mark.parametrize("lab", ALL, ids=lambda lab: lab.name)
def test_nbgrader_finds_its_marks(lab: LabSource, course: Path) -> None:
    notebook = load(course / "source" / lab.name / f"{lab.name}.ipynb")
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert len(marked) == 2 * len(lab.tasks)
    for answer, test, task in zip(marked[::2], marked[1::2], lab.tasks.values(), strict=True):
        first, second = answer.metadata.nbgrader, test.metadata.nbgrader
        assert (first.solution, first.grade, first.locked) == (True, False, False)
        assert (second.solution, second.grade, second.locked) == (False, True, True)
        assert second.points == 1
        assert first.schema_version == second.schema_version == 3
        assert first.grade_id != second.grade_id
        assert task.answer in answer.source
        left = cut(answer.source, "### BEGIN SOLUTION", "### END SOLUTION")
        assert task.answer not in left
        assert left.startswith(task.prompt)
        assert test.source == f"assert {task.check}"


@pytest.mark.parametrize("lab", ALL, ids=lambda lab: lab.name)
def test_otter_finds_its_questions(lab: LabSource, otter: Path) -> None:
    notebook = load(otter / lab.name / f"{lab.name}.ipynb")
    raw = [cell.source.splitlines()[0] for cell in notebook.cells if cell.cell_type == "raw"]
    parts = ("BEGIN QUESTION", "BEGIN SOLUTION", "END SOLUTION", "BEGIN TESTS", "END TESTS",
             "END QUESTION")  # fmt: skip
    assert raw == ["# ASSIGNMENT CONFIG", *(f"# {part}" for part in parts * len(lab.tasks))]
    solved = [cell for cell in notebook.cells if "# BEGIN SOLUTION NO PROMPT" in cell.source]
    for cell, task in zip(solved, lab.tasks.values(), strict=True):
        left = cut(cell.source, "# BEGIN SOLUTION NO PROMPT", "# END SOLUTION")
        assert task.answer not in left
        assert left.startswith(task.prompt)


@pytest.mark.parametrize("lab", ALL, ids=lambda lab: lab.name)
def test_a_lab_takes_along_what_it_reads(lab: LabSource, course: Path, otter: Path) -> None:
    code = "\n".join(c["source"] for c in lab.notebook["cells"] if c["cell_type"] == "code")
    for place in (course / "source" / lab.name, otter / lab.name):
        found = {path.name for path in place.glob("results/*.jsonl")}
        assert bool(found) == ("load_results(" in code or "load_series(" in code)
        text = (place / f"{lab.name}.ipynb").read_text(encoding="utf-8")
        assert "](../" not in text, "a link that leads out of what is handed out"


def small(folder: Path, asked: str, answered: str | None) -> Path:
    """A lab of one exercise, and its solution."""
    for where, source in (("", asked), ("solutions", answered)):
        (folder / where).mkdir(exist_ok=True)
        if source is not None:
            cells = [code_cell(source, "e1", {"exercise": "e1"})]
            notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
            (folder / where / "00_start_here.ipynb").write_text(json.dumps(notebook))
    return folder


@pytest.mark.parametrize(
    ("asked", "answered", "told"),
    [
        ('x = ...\nlab.check("e1", x)', None, "there is no"),
        ('x = ...\nlab.check("e1", x)', 'y = 1\nlab.check("e1", y)', "the lab with"),
        ("x = ...", 'x = 1\nlab.check("e1", x)', "must end with"),
    ],
)
def test_a_lab_that_cannot_be_graded_is_refused(
    asked: str, answered: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        read_labs(small(tmp_path, asked, answered), [])


def test_the_command_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "course"
    assert main(["course", "export", "--nbgrader", str(out), "--labs", "03", "06"]) == 0
    assert sorted(path.name[:2] for path in (out / "source").iterdir()) == ["03", "06"]
    capsys.readouterr()
    for words, told in (
        (["--nbgrader", str(out)], "use an empty folder"),
        (["--otter", str(tmp_path / "o"), "--labs", "77"], "labs: '77'"),
        (["--otter", str(tmp_path / "o"), "--source", str(tmp_path)], "holds the labs"),
        ([], "--nbgrader --otter"),
    ):
        assert main(["course", "export", *words]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
