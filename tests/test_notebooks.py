"""Every lab runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

LABS = Path(__file__).resolve().parents[1] / "labs"
NOTEBOOKS = sorted(LABS.glob("*.ipynb"))
CELL_SECONDS = 300
LONGEST_CELL = 15


def load(path: Path) -> Any:
    """The notebook in a file."""
    read: Any = nbformat.read  # it has no types
    return read(path, as_version=4)


def named(path: Path) -> str:
    """Test ids are file names."""
    return path.stem


def test_labs_are_found() -> None:
    assert {path.name for path in NOTEBOOKS} >= {"00_start_here.ipynb", "01_live_lab.ipynb"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_is_kept_clean(path: Path) -> None:
    notebook = load(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= LONGEST_CELL


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_links_lead_to_files(path: Path) -> None:
    listed = (LABS / "README.md").read_text(encoding="utf-8")
    assert f"({path.name})" in listed
    for cell in load(path).cells:
        for target in cell.source.split("](")[1:] if cell.cell_type == "markdown" else []:
            name = target.split(")")[0]
            assert name.startswith("http") or (LABS / name).exists(), name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_executes(path: Path, tmp_path: Path) -> None:
    notebook = load(path)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    text = "".join(
        output.get("text", "") for cell in code for output in cell.outputs if "text" in output
    )
    assert "Error" not in text
    if path.stem == "00_start_here":
        assert "same tokens as without guessing: True" in text
    if path.stem == "05_profiler":
        assert "before: kv/fetch" in text
        assert "same tokens: True" in text
