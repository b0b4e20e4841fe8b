"""`mspeckv course notes`: what to expect of each lab, taken from the solved labs themselves.

Each lab is executed with its solutions in place. What its predictions turned out to be comes from
the progress file that it writes, what its exercises expect from the verdicts that it shows. Both
are kept in `labs/solutions/expected.json`; the pages are written from there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse
from mspeckv_widgets.course.exercise import find_exercises
from mspeckv_widgets.course.predict import words_of
from mspeckv_widgets.course.progress import FILE_NAME, FOLDER_VARIABLE
from mspeckv_widgets.course.teaching.assignments import (
    Cell,
    LabSource,
    Task,
    code_cell,
    read_labs,
    rebuilt,
)
from mspeckv_widgets.course.teaching.places import checkout
from mspeckv_widgets.course.teaching.probes import PROBES

EXPECTED, PAGE, SYLLABUS = (
    Path("labs/solutions/expected.json"),
    Path("docs/instructor-notes.md"),
    Path("labs/README.md"),
)
COMMAND = "mspeckv course notes"
BEGIN, END = f"<!-- begin: written by `{COMMAND}` -->", "<!-- end -->"
CELL_SECONDS = 600
OWN = "what the student's own runs show"
"""Of a prediction that the lab does not reveal by itself."""
OBJECT = "a run or a table: see the solution"
_CLOCKS = ("ms", "s", "tokens/s")
"""Units of what a clock says: another machine says something else."""

_HEAD = f"""# Instructor notes: what to expect

This page is written by `{COMMAND}`, which executes every lab with its solutions. Results in a unit
of time, and others that depend on it, were measured on two CPU cores: yours differ. Bytes are
counted, what labs 06 and 07 say is modelled, and both come out the same everywhere. Where an answer
is a function, its last line stands for it.

Answers with their reasons: [solutions](../labs/solutions/). How to teach with them, hand out and
grade: [teaching](teaching.md).
"""

Expected = dict[str, Any]


def write(chosen: Sequence[str], out: str | Path | None, execute: bool = True) -> list[Path]:
    """Execute the labs and write what came of them; returns the files.

    Args:
        chosen: two digits of the labs to execute; all where none is named. Of the others, what is
            known already stays.
        out: of the page; default: ``docs/instructor-notes.md``.
        execute: False writes the pages from what is known.

    Raises:
        ValueError: no checkout, no such lab, or a solved lab that does not pass its checks.
    """
    root = checkout()
    labs = read_labs(None, [])
    known = load_expected(root)
    found = {lab.name: known[lab.name] for lab in labs if lab.name in known}
    if execute:
        for lab in read_labs(None, chosen):
            print(f"{lab.name} ...", flush=True)
            found[lab.name] = measure(lab)
            # after each, so that what was executed is not lost by what comes
            kept = {one.name: found[one.name] for one in labs if one.name in found}
            text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
            (root / EXPECTED).write_text(text, encoding="utf-8")
    page = root / PAGE if out is None else Path(out).expanduser()
    page.write_text(page_of(labs, found), encoding="utf-8")
    syllabus = root / SYLLABUS
    syllabus.write_text(with_table(syllabus.read_text(encoding="utf-8")), encoding="utf-8")
    return [page, root / EXPECTED, syllabus]


def load_expected(root: Path) -> dict[str, Expected]:
    """What is known of each lab, by its name."""
    path = root / EXPECTED
    if not path.is_file():
        return {}
    known: dict[str, Expected] = json.loads(path.read_text(encoding="utf-8"))
    return known


def measure(lab: LabSource) -> Expected:
    """Execute a lab with its solutions: results of its predictions, answers of its exercises.

    Raises:
        ValueError: an exercise's own solution does not pass.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(rebuilt(lab, _solved))
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=CELL_SECONDS, resources=where)
        client.execute(env={**os.environ, FOLDER_VARIABLE: folder})
        text = (Path(folder) / FILE_NAME).read_text(encoding="utf-8")
    record = json.loads(text)["labs"][lab.name]
    place = {cell.id: cell for cell in notebook.cells}
    found = {name: (place[name], place[f"{name}-values"]) for name in lab.tasks}
    wanted = ("question", "unit", "result")
    return {
        "predictions": {
            name: {part: one[part] for part in wanted}
            for name, one in sorted(record["predictions"].items())
        },
        "exercises": {
            name: _answer(lab.name, task, *found[name]) for name, task in lab.tasks.items()
        },
    }


def page_of(labs: Sequence[LabSource], found: dict[str, Expected]) -> str:
    """The page for instructors."""
    return "\n".join([_HEAD, *(_section(lab, found.get(lab.name)) for lab in labs)])


def with_table(syllabus: str) -> str:
    """The syllabus with its table of misconceptions written anew.

    Raises:
        ValueError: it has no place for the table.
    """
    if BEGIN not in syllabus or END not in syllabus:
        raise refuse("syllabus", SYLLABUS.name, f"mark the table's place by {BEGIN} and {END}")
    before, rest = syllabus.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    rows = [f"| {one.lab} | {one.expect} | {one.probe} |" for one in PROBES]
    head = ["| lab | expect | probe for the misconception |", "| --- | --- | --- |"]
    return before + "\n".join([BEGIN, *head, *rows, END]) + after


def _solved(task: Task, cell: Cell) -> list[Cell]:
    source = f"{task.prompt}\n\n\n{task.answer}\n\n\n{task.check}"
    values = code_cell(_values(task), f"{task.name}-values")
    return [{**cell, "id": task.name, "source": source}, values]


def _answer(lab: str, task: Task, cell: Any, values: Any) -> dict[str, str]:
    """An exercise's title, its answer in a line, and why that holds.

    Raises:
        ValueError: the solution does not pass.
    """
    title = find_exercises(lab)[task.name].title
    shown = [one["data"].get("text/plain", "") for one in cell.outputs if "data" in one]
    begin = f"{task.name}: solved"
    told = next((text[len(begin) :] for text in shown if text.startswith(begin)), None)
    if told is None:
        raise refuse("labs", f"{lab} {task.name}", "its own solution does not pass")
    why = " ".join(told.lstrip(",. ").removeprefix(title).lstrip(",. ").split())
    plain = "; ".join(ast.literal_eval(_printed(values))) or _returned(task.answer)
    lines = [line.strip() for line in _printed(cell).splitlines() if line.strip()]
    return {"title": title, "answer": plain or "; ".join(lines[-1:]) or OBJECT, "why": why}


def _printed(cell: Any) -> str:
    return "".join(one.get("text", "") for one in cell.outputs if one.get("name") == "stdout")


def _returned(answer: str) -> str:
    """The last ``return`` of a solution that is a function, with the line that it is on."""
    found = [node for node in ast.walk(ast.parse(answer)) if isinstance(node, ast.Return)]
    last = max(found, key=lambda node: node.lineno, default=None)
    return "" if last is None else " ".join(ast.unparse(last).split())


def _values(task: Task) -> str:
    """Code that prints what the check is given, as far as it is plain and short."""
    given = ast.parse(task.check, mode="eval").body
    assert isinstance(given, ast.Call)
    last = given.args[1]
    parts = [ast.unparse(one) for one in (last.elts if isinstance(last, ast.Tuple) else [last])]
    return (
        f"print([format(it, '.4g') if isinstance(it, float) else repr(it) "
        f"for it in ({', '.join(parts)},) "
        "if isinstance(it, (int, float, str, list, tuple, dict)) and len(repr(it)) <= 80])"
    )


def _section(lab: LabSource, found: Expected | None) -> str:
    """A lab's part of the page."""
    lines = [f"## {lab.name[:2]}. {_title(lab)}", ""]
    probe = next((one for one in PROBES if one.lab == lab.name[:2]), None)
    if probe is not None:
        lines += [
            f"Expect: {probe.expect}.",
            "",
            f"Probe for the misconception: {probe.probe}.",
            "",
        ]
    if found is None:
        return "\n".join([*lines, f"Not executed yet: run `{COMMAND} --labs {lab.name[:2]}`.", ""])
    asked = questions(lab)
    if asked:
        lines += ["| prediction | question | result |", "| --- | --- | --- |"]
        for name, question in asked.items():
            one = found["predictions"].get(name)
            result = OWN if one is None else words_of(one["result"], one["unit"])
            result += "" if one is None else _label(one["unit"])
            lines.append(f"| {name} | {_cell(question)} | {_cell(result)} |")
        lines.append("")
    lines += ["| exercise | task | answer | why |", "| --- | --- | --- | --- |"]
    for name, one in found["exercises"].items():
        parts = (_cell(one[part]) for part in ("title", "answer", "why"))
        lines.append(f"| {name} | {' | '.join(parts)} |")
    return "\n".join([*lines, ""])


def questions(lab: LabSource) -> dict[str, str]:
    """What the lab's cells ask a guess for, by id, read from its code."""
    found = {}
    for cell in lab.notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "lab.predict":
                name, question = (str(ast.literal_eval(part)) for part in node.args[:2])
                found[name] = question
    return found


def _title(lab: LabSource) -> str:
    heading = re.match(r"# (.+)", lab.notebook["cells"][0]["source"])
    return heading[1] if heading else lab.name


def _label(unit: str) -> str:
    """What a time is."""
    return " (measured or emulated)" if unit in _CLOCKS else ""


def _cell(text: str) -> str:
    """Text that does not end a table's cell or mark anything up."""
    return re.sub(r"([|*_<`\[\]])", r"\\\1", text)
