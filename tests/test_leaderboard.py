"""Scores are shown beside the best so far, kept in a file, recomputed from an answer's source."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from mspeckv_widgets.course import Exercise, Lab, Verdict
from mspeckv_widgets.course.answers import call
from mspeckv_widgets.course.exercise import Score
from mspeckv_widgets.course.leaderboard import (
    FILE_NAME,
    FOLDER_VARIABLE,
    STUDENT_VARIABLE,
    Entry,
    LeaderboardFile,
    recompute,
    student_name,
)
from mspeckv_widgets.course.source import source_of

LAB = "00_start_here"
OFFSET = 3


def check_small(found: Any) -> Verdict:
    """A function whose value at 2 is the score."""
    value = float(call(found, 2)) if callable(found) else float(found)
    passed = value < 100
    return Verdict(passed, "small enough", Score(value, "KB", "counted", less_is_better=True))


EXERCISES = {"e1": Exercise("few bytes", check_small, "Think of fewer.")}


@pytest.fixture(autouse=True)
def _ada(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in (FOLDER_VARIABLE, "MSPECKV_PROGRESS", "JUPYTERHUB_USER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(STUDENT_VARIABLE, "ada")
    for module in ("lab", "leaderboard"):
        target = f"mspeckv_widgets.course.{module}.find_exercises"
        monkeypatch.setattr(target, lambda _: EXERCISES)


@pytest.fixture
def lab(tmp_path: Path, shown: list[Any]) -> Lab:
    return Lab(LAB, tmp_path)


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / FILE_NAME).read_text())["entries"]
    return found


def entry(student: str = "ada", value: float = 3.0, **changes: Any) -> Entry:
    base = Entry(LAB, "e1", student, value, "KB", "counted", True, "answer = 3.0\n", "2026-01-01")
    return replace(base, **changes)


def test_a_score_is_shown_beside_the_best_so_far(
    lab: Lab, shown: list[Any], tmp_path: Path
) -> None:
    lab.check("e1", 40.0)
    assert repr(shown[-1]).endswith("Score: 40 KB (counted). It is your first.")
    lab.check("e1", 50.0)
    assert repr(shown[-1]).endswith("Score: 50 KB (counted). Your best stays 40.")
    lab.check("e1", 40.0)
    assert repr(shown[-1]).endswith("It equals your best.")
    lab.check("e1", 30.5)
    assert repr(shown[-1]).endswith("Score: 30.5 KB (counted). It beats your best so far, 40.")
    assert "30.5 KB (counted)" in shown[-1]._repr_html_()
    (kept,) = entries(tmp_path)
    assert kept.pop("date").startswith("20")
    assert kept == {
        "lab": LAB, "exercise": "e1", "student": "ada", "value": 30.5, "unit": "KB",
        "kind": "counted", "less_is_better": True, "source": "answer = 30.5\n",
    }  # fmt: skip


def test_an_answer_that_does_not_hold_has_no_score(
    lab: Lab, shown: list[Any], tmp_path: Path
) -> None:
    lab.check("e1", 200.0)
    assert "Score" not in repr(shown[-1])
    assert not (tmp_path / FILE_NAME).exists()
    lab.leaderboard()
    assert repr(shown[-1]).startswith("No score is kept yet")


def test_more_is_better_where_the_score_says_so() -> None:
    high = entry(value=9.0, less_is_better=False)
    assert high.beats(entry(value=3.0, less_is_better=False))
    assert not entry(value=9.0).beats(entry(value=3.0))
    assert not high.beats(high)


def test_the_leaderboard_ranks_students(lab: Lab, shown: list[Any], tmp_path: Path) -> None:
    board = LeaderboardFile(tmp_path, pytest.fail)
    for student, value in (("ben", 12.0), ("<eve>", 2.0)):
        board.add(entry(student, value))
    lab.check("e1", 7.0)
    lab.leaderboard("e1")
    lines = repr(shown[-1]).splitlines()
    assert [line.split("  ")[1:3] for line in lines[1:]] == [
        ["1", "<eve>"], ["2", "ada"], ["3", "ben"],
    ]  # fmt: skip
    assert "2 KB (counted); lower is better" in lines[1]
    assert "&lt;eve&gt;" in shown[-1]._repr_html_()
    with pytest.raises(ValueError, match="exercise: 'e9' is not allowed"):
        lab.leaderboard("e9")


def test_the_environment_names_the_folder(
    tmp_path: Path, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "class"))
    Lab(LAB, tmp_path).check("e1", 4.0)
    assert entries(tmp_path / "class")[0]["value"] == 4
    assert not (tmp_path / FILE_NAME).exists()


def test_the_students_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_USER", "hub")
    assert student_name() == "ada"
    monkeypatch.setenv(STUDENT_VARIABLE, " ")
    assert student_name() == "hub"
    monkeypatch.delenv("JUPYTERHUB_USER")
    monkeypatch.setattr("getpass.getuser", lambda: "login")
    assert student_name() == "login"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entries": 3}', '{"entries": [{"lab": 1}]}'])
def test_a_damaged_file_is_told_and_left(
    lab: Lab, shown: list[Any], tmp_path: Path, text: str
) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert lab.check("e1", 4.0)
    assert sum("The score is not kept" in repr(one) for one in shown) == 1
    lab.check("e1", 4.0)
    assert sum("The score is not kept" in repr(one) for one in shown) == 1
    assert (tmp_path / FILE_NAME).read_text() == text


def test_several_write_one_file_without_loss(tmp_path: Path) -> None:
    def work(student: int) -> None:
        board = LeaderboardFile(tmp_path, pytest.fail)
        for value in range(8, 0, -1):
            board.add(entry(f"s{student}", float(value)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted((one["student"], one["value"]) for one in entries(tmp_path)) == [
        (f"s{student}", 1.0) for student in range(4)
    ]


def test_a_file_keeps_its_rights(tmp_path: Path) -> None:
    board = LeaderboardFile(tmp_path, pytest.fail)
    board.add(entry())
    board.path.chmod(0o664)
    board.add(entry(value=1.0))
    assert board.path.stat().st_mode & 0o777 == 0o664


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A notebook's kernel without a notebook."""
    made: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    yield made
    made.run_cell("", store_history=False)


def in_cells(shell: Any, *cells: str) -> Any:
    """What the name ``found`` stands for after a student's cells have run."""
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    return shell.user_ns["found"]


CELLS = (
    "import math\nimport numpy as np\nfrom math import floor as down\nSIZE = (3, 4)",
    "def helper(x):\n    return down(x) + other(x)\n\n"
    "def other(x):\n    return SIZE[0] if x else helper(x)",
    "def found(x, least=SIZE[1]):\n    return max(least, int(np.ceil(math.sqrt(helper(x)))))",
)


def test_an_answer_of_several_cells_is_judged_anew(shell: Any) -> None:
    found = in_cells(shell, *CELLS)
    source = source_of(found)
    assert source.rstrip().endswith("answer = found")
    alone = recompute(entry(source=source))
    assert alone.passed
    assert alone.score == Score(float(found(2)), "KB", "counted", less_is_better=True)
    assert recompute(asdict(entry(source=source))).score == alone.score


def test_a_class_and_a_pair_of_functions_can_be_made_anew(shell: Any) -> None:
    cells = (
        "class Codec:\n    bits = 4\n    def pack(self, x):\n        return twice(x) * self.bits",
        "def twice(x):\n    return 2 * x",
        "found = {'codec': Codec, 'pair': (twice, [1, 2.5])}",
    )
    space: dict[str, Any] = {}
    exec(source_of(in_cells(shell, *cells)), space)
    answer = space["answer"]
    assert answer["codec"]().pack(3) == 24
    assert answer["pair"][0](4) == 8
    assert answer["pair"][1] == [1, 2.5]


@pytest.mark.parametrize(
    "value",
    [3, 2.5, "text", (1,), (), [1, "a"], {"a": (1, 2)}, np.float64(0.1), np.arange(4), True],
)
def test_plain_values_are_written_as_such(value: Any) -> None:
    space: dict[str, Any] = {}
    exec(source_of(value), space)
    assert space["answer"] == (value.tolist() if hasattr(value, "tolist") else value)


def test_what_cannot_be_written_has_no_source(lab: Lab, tmp_path: Path) -> None:
    assert source_of(lambda x: x) == ""
    assert source_of(object()) == ""
    assert source_of(math.nan) == ""
    assert source_of(math.sqrt) == ""
    lab.check("e1", lambda x: x)
    assert entries(tmp_path)[0]["source"] == ""
    verdict = recompute(entries(tmp_path)[0])
    assert not verdict.passed
    assert "no source" in verdict.message


def test_what_the_exercise_gives_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f(x):\n    return x + given\n\nanswer = f\n"
    missing = recompute(entry(source=source))
    assert not missing.passed
    assert "NameError" in missing.message
    assert missing.attempt is not None
    assert str(missing.attempt.place).endswith("line 2: return x + given")
    giving = replace(EXERCISES["e1"], gives=lambda: {"given": 5})
    monkeypatch.setitem(EXERCISES, "e1", giving)
    again = recompute(entry(source=source))
    assert again.score is not None
    assert again.score.value == 7


def test_a_part_that_cannot_be_written_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = object()
    assert source_of((check_small, pair)) == ""
    monkeypatch.setattr(sys.modules["__main__"], "pair", pair, raising=False)
    space: dict[str, Any] = {"pair": pair}
    exec(source_of((check_small, pair)), space)
    assert space["answer"][1] is pair


def test_a_source_that_fails_is_a_verdict() -> None:
    assert "SyntaxError" in recompute(entry(source="def")).message
    assert "SystemExit" in recompute(entry(source="raise SystemExit(1)")).message
    assert not recompute(entry(source="x = 1")).passed
    with pytest.raises(ValueError, match="exercise: 'e9' is not allowed"):
        recompute(entry(exercise="e9"))
    with pytest.raises(ValueError, match="entry"):
        recompute({"lab": LAB})


def test_recomputing_leaves_the_notebook_alone() -> None:
    recompute(entry(source="OFFSET = 9\nanswer = OFFSET\n"))
    assert OFFSET == 3
