"""Every file of `accelerate` opens with what it saves, or of what it is a part."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for path in (ROOT / "mspeckv" / "accelerate").glob("*.py") if path.stem != "__init__"
)
TABLES = ROOT / "benchmarks" / "results"


def opening(path: Path) -> str:
    """The second paragraph of a module's docstring, in one line."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert said is not None
    return " ".join(said.split("\n\n")[1].split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_opens_with_what_it_saves(path: Path) -> None:
    assert re.search(r"[Ss]aves ", opening(path)), opening(path)


@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("split_keys", "accelerations-16-cores.txt"),
        ("packed_attention", "accelerations-2-cores.txt"),
        ("weight_copies", "accelerations-2-cores.txt"),
        ("short_head", "accelerations-2-cores.txt"),
        ("workspace", "accelerations-h200.txt"),
        ("triton_unpack", "accelerations-h200.txt"),
    ],
)
def test_what_it_says_is_what_the_table_says(module: str, table: str) -> None:
    found = re.findall(rf"^{module} .*\+(\d+)%", (TABLES / table).read_text(), re.MULTILINE)
    saved = sorted(map(int, found))
    assert saved[-1] >= 5, "one that saves less goes"
    said = re.findall(r"(\d+)(?= to| %| and)", opening(ROOT / f"mspeckv/accelerate/{module}.py"))
    assert {saved[0], saved[-1]} <= {*map(int, said)}, (found, said)
