"""Labs and solutions are kept clean and fit together; without a browser they are executed here.

With one, `tests/browser/test_labs.py` executes them in JupyterLab instead.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mspeckv_widgets.site.build import PAGES

from .labs import (
    LABS,
    NOTEBOOKS,
    SOLUTIONS,
    claims_of,
    exercise_cells,
    is_explanation,
    judge,
    load,
    named,
    solved_lab,
)

KEPT = [*NOTEBOOKS, *sorted(SOLUTIONS.glob("*.ipynb")), *sorted(LABS.glob("demo/*.ipynb"))]
CELL_SECONDS = 300
LONGEST_CELL = 15
MOST_CODE = 300
FEWEST_EXERCISES = 3
CLAIMED = {f"{number:02}" for number in range(15)}
"""Labs whose explanations are claimed, and whose predictions are not spoiled."""


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
            # `mspeckv site build` makes these, and `mspeckv lab` puts them beside the labs
            if name.startswith("../site/"):
                assert Path(name).name in {f"{page.name}.html" for page in PAGES}
            else:
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


CLAIMED_LABS = [path for path in NOTEBOOKS if path.name[:2] in CLAIMED]


@pytest.mark.parametrize("path", CLAIMED_LABS, ids=named)
def test_every_explanation_is_folded_and_claimed(path: Path) -> None:
    cells = load(path).cells
    found = [cell for cell in cells if is_explanation(cell)]
    assert found
    for cell in found:
        assert cell.source.startswith("<details><summary><b>Explain</b></summary>\n\n")
        assert cell.source.endswith("\n\n</details>")
        assert claims_of(cell), cell.source
    for claim in (claim for cell in cells for claim in claims_of(cell)):
        compile(claim, path.name, "eval")
    assert not any("**Explain.**" in cell.source for cell in cells)


@pytest.mark.parametrize("path", CLAIMED_LABS, ids=named)
def test_what_reveals_a_prediction_hides_its_source(path: Path) -> None:
    cells = [cell for cell in load(path).cells if cell.cell_type == "code"]
    asked, revealed = set(), set()
    for cell in cells:
        asked |= set(re.findall(r'lab\.predict\("(\w+)"', cell.source))
        revealed |= (
            set(re.findall(r'"(p\d+)"', cell.source)) if "lab.reveal(" in cell.source else set()
        )
        if "lab.reveal(" in cell.source:
            assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            assert cell.source.startswith("# "), "JupyterLab shows a hidden cell's first line"
    assert asked == revealed


@pytest.mark.parametrize("path", CLAIMED_LABS, ids=named)
def test_a_reveal_opens_no_explanation_before_its_time(path: Path) -> None:
    """What comes next after a question is opened with its result; nothing else may be asked there.

    `Lab.reveal` is told ``explain=False`` where it is.
    """
    cells = load(path).cells
    asked = {
        name: place
        for place, cell in enumerate(cells)
        for name in re.findall(r'lab\.predict\("(\w+)"', cell.source)
    }
    folded = [place for place, cell in enumerate(cells) if is_explanation(cell)]
    for place, cell in enumerate(cells):
        if "lab.reveal(" not in cell.source:
            continue
        names = re.findall(r'"(p\d+)"', cell.source)
        for name in names:
            opened = min(one for one in folded if one > asked[name])
            assert opened > place, f"{name}: it is asked before an explanation, and revealed after"
            later = [one for one, at in asked.items() if asked[name] < at < opened]
            early = set(later) - set(names)
            assert ("explain=False" in cell.source) == bool(early), (name, early)


@pytest.mark.slow
@pytest.mark.no_browser
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_executes(path: Path, tmp_path: Path) -> None:
    notebook = solved_lab(path)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    start = time.monotonic()
    client.execute()
    judge(notebook, notebook.cells, time.monotonic() - start)
