"""Every lab runs from top to bottom within its minutes, its exercises open at first and solvable.

Each lab is executed once, with each cell of its solution right after the exercise's own cell.
"""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

LABS = Path(__file__).resolve().parents[1] / "labs"
SOLUTIONS = LABS / "solutions"
NOTEBOOKS = sorted(LABS.glob("*.ipynb"))
KEPT = [*NOTEBOOKS, *sorted(SOLUTIONS.glob("*.ipynb"))]
CELL_SECONDS = 300
LONGEST_CELL = 15
MOST_CODE = 300
FEWEST_EXERCISES = 3


def load(path: Path) -> Any:
    """The notebook in a file."""
    read: Any = nbformat.read  # it has no types
    return read(path, as_version=4)


def named(path: Path) -> str:
    """Test ids are file names."""
    return path.stem if path.parent == LABS else f"{path.stem}-solutions"


def exercise_cells(notebook: Any) -> dict[str, Any]:
    """Code cells by the exercise they hold."""
    cells = [cell for cell in notebook.cells if "exercise" in cell.metadata]
    assert all(cell.cell_type == "code" for cell in cells)
    found = {cell.metadata["exercise"]: cell for cell in cells}
    assert len(found) == len(cells), "an exercise has one cell"
    return found


def with_solutions(lab: Any, solution: Any) -> Any:
    """A copy of a lab in which each exercise is left open, then solved."""
    solved = exercise_cells(solution)
    both = deepcopy(lab)
    both.cells = []
    for cell in lab.cells:
        both.cells.append(cell)
        if "exercise" in cell.metadata:
            answer = deepcopy(solved[cell.metadata["exercise"]])
            answer.id = f"solved-{cell.metadata['exercise']}"
            answer.metadata["solves"] = answer.metadata.pop("exercise")
            both.cells.append(answer)
    return both


def shown(cell: Any) -> str:
    """What a cell printed or displayed, as plain text."""
    parts = [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ]
    return "\n".join(parts)


def test_labs_are_found() -> None:
    assert {path.name for path in NOTEBOOKS} >= {"00_start_here.ipynb", "01_live_lab.ipynb"}


def test_every_solution_has_its_lab() -> None:
    assert {path.name for path in SOLUTIONS.glob("*.ipynb")} == {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", KEPT, ids=named)
def test_is_kept_clean(path: Path) -> None:
    notebook = load(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
    assert sum(len(cell.source.splitlines()) for cell in code) < MOST_CODE


@pytest.mark.parametrize("path", KEPT, ids=named)
def test_links_lead_to_files(path: Path) -> None:
    for cell in load(path).cells:
        for target in cell.source.split("](")[1:] if cell.cell_type == "markdown" else []:
            name = target.split(")")[0].split("#")[0]
            assert name.startswith("http") or (path.parent / name).exists(), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_is_listed(path: Path) -> None:
    listed = (LABS / "README.md").read_text(encoding="utf-8")
    assert f"({path.name})" in listed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_exercises_are_open_and_have_solutions(path: Path) -> None:
    lab, solution = load(path), load(SOLUTIONS / path.name)
    asked, solved = exercise_cells(lab), exercise_cells(solution)
    assert len(asked) >= FEWEST_EXERCISES
    assert list(asked) == list(solved)
    for name, cell in asked.items():
        assert "..." in cell.source
        assert f'\nlab.check("{name}", ' in cell.source, cell.source
    for name in solved:
        place = next(i for i, c in enumerate(solution.cells) if c.metadata.get("exercise") == name)
        assert solution.cells[place - 1].cell_type == "markdown", "the answer is explained"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_executes(path: Path, tmp_path: Path) -> None:
    lab = load(path)
    minutes = float(lab.metadata["mspeckv"]["minutes"])
    notebook = with_solutions(lab, load(SOLUTIONS / path.name))
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    start = time.monotonic()
    client.execute()
    took = (time.monotonic() - start) / 60
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    for cell in code:
        if "exercise" in cell.metadata:
            assert f"{cell.metadata['exercise']}: not yet" in shown(cell)
        if "solves" in cell.metadata:
            assert f"{cell.metadata['solves']}: solved" in shown(cell), shown(cell)
    text = "\n".join(shown(cell) for cell in code)
    assert "Error" not in text, text
    for claim in lab.metadata["mspeckv"].get("says", []):
        assert claim in text
    assert took <= minutes, f"stated {minutes} min, took {took:.2f}"
