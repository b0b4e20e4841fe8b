"""A failing check shows the student's line, the arguments tried and both values."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from mspeckv_widgets.course import Exercise, Lab, Verdict
from mspeckv_widgets.course.answers import call, same_function
from mspeckv_widgets.course.exercise import judge
from mspeckv_widgets.course.hints import HintBox
from mspeckv_widgets.course.trial import PRINTED_LINES, copied, limited

LAB = "00_start_here"


def double(x: float) -> float:
    return 2 * x


def check_double(found: Any) -> Verdict:
    return same_function(found, double, [(1.0,), (3.0,)], "right")


DOUBLE = Exercise("twice the number", check_double, "Add it to itself.", seconds=0.3)


def attempt(answer: Any, exercise: Exercise = DOUBLE) -> dict[str, str]:
    """What a verdict tells of the call that failed."""
    verdict = judge(exercise, answer)
    assert not verdict.passed
    assert verdict.attempt is not None
    return dict(verdict.attempt.rows())


def line_of(code: Any, offset: int) -> str:
    return f"{Path(__file__).name}, line {code.__code__.co_firstlineno + offset}"


def test_a_wrong_value_shows_the_call_both_values_and_the_line() -> None:
    def twice(x: float) -> float:
        if x > 2:
            return x + 2
        return x + 1

    told = attempt(twice)
    assert told == {
        "Tried": "twice(3.0)", "Got": "5", "Wanted": "6",
        "Your line": f"{line_of(twice, 2)}: return x + 2",
    }  # fmt: skip


def test_no_number_is_shown_with_its_line() -> None:
    def twice(x: float) -> Any:
        return [x]

    told = attempt(twice)
    assert (told["Got"], told["Wanted"]) == ("[1.0]", "2")
    assert told["Your line"].endswith("return [x]")


def test_an_error_shows_the_last_line_of_the_students_own() -> None:
    def inner(x: float) -> Any:
        return np.linalg.inv(np.zeros((2, 2))) * x

    def twice(x: float) -> Any:
        return inner(x)

    told = attempt(twice)
    assert told["Tried"] == "twice(1.0)"
    assert told["Got"].startswith("the error LinAlgError")
    assert told["Your line"] == f"{line_of(inner, 1)}: return np.linalg.inv(np.zeros((2, 2))) * x"


def test_an_error_is_told_where_a_checker_calls_by_itself() -> None:
    def twice(x: float) -> float:
        return 1 / (x - 1)

    plain = Exercise("a", lambda found: Verdict(bool(found(1.0)), ""), "b")
    told = attempt(twice, plain)
    assert told["Tried"] == "twice(x=1.0)"
    assert told["Got"].startswith("the error ZeroDivisionError: ")
    assert told["Your line"] == f"{line_of(twice, 1)}: return 1 / (x - 1)"


def test_wrong_arguments_show_the_call() -> None:
    told = attempt(lambda: 3)
    assert told["Tried"] == "your function(1.0)"
    assert "TypeError" in told["Got"]
    assert "Your line" not in told


def test_a_cell_is_named_as_jupyterlab_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    monkeypatch.setattr("mspeckv_widgets.course.trial.get_ipython", lambda: shell)
    shell.run_cell("1 + 1", store_history=True)
    shell.run_cell("def twice(x):\n    y = x\n    return y / 0", store_history=True)
    told = attempt(shell.user_ns["twice"])
    assert told["Your line"] == "Cell In[2], line 3: return y / 0"


def test_an_endless_answer_is_stopped() -> None:
    def twice(x: float) -> float:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    verdict = judge(DOUBLE, twice)
    assert verdict.message == "this answer was stopped: it took longer than 0.3 seconds"
    assert verdict.attempt is not None
    assert verdict.attempt.call == "twice(1.0)"
    assert "twice" not in str(verdict.attempt.place)
    assert Path(__file__).name in str(verdict.attempt.place)


def test_an_alarm_of_somebody_else_goes_off_all_the_same() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    theirs = signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with limited(50):
            time.sleep(0.7)
            assert not rung
        time.sleep(0.1)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *theirs)


def test_another_thread_judges_without_a_limit() -> None:
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(judge(DOUBLE, double)))
    thread.start()
    thread.join()
    assert found == [Verdict(True, "right")]


def test_an_answer_that_ends_the_program_is_a_wrong_answer() -> None:
    told = attempt(lambda _: sys.exit(3))
    assert told["Got"] == "the error SystemExit: 3"


def test_what_an_answer_prints_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    def twice(x: float) -> float:
        for line in range(500):
            print("line", line)
        return 2 * x

    assert judge(DOUBLE, twice).passed
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["line 0", "line 1"]
    assert len(lines) == PRINTED_LINES + 1
    assert lines[-1] == f"... and {1000 - PRINTED_LINES} printed lines more"
    assert sys.stdout.write("") == 0


@pytest.mark.parametrize(
    "given",
    [
        np.array([0.5, 0.5]),
        torch.tensor([0.5, 0.5]),
        [0.5, 0.5],
        {"p": [0.5, 0.5]},
        ([0.5, 0.5],),
    ],
)
def test_an_answer_may_change_its_arguments(given: Any) -> None:
    def spoil(found: Any) -> None:
        part = found["p"] if isinstance(found, dict) else found
        part = part[0] if isinstance(part, tuple) else part
        part[0] = 9.0

    before = repr(given)
    call(spoil, given)
    assert repr(given) == before


def test_what_is_no_plain_data_is_passed_on_itself() -> None:
    rng = np.random.default_rng(0)
    assert copied(rng) is rng


@pytest.fixture
def make(tmp_path: Path, shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Lab]:
    """Makes a lab whose notebook lies in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSPECKV_PROGRESS", raising=False)
    return lambda: Lab(LAB, tmp_path)


def test_a_failing_check_shows_it_all(make: Callable[[], Lab], shown: list[Any]) -> None:
    lab = make()
    lab.exercises = {"e1": DOUBLE}

    def twice(x: float) -> float:
        return x if x < 2 else 0

    lab.check("e1", twice)
    verdict, hints = shown[-2:]
    assert isinstance(hints, HintBox)
    page, text = verdict._repr_html_(), repr(verdict)
    assert "<dt>Tried</dt><dd><code>twice(1.0)</code></dd>" in page
    assert "return x if x &lt; 2 else 0" in page
    assert "Tried: twice(1.0)\nGot: 1\nWanted: 2\nYour line: " in text
