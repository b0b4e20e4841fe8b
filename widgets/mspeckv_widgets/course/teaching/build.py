"""`mspeckv course build`: a copy of the engine in which some functions are to be written anew."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mspeckv_widgets.course.teaching.blanks import Blank, blanked, blanks
from mspeckv_widgets.course.teaching.places import checkout, empty_folder

JUDGES = "judges.json"
_TEST_PACKAGES = ("tests", "tools", "benchmarks")

_CONFTEST = '''"""Judges this copy of the engine, with nothing that goes round your functions."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# an acceleration may do a function's work without calling it
os.environ["MSPECKV_ACCELERATE"] = "none"

import mspeckv  # noqa: E402
import mspeckv_study  # noqa: E402

# a verdict at once: the first settings that fail are told, not the smallest
settings.register_profile("judge", phases=[Phase.explicit, Phase.generate])
settings.load_profile("judge")

HERE = Path(__file__).resolve().parent
JUDGES = {test for of in json.loads((HERE / "judges.json").read_text()).values() for test in of}

OURS = {mspeckv: HERE / "mspeckv", mspeckv_study: HERE / "study" / "mspeckv_study"}
for package, folder in OURS.items():
    if Path(package.__file__).resolve().parent != folder:
        told = f"run `python -m pytest` in {HERE}: another {package.__name__} was imported"
        raise pytest.UsageError(told)


def pytest_collection_modifyitems(config, items):
    """Leave only the tests that judge."""
    rest = [item for item in items if item.nodeid.split("[")[0] not in JUDGES]
    items[:] = [item for item in items if item not in rest]
    config.hook.pytest_deselected(items=rest)
'''

_README = """# Write the engine

In this copy of MSpecKV {count} of the engine lack their body. Each keeps its signature and its
docstring, which says what it must do. Write them in this order: a later one may use an earlier one.

{table}

{tasks}
## How you are judged

By the project's own tests, on your copy, with accelerations off (`MSPECKV_ACCELERATE=none`), so
that nothing goes round your functions:

    mspeckv course judge {folder}

It says of each function whether it passed, and shows the first assertion that failed. `python -m
pytest` in this folder runs the same tests and shows everything; `python -m pytest -k residual`
those whose name has that word.

A function that is not written yet fails with `write me`. The original is in the installed package:
look there when you have passed, and compare.

## When all pass

Your engine decodes. In this folder:

    PYTHONPATH=.:study MSPECKV_ACCELERATE=none python -m mspeckv generate --new-tokens 16
"""


def build(folder: str | Path, names: Sequence[str] = ()) -> Path:
    """Make the copy; returns its folder.

    Args:
        folder: a new or an empty one.
        names: of the functions to blank; all five where none is named.

    Raises:
        ValueError: an unknown name, a folder that holds something, or no checkout to copy from.
    """
    chosen, root = blanks(names), checkout()
    out = empty_folder("folder", folder)
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("mspeckv", "study"):
        shutil.copytree(root / name, out / name, ignore=skip)
    shutil.copy(root / "pyproject.toml", out)
    for blank in chosen:
        path = out / blank.file
        path.write_text(blanked(path.read_text(encoding="utf-8"), blank), encoding="utf-8")
    (out / JUDGES).write_text(json.dumps({b.name: b.tests for b in chosen}, indent=1) + "\n")
    (out / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    (out / "README.md").write_text(_readme(out, chosen), encoding="utf-8")
    copy_tests(root, out, chosen)
    return out


def copy_tests(root: Path, out: Path, chosen: Iterable[Blank]) -> None:
    """Copy the tests that judge, and what they import of the project's own."""
    files = {test.split("::")[0] for blank in chosen for test in blank.tests}
    for name in sorted(_with_imports(root, {*files, "tests/conftest.py"})):
        target = out / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(root / name, target)


def _with_imports(root: Path, files: set[str]) -> set[str]:
    """Files, and those they import of the packages that are not installed; packages included."""
    found: set[str] = set()
    ahead = list(files)
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        folder = name.split("/", 1)[0]
        ahead.append(f"{folder}/__init__.py")
        for module in _imported(ast.parse((root / name).read_text(encoding="utf-8")), folder):
            path = module.replace(".", "/") + ".py"
            if module.split(".")[0] in _TEST_PACKAGES and (root / path).is_file():
                ahead.append(path)
    return found


def _imported(tree: ast.AST, package: str) -> set[str]:
    """Names of the modules that a file imports, or may import from a package."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = f"{package}." * node.level + (node.module or "")
            names |= {base, *(f"{base.rstrip('.')}.{alias.name}" for alias in node.names)}
    return names


def _readme(out: Path, chosen: Sequence[Blank]) -> str:
    rows = ["| | name | where | tests |", "| --- | --- | --- | --- |"]
    tasks = []
    for place, blank in enumerate(chosen, start=1):
        where = f"`{blank.function}` in `{blank.file}`"
        rows.append(f"| {place} | {blank.name} | {where} | {len(blank.tests)} |")
        tests = "\n".join(f"- `{test}`" for test in blank.tests)
        head = f"## {place}. {blank.name}: `{blank.function}`"
        tasks.append(f"{head}\n\n{blank.task}\n\nPaper: {blank.paper}.\n\nTests:\n\n{tests}\n")
    count = "one function" if len(chosen) == 1 else f"{len(chosen)} functions"
    count = count.replace("5 functions", "five functions")
    return _README.format(count=count, table="\n".join(rows), tasks="\n".join(tasks), folder=out)
