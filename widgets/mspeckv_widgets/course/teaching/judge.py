"""`mspeckv course judge`: the project's own tests against what a student wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as Xml

from mspeckv.settings import refuse
from mspeckv_widgets.course.teaching.blanks import blanks
from mspeckv_widgets.course.teaching.build import JUDGES, copy_tests
from mspeckv_widgets.course.teaching.places import checkout


@dataclass(frozen=True)
class Judgement:
    """What the tests say of one function.

    Attributes:
        name: of the blank.
        passed: tests that passed, parametrized ones counted one by one.
        failed: tests that did not.
        first: the first failure: which test, its line, what came of it; empty where there is none.
    """

    name: str
    passed: int
    failed: int
    first: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the function is right, as far as the tests see."""
        return self.passed > 0 and self.failed == 0

    def describe(self) -> str:
        """In a line; the first failure below it."""
        if self.holds:
            return f"{self.name:10} passed  {self.passed} tests"
        failed = f"{self.failed} of {self.passed + self.failed} tests"
        return "\n".join([f"{self.name:10} failed  {failed}", *(f"    {it}" for it in self.first)])


def judge(folder: str | Path, names: Sequence[str] = ()) -> list[Judgement]:
    """Run the tests on a copy that `build` made; the tests are taken from the checkout anew.

    Args:
        folder: the copy.
        names: of the functions to judge; all that were blanked where none is named.

    Raises:
        ValueError: no such copy or function, no checkout, or no pytest.
    """
    out = Path(folder).expanduser().resolve()
    if not (out / JUDGES).is_file():
        raise refuse("folder", str(folder), "use a folder that `mspeckv course build` made")
    if find_spec("pytest") is None or find_spec("pytest_timeout") is None:
        raise refuse("course", "pytest", "it is not installed: pip install 'mspeckv[test]'")
    made = blanks(list(json.loads((out / JUDGES).read_text(encoding="utf-8"))))
    copy_tests(checkout(), out, made)
    chosen = [blank for blank in made if not names or blank in blanks(names)]
    cases, said = _run(out, sorted({test for blank in chosen for test in blank.tests}))
    return [_judged(blank.name, set(blank.tests), cases, said) for blank in chosen]


def _run(out: Path, tests: list[str]) -> tuple[list[tuple[str, Xml.Element]], str]:
    """Test cases by the test they belong to, and what pytest printed."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *tests],
            cwd=out,
            env={**os.environ, "PYTHONPATH": str(out), "MSPECKV_ACCELERATE": "none"},
            capture_output=True,
            text=True,
            check=False,
        )
        found = Xml.parse(report).getroot().iter("testcase") if report.is_file() else ()
        return [(_test_of(case), case) for case in found], done.stdout + done.stderr


def _test_of(case: Xml.Element) -> str:
    """The test's id without parameters."""
    path = (case.get("classname") or "").replace(".", "/")
    return f"{path}.py::{(case.get('name') or '').split('[')[0]}"


def _judged(
    name: str, tests: set[str], cases: list[tuple[str, Xml.Element]], said: str
) -> Judgement:
    passed, failed, first = 0, 0, tuple[str, ...]()
    for test, case in cases:
        if test not in tests:
            continue
        trouble = next((child for child in case if child.tag in ("failure", "error")), None)
        if trouble is None:
            passed += 1
            continue
        failed += 1
        title = f"{test}{(case.get('name') or '').removeprefix(test.split('::')[1])}"
        first = first or (title, *_failing_lines(trouble.text or ""))
    missing = len(tests - {test for test, _ in cases})
    if missing and not first:
        # a file that cannot even be imported
        first = ("the tests could not be run", *_failing_lines(said))
    return Judgement(name, passed, failed + missing, first)


def _failing_lines(text: str) -> list[str]:
    """The line that failed and what pytest says about it, at most six lines."""
    lines = text.splitlines()
    told = [line for line in lines if line.startswith("E  ")]
    at = lines.index(told[0]) if told else 0
    asserted = [line for line in lines[:at] if line.startswith(">")][-1:]
    return [line[:160] for line in (*asserted, *told[:5])]
