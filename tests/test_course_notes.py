"""Notes for instructors: a line for every prediction and exercise, and none that went stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mspeckv_study.cli import main
from mspeckv_widgets.course.teaching import notes
from mspeckv_widgets.course.teaching.assignments import LabSource, Task, code_cell, read_labs
from mspeckv_widgets.course.teaching.probes import PROBES

from .labs import LABS

ROOT = LABS.parent
ALL = read_labs(LABS, [])
KNOWN = notes.load_expected(ROOT)
AGAIN = f"run `{notes.COMMAND} --labs NN`, which executes the lab"


PAGE = (ROOT / notes.PAGE).read_text(encoding="utf-8")


def section(lab: LabSource) -> list[str]:
    """The lines of the page about a lab."""
    return PAGE.split(f"\n## {lab.name[:2]}. ")[1].split("\n## ")[0].splitlines()


@pytest.mark.parametrize("lab", ALL, ids=lambda lab: lab.name)
def test_every_prediction_and_exercise_has_a_line(lab: LabSource) -> None:
    assert lab.name in KNOWN, AGAIN
    found = KNOWN[lab.name]
    asked = notes.questions(lab)
    code = "".join(c["source"] for c in lab.notebook["cells"] if c["cell_type"] == "code")
    assert len(asked) == code.count("lab.predict(")
    assert set(found["predictions"]) <= set(asked), AGAIN
    # what is shown without being computed before is the student's own to find
    assert len(asked) - len(found["predictions"]) <= 1, AGAIN
    assert list(found["exercises"]) == list(lab.tasks), AGAIN
    for one in found["predictions"].values():
        assert one["result"] is not None
    for name in (*asked, *lab.tasks):
        assert sum(line.startswith(f"| {name} |") for line in section(lab)) == 1, name
    for one in found["exercises"].values():
        assert one["why"]
        assert one["answer"]


def test_the_pages_are_those_of_what_is_known() -> None:
    page = (ROOT / notes.PAGE).read_text(encoding="utf-8")
    assert page == notes.page_of(ALL, KNOWN), f"run `{notes.COMMAND} --render`"
    syllabus = (ROOT / notes.SYLLABUS).read_text(encoding="utf-8")
    assert syllabus == notes.with_table(syllabus), f"run `{notes.COMMAND} --render`"


def test_every_lab_has_its_misconception() -> None:
    assert [probe.lab for probe in PROBES] == [lab.name[:2] for lab in ALL]


@pytest.mark.slow
def test_a_fresh_execution_gives_what_is_kept() -> None:
    """Of a lab in which everything is modelled, so that every machine computes the same."""
    (lab,) = read_labs(LABS, ["07"])
    found, kept = notes.measure(lab), KNOWN[lab.name]
    assert set(found["predictions"]) == set(kept["predictions"])
    for name, one in found["predictions"].items():
        expected = kept["predictions"][name]
        result: Any = expected["result"]
        assert one["question"] == expected["question"]
        assert one["result"] == (pytest.approx(result) if isinstance(result, float) else result)
    assert found["exercises"] == kept["exercises"]


def test_a_solution_that_does_not_pass_is_refused(tmp_path: Path) -> None:
    begin = 'from mspeckv_widgets.course import Lab\n\nlab = Lab("00_start_here")\n'
    check = 'lab.check("e2", x)'
    lab = LabSource(
        "00_start_here",
        {
            "cells": [
                code_cell(begin, "begin"),
                code_cell(f"x = ...\n{check}", "e2", {"exercise": "e2"}),
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        {"e2": Task("e2", "x = ...", "x = -1.5", check)},
        (),
    )
    with pytest.raises(ValueError, match="does not pass"):
        notes.measure(lab)


def test_a_syllabus_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="mark the table's place"):
        notes.with_table("# Labs")


def test_an_unknown_lab_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "notes", "--labs", "99"]) == 2
    assert "labs: '99'" in capsys.readouterr().err
