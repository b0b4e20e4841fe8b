"""`mspeckv course export --nbgrader`: a course folder whose source notebooks nbgrader understands.

nbgrader itself makes the students' version (`nbgrader generate_assignment`) and grades
(`nbgrader autograde`). A task becomes two cells: the student's, with the solution between marks
that nbgrader cuts out, and a locked one whose assertion is the lab's own check.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mspeckv_widgets.course.teaching.assignments import (
    Cell,
    LabSource,
    Task,
    begin_export,
    code_cell,
    copy_files,
    rebuilt,
    write_notebook,
)

SCHEMA = 3
POINTS = 1
CELL_SECONDS = 600

_CONFIG = '''"""A course made of the labs of MSpecKV."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "mspeckv"
# what stands in a solution's place: nothing, since the task's own lines stand above it
c.ClearSolutions.code_stub = {{"python": ""}}
c.ExecutePreprocessor.timeout = {seconds}
'''

_README = """# A course for nbgrader

Made by `mspeckv course export --nbgrader`. `source/` holds the notebooks with solutions: keep it to
yourself. In this folder, for each lab:

    nbgrader generate_assignment {lab}     # release/{lab}: what students get
    nbgrader autograde {lab}               # after submissions lie in submitted/STUDENT/{lab}/
    nbgrader generate_feedback {lab}
    nbgrader export                        # grades.csv, of all labs

Every exercise is worth one point. Students need `mspeckv[lab]` installed, and nothing of nbgrader.
Tests call the labs' own checks, so grade with the version of mspeckv that the labs came with.
"""


def export(labs: Sequence[LabSource], folder: str | Path) -> Path:
    """Write the course; returns its folder.

    Raises:
        ValueError: a folder that holds something.
    """
    out = begin_export("nbgrader", folder, _README, lab=labs[0].name)
    (out / "nbgrader_config.py").write_text(_CONFIG.format(seconds=CELL_SECONDS), encoding="utf-8")
    for lab in labs:
        place = out / "source" / lab.name
        write_notebook(rebuilt(lab, _cells), place / f"{lab.name}.ipynb")
        copy_files(lab, place)
    return out


def _cells(task: Task, cell: Cell) -> list[Cell]:
    """The student's cell with its solution, and the one that grades it."""
    lines = [task.prompt, "### BEGIN SOLUTION", task.answer, "### END SOLUTION", task.check]
    answer = {
        **cell,
        "metadata": {**cell["metadata"], "nbgrader": _marks(f"{task.name}-answer", solution=True)},
        "source": "\n".join(lines),
    }
    marks = {"nbgrader": {**_marks(f"{task.name}-test", grade=True), "points": POINTS}}
    return [answer, code_cell(f"assert {task.check}", f"{task.name}-test", marks)]


def _marks(name: str, *, grade: bool = False, solution: bool = False) -> Cell:
    return {
        "grade": grade,
        "grade_id": name,
        "locked": grade,
        "schema_version": SCHEMA,
        "solution": solution,
        "task": False,
    }
