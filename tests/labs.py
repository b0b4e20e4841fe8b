"""The labs and their solutions: how they are put together to run, and what must come of it.

A lab is executed once, with each cell of its solution right after the exercise's own cell, by
`tests/browser/test_labs.py` in JupyterLab or, where there is no browser, by `test_notebooks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat

LABS = Path(__file__).resolve().parents[1] / "labs"
SOLUTIONS = LABS / "solutions"
NOTEBOOKS = sorted(LABS.glob("*.ipynb"))


def load(path: Path) -> Any:
    """The notebook in a file."""
    read: Any = nbformat.read  # it has no types
    return read(path, as_version=4)


def save(notebook: Any, path: Path) -> None:
    """Write a notebook."""
    write: Any = nbformat.write
    write(notebook, path)


def of_cells(*sources: str) -> Any:
    """A notebook of code cells."""
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": spec})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return notebook


def named(path: Path) -> str:
    """Test ids are file names."""
    return f"{path.stem}-solutions" if path.parent == SOLUTIONS else path.stem


def minutes(lab: Any) -> float:
    """How long a lab says that its cells take on two cores."""
    return float(lab.metadata["mspeckv"]["minutes"])


def exercise_cells(notebook: Any) -> dict[str, Any]:
    """Code cells by the exercise they hold."""
    cells = [cell for cell in notebook.cells if "exercise" in cell.metadata]
    assert all(cell.cell_type == "code" for cell in cells)
    found = {cell.metadata["exercise"]: cell for cell in cells}
    assert len(found) == len(cells), "an exercise has one cell"
    return found


def is_explanation(cell: Any) -> bool:
    """Whether a cell explains what the lab just ran."""
    return bool(cell.cell_type == "markdown" and "<summary>" in cell.source)


def claims_of(cell: Any) -> list[str]:
    """What an explanation says, as Python expressions that hold in the lab's own kernel."""
    return list(cell.metadata.get("claims", ()))


def judged_claims(cell: Any) -> Any:
    """A code cell that fails where a claim of an explanation does not hold."""
    asserted = "\n".join(f"assert {claim}, {claim!r}" for claim in claims_of(cell))
    return nbformat.v4.new_code_cell(asserted, id=f"claims-{cell.id}")


def solved_lab(path: Path) -> Any:
    """A copy of a lab: each exercise is left open, then solved; each explanation is judged."""
    lab, solved = load(path), exercise_cells(load(SOLUTIONS / path.name))
    both = deepcopy(lab)
    both.cells = []
    for cell in lab.cells:
        both.cells.append(cell)
        if "exercise" in cell.metadata:
            answer = deepcopy(solved[cell.metadata["exercise"]])
            answer.id = f"solved-{cell.metadata['exercise']}"
            answer.metadata["solves"] = answer.metadata.pop("exercise")
            both.cells.append(answer)
        if claims_of(cell):
            both.cells.append(judged_claims(cell))
    return both


def shown(cell: Any) -> str:
    """What a cell printed or displayed, as plain text."""
    parts = []
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain") or ""
        parts.append(text if isinstance(text, str) else "".join(text))
    return "\n".join(parts)


def judge(lab: Any, cells: Sequence[Any], seconds: float) -> None:
    """Whether a solved lab's executed cells say what they should, in the time the lab states.

    Args:
        lab: the notebook that was executed.
        cells: its cells afterwards, as nbformat has them.
        seconds: how long all of them took.

    Raises:
        AssertionError: they do not.
    """
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    for cell in code:
        meta = cell["metadata"]
        if "exercise" in meta:
            assert f"{meta['exercise']}: not yet" in shown(cell)
        if "solves" in meta:
            assert f"{meta['solves']}: solved" in shown(cell), shown(cell)
    text = "\n".join(shown(cell) for cell in code)
    assert "Error" not in text, text
    for claim in lab.metadata["mspeckv"].get("says", []):
        assert claim in text
    assert seconds <= 60 * minutes(lab), f"stated {minutes(lab)} min, took {seconds / 60:.2f}"
