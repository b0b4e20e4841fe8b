"""Labs and solutions as the exporters need them: of each exercise prompt, answer and check."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse
from mspeckv_widgets.course.teaching.places import checkout, empty_folder

Cell = dict[str, Any]
RESULTS = "results"
READERS = ("load_results", "load_series")
"""What a cell calls to read the results that lie beside the labs."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://)([^)#]+)(#[^)]*)?\)")


@dataclass(frozen=True)
class Task:
    """One exercise.

    Attributes:
        name: its id, such as ``e1``.
        prompt: what the student's cell begins with.
        answer: the solution's code; it may stand under the prompt and win over it.
        check: the call that judges, ``lab.check("e1", ...)``.
    """

    name: str
    prompt: str
    answer: str
    check: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that the check needs, ``lab`` among them."""
        nodes = ast.walk(ast.parse(self.check))
        return tuple(sorted({node.id for node in nodes if isinstance(node, ast.Name)}))


@dataclass(frozen=True)
class LabSource:
    """A lab as it is kept.

    Attributes:
        name: the notebook's stem.
        notebook: its JSON.
        tasks: its exercises by their ids, in order.
        files: what its cells read from beside the notebook.
    """

    name: str
    notebook: dict[str, Any]
    tasks: dict[str, Task]
    files: tuple[Path, ...]


def read_labs(folder: str | Path | None, chosen: Sequence[str]) -> list[LabSource]:
    """The labs of a folder with their solutions.

    Args:
        folder: of the notebooks; None for the checkout's.
        chosen: first two digits of the labs; all of them where none is named.

    Raises:
        ValueError: no such folder or lab, or one whose exercises and solutions do not fit.
    """
    home = checkout() / "labs" if folder is None else Path(folder)
    found = {path.stem[:2]: path for path in sorted(home.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise refuse("source", str(home), "use the folder that holds the labs")
    for number in chosen:
        if number not in found:
            raise refuse("labs", number, f"use some of {' '.join(found)}")
    return [_read(path) for number, path in found.items() if not chosen or number in chosen]


def code_cell(source: str, name: str, metadata: Cell | None = None) -> Cell:
    """A new code cell; ``name`` is its id."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata or {},
        "outputs": [],
        "source": source,
    }


def rebuilt(lab: LabSource, for_task: Callable[[Task, Cell], list[Cell]]) -> dict[str, Any]:
    """The lab's notebook with other cells in place of each exercise's.

    Links to pages that are not handed out become plain text.
    """
    notebook = deepcopy(lab.notebook)
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        name = cell["metadata"].get("exercise")
        if name is not None:
            cells += for_task(lab.tasks[name], cell)
            continue
        if cell["cell_type"] == "markdown":
            cell["source"] = _LINK.sub(r"\1", cell["source"])
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def begin_export(grader: str, folder: str | Path, readme: str, **words: str) -> Path:
    """Make the folder of an export with its README; returns the folder.

    Args:
        grader: whose it is.
        readme: its text, in which ``words`` have places.

    Raises:
        ValueError: a folder that holds something.
    """
    out = empty_folder(grader, folder)
    (out / "README.md").write_text(readme.format(**words), encoding="utf-8")
    return out


def write_notebook(notebook: dict[str, Any], path: Path) -> None:
    """Write a notebook, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def copy_files(lab: LabSource, folder: Path) -> list[str]:
    """Copy what the lab reads beside its notebook; returns the paths, from the folder."""
    names = []
    for path in lab.files:
        target = folder / RESULTS / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        names.append(f"{RESULTS}/{path.name}")
    return names


def _read(path: Path) -> LabSource:
    answers = path.parent / "solutions" / path.name
    if not answers.is_file():
        raise refuse("labs", path.name, f"there is no {answers}")
    lab, solved = _load(path), _load(answers)
    asked, answered = _exercises(lab), _exercises(solved)
    if list(asked) != list(answered):
        raise refuse("labs", path.stem, "its solutions have other exercises")
    tasks = {name: _task(path.stem, name, asked[name], answered[name]) for name in asked}
    code = "\n".join(cell["source"] for cell in lab["cells"] if cell["cell_type"] == "code")
    needed = any(f"{reader}(" in code for reader in READERS)
    files = sorted((path.parent / RESULTS).glob("*.json*")) if needed else []
    return LabSource(path.stem, lab, tasks, tuple(files))


def _load(path: Path) -> dict[str, Any]:
    """A notebook whose cells' texts are not cut into lines."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def _exercises(notebook: dict[str, Any]) -> dict[str, str]:
    cells = [cell for cell in notebook["cells"] if "exercise" in cell["metadata"]]
    return {cell["metadata"]["exercise"]: cell["source"] for cell in cells}


def _task(lab: str, name: str, asked: str, answered: str) -> Task:
    (prompt, check), (answer, same) = _split(lab, name, asked), _split(lab, name, answered)
    if check != same:
        raise refuse(
            "labs", f"{lab} {name}", f"its solution ends with {same}, the lab with {check}"
        )
    return Task(name, prompt, answer, check)


def _split(lab: str, name: str, source: str) -> tuple[str, str]:
    """A cell's code before its last statement, and that statement, which must be the check."""
    last = ast.parse(source).body[-1]
    check = ast.unparse(last)
    if not check.startswith(f"lab.check('{name}', "):
        raise refuse("labs", f"{lab} {name}", f"its cell must end with lab.check({name!r}, ...)")
    lines = source.splitlines()[: last.lineno - 1]
    return "\n".join(lines).rstrip(), check
