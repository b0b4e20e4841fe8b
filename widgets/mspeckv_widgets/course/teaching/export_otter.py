"""`mspeckv course export --otter`: notebooks that `otter assign` makes an assignment of.

`otter assign` writes the students' version and the autograder's zip file. A task becomes one of its
questions: the student's cell, with the solution between marks that otter cuts out, and a test
function that calls the lab's own check.
"""

from __future__ import annotations

import json
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

POINTS = 1
REQUIREMENTS = "requirements.txt"

_README = """# Assignments for otter-grader

Made by `mspeckv course export --otter`. The notebooks hold solutions: keep them to yourself. For
each lab:

    cd {lab}
    otter assign {lab}.ipynb dist          # runs the solutions against the tests
    otter run -a dist/autograder/{lab}-autograder_*.zip SUBMISSION.ipynb

`dist/student` is what students get; they need `mspeckv[lab]` and `otter-grader` installed. The zip
file is what Gradescope or `otter grade` take. Every exercise is worth one point. Tests call the
labs' own checks, so `{requirements}` must name the version of mspeckv that the labs came with: put
your copy's address there where the package index has none.
"""


def export(labs: Sequence[LabSource], folder: str | Path) -> Path:
    """Write a folder for each lab; returns the folder they are in.

    Raises:
        ValueError: a folder that holds something.
    """
    out = begin_export("otter", folder, _README, lab=labs[0].name, requirements=REQUIREMENTS)
    for lab in labs:
        place = out / lab.name
        place.mkdir()
        (place / REQUIREMENTS).write_text("mspeckv[lab]\n", encoding="utf-8")
        notebook = rebuilt(lab, _cells)
        notebook["cells"].insert(0, _settings(lab, copy_files(lab, place)))
        write_notebook(notebook, place / f"{lab.name}.ipynb")
    return out


def _settings(lab: LabSource, files: list[str]) -> Cell:
    """The raw cell that otter reads its settings from; values are JSON, which is YAML too."""
    settings = {
        "name": lab.name,
        "requirements": REQUIREMENTS,
        "files": files,
        "tests": {"ok_format": False},
        "export_cell": False,
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    return _raw("settings", "# ASSIGNMENT CONFIG", *lines)


def _cells(task: Task, cell: Cell) -> list[Cell]:
    """A question: its settings, the student's cell with its solution, and the test."""
    lines = [task.prompt, "# BEGIN SOLUTION NO PROMPT", task.answer, "# END SOLUTION", task.check]
    test = f"def test_{task.name}({', '.join(task.reads)}):\n    assert {task.check}"
    name = task.name
    return [
        _raw(f"{name}-begin", "# BEGIN QUESTION", f"name: {name}", f"points: {POINTS}"),
        _raw(f"{name}-solution", "# BEGIN SOLUTION"),
        {**cell, "source": "\n".join(lines)},
        _raw(f"{name}-solved", "# END SOLUTION"),
        _raw(f"{name}-tests", "# BEGIN TESTS"),
        code_cell(test, f"{name}-test"),
        _raw(f"{name}-tested", "# END TESTS"),
        _raw(f"{name}-end", "# END QUESTION"),
    ]


def _raw(name: str, *lines: str) -> Cell:
    return {"cell_type": "raw", "id": name, "metadata": {}, "source": "\n".join(lines)}
