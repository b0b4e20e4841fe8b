"""The course framework without a browser: guesses, verdicts, score cards, the progress file."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mspeckv import KVPolicy, RunConfig, RunSummary, Sampling, generate, stream
from mspeckv.events import Round
from mspeckv_widgets.course import Exercise, Lab, Verdict
from mspeckv_widgets.course import lab as course_lab
from mspeckv_widgets.course.exercise import find_exercises, judge
from mspeckv_widgets.course.hints import HintBox
from mspeckv_widgets.course.progress import (
    FILE_NAME,
    FOLDER_VARIABLE,
    ExerciseRecord,
    ProgressFile,
)
from mspeckv_widgets.course.score import kv_read_per_token, score_html
from tests.random_models import random_pair, random_prompt

LAB = "00_start_here"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed so far, hints apart."""
    things: list[Any] = []

    def show(thing: Any) -> None:
        if not isinstance(thing, HintBox):
            things.append(thing)

    monkeypatch.setattr(course_lab, "_show", show)
    return things


@pytest.fixture
def lab(tmp_path: Path, shown: list[Any]) -> Lab:
    return Lab(LAB, tmp_path)


@pytest.fixture(scope="module")
def run() -> RunSummary:
    return generate(
        random_pair(), random_prompt(200), new_tokens=12, link=1.0,
        policy=KVPolicy(8, on_chip=1, resident=1, block=16),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip


def kept(folder: Path) -> Any:
    text = (folder / FILE_NAME).read_text(encoding="utf-8")
    return json.loads(text)["labs"][LAB]


def status(lab: Lab, name: str) -> str:
    return str(lab.boxes[name].status.value)


def test_a_guess_from_code_is_recorded_and_compared(
    lab: Lab, tmp_path: Path, shown: list[Any]
) -> None:
    lab.predict("p1", "How many MB?", unit="MB")
    lab.guess("p1", 12)
    assert kept(tmp_path)["predictions"]["p1"]["guess"] == 12
    assert "Recorded: 12 MB" in status(lab, "p1")
    lab.reveal("p1", 24.0)
    assert repr(shown[-1]) == "p1: guess 12 MB, result 24 MB: too low by a factor of 2"
    assert kept(tmp_path)["predictions"]["p1"]["result"] == 24


def test_the_button_records_what_the_control_holds(lab: Lab, tmp_path: Path) -> None:
    lab.predict("p1", "How many MB?", unit="MB")
    box = lab.boxes["p1"]
    box.control.value = " 3,5 "
    box.button.click()
    assert kept(tmp_path)["predictions"]["p1"]["guess"] == 3.5
    box.control.value = "many"
    box.button.click()
    assert "p1: &#x27;many&#x27; is not allowed; use a number" in status(lab, "p1")
    assert kept(tmp_path)["predictions"]["p1"]["guess"] == 3.5


def test_choices_are_chosen_and_compared(lab: Lab, shown: list[Any]) -> None:
    lab.predict("p2", "Which?", choices=["a pass", "a wait"])
    box = lab.boxes["p2"]
    box.button.click()
    assert "choose one of: a pass, a wait" in status(lab, "p2")
    box.control.value = "a wait"
    box.button.click()
    lab.reveal("p2", "a wait")
    assert repr(shown[-1]).endswith("as guessed")
    with pytest.raises(ValueError, match="p2: 'a break' is not allowed; choose one of"):
        lab.reveal("p2", "a break")


def test_controls_have_names(lab: Lab) -> None:
    lab.predict("p1", "How many MB?", unit="MB")
    lab.predict("p2", "Which?", choices=["a pass", "a wait"])
    assert lab.boxes["p1"].control.description == "Your guess for p1 (MB)"
    assert lab.boxes["p2"].control.description == "Your guess for p2"
    assert all(box.button.description == "Record guess" for box in lab.boxes.values())


def test_a_known_result_settles_the_guess(lab: Lab, tmp_path: Path) -> None:
    lab.predict("p1", "How many?")
    lab.guess("p1", 1)
    lab.guess("p1", 2)
    lab.reveal("p1", 3)
    lab.guess("p1", 3)
    assert kept(tmp_path)["predictions"]["p1"]["guess"] == 2
    assert "the guess stays 2" in status(lab, "p1")
    assert lab.boxes["p1"].control.disabled


def test_without_a_guess_the_result_is_shown_and_a_later_guess_is_late(
    lab: Lab, shown: list[Any]
) -> None:
    lab.predict("p1", "How many?")
    lab.reveal("p1", 5)
    assert repr(shown[-1]) == "p1: guess none, result 5: no guess was recorded"
    lab.guess("p1", 5)
    lab.progress()
    assert "guess: 5 (late)" in repr(shown[-1])
    lab.reveal("never asked", 7)
    assert repr(shown[-1]).startswith("never asked: guess none, result 7")


@pytest.mark.parametrize("guess", ["many", float("nan"), float("inf"), None, True, ""])
def test_what_is_no_guess_is_refused(lab: Lab, guess: Any) -> None:
    lab.predict("p1", "How many?")
    with pytest.raises(ValueError, match="p1: .* use a number"):
        lab.guess("p1", guess)
    with pytest.raises(ValueError, match="prediction: 'p9' is not allowed; .* asked: p1"):
        lab.guess("p9", 1)


def test_progress_outlives_the_kernel_and_can_be_reset(
    lab: Lab, tmp_path: Path, shown: list[Any]
) -> None:
    lab.predict("p1", "How many MB?", unit="MB")
    lab.guess("p1", 12)
    assert not lab.check("e2", 8.59)
    assert lab.check("e2", 4.29)
    again = Lab(LAB, tmp_path)
    again.predict("p1", "How many MB?", unit="MB")
    assert again.boxes["p1"].control.value == "12"
    assert not again.check("e2", ...)
    again.progress()
    text = repr(shown[-1])
    assert "1 of 4 exercises solved" in text
    assert "tries: 3  solved" in text
    again.reset()
    assert again.boxes["p1"].control.value == ""
    again.progress()
    assert "0 of 4 exercises solved" in repr(shown[-1])
    assert "guess: none" in repr(shown[-1])


def test_a_question_of_another_kind_does_not_take_an_old_answer(lab: Lab, tmp_path: Path) -> None:
    lab.predict("p1", "How many MB?")
    lab.guess("p1", 12)
    again = Lab(LAB, tmp_path)
    again.predict("p1", "Which?", choices=["a pass", "a wait"])
    assert again.boxes["p1"].control.value is None


@pytest.mark.parametrize("answer", [..., None, (1, ...), {"a": None}, [[...]]])
def test_the_placeholder_is_not_yet_an_answer(lab: Lab, shown: list[Any], answer: Any) -> None:
    assert not lab.check("e1", answer)
    assert repr(shown[-1]).startswith("e1: not yet")
    assert "There is no answer yet" in repr(shown[-1])


def test_an_answer_that_raises_is_a_wrong_answer(lab: Lab, shown: list[Any]) -> None:
    assert not lab.check("e1", lambda layers: layers)
    assert "This answer raised TypeError" in repr(shown[-1])
    assert not lab.check("e1", lambda *shape: None)
    assert "It returned None instead of a number" in repr(shown[-1])
    assert not lab.check("e1", lambda *shape: ...)
    assert "There is no answer yet" in repr(shown[-1])


def test_what_is_shown_is_escaped(lab: Lab, shown: list[Any]) -> None:
    exercise = Exercise("a < b", lambda _: Verdict(False, "<b>no</b>"), "<i>hint</i>")
    lab.exercises = {"e1": exercise}
    lab.check("e1", 1)
    page = shown[-1]._repr_html_()
    assert "&lt;b&gt;no" in page
    assert 'role="status"' in page


def test_unknown_labs_and_exercises_are_refused(tmp_path: Path, lab: Lab) -> None:
    with pytest.raises(ValueError, match="lab_id: '99_nothing' is not allowed; no exercises lab99"):
        Lab("99_nothing", tmp_path)
    with pytest.raises(ValueError, match="lab_id: '../00' is not allowed"):
        Lab("../00", tmp_path)
    with pytest.raises(ValueError, match="exercise: 'e9' is not allowed; use one of e1, e2"):
        lab.check("e9", 1)


def test_exercises_have_titles_hints_and_refuse_nonsense() -> None:
    modules = Path(course_lab.__file__).parent / "exercises"
    numbers = [path.stem[3:] for path in modules.glob("lab*.py")]
    assert len(numbers) >= 3
    for number in numbers:
        exercises = find_exercises(f"{number}_any")
        assert len(exercises) >= 3, number
        for exercise in exercises.values():
            assert exercise.title
            assert len(exercise.hint) > 30
            for nonsense in (..., -12345.678, "word", object(), lambda *_: None):
                assert not judge(exercise, nonsense).passed


def test_a_score_card_counts_what_the_events_count(lab: Lab, shown: list[Any]) -> None:
    events = list(
        stream(
            random_pair(), random_prompt(200), RunConfig.build(new_tokens=8, sampling=Sampling(0))
        )
    )
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    read: dict[int, float] = {}
    for one in events:
        for done in one.passes if isinstance(one, Round) else ():
            read[done.tier] = read.get(done.tier, 0) + done.kv_bytes / len(summary.tokens)
    assert kv_read_per_token(summary) == pytest.approx(read)
    lab.score(summary)
    assert "counted" in repr(shown[-1])


def test_a_score_card_labels_its_numbers(lab: Lab, shown: list[Any], run: RunSummary) -> None:
    lab.score([run, run])
    text, page = repr(shown[-1]), shown[-1]._repr_html_()
    assert f"{run.ms_per_token:.1f} ms emulated" in text
    assert "mspeckv, int8, on-chip 1, resident 1" in text
    assert page.count("<tr>") == 3
    assert "lower is better" in page
    assert "KV on the device (modelled)</th>" in page
    assert "modelled</td>" not in page


def test_a_score_card_has_no_empty_column_and_tells_clocks_apart(run: RunSummary) -> None:
    plain = replace(
        run, tiers=run.tiers[-1:], kv_read_bytes=run.kv_read_bytes[-1:],
        link=replace(run.link, kind="off"),
    )  # fmt: skip
    assert "KV read by tier 0" in score_html([run, plain])
    assert "KV read by tier 0" not in score_html([plain])
    assert f"{run.ms_per_token:.1f} ms emulated</td>" in score_html([run, plain])
    assert "ms per token (measured)</th>" in score_html([plain])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"labs": 3}', '{"labs": {"00_start_here": {}}}', "\x00\xff"]
)
def test_a_corrupt_file_is_told_and_set_aside(tmp_path: Path, shown: list[Any], text: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text, encoding="latin-1")
    lab = Lab(LAB, tmp_path)
    lab.predict("p1", "How many?")
    assert "could not be read" in repr(shown[0])
    assert "starting afresh" in repr(shown[0])
    assert path.with_suffix(".broken").read_text(encoding="latin-1") == text
    lab.guess("p1", 4)
    assert kept(tmp_path)["predictions"]["p1"]["guess"] == 4
    assert sum("could not be read" in repr(one) for one in shown) == 1


def test_a_folder_that_cannot_be_written_keeps_progress_in_memory(
    tmp_path: Path, shown: list[Any]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("", encoding="utf-8")
    lab = Lab(LAB, in_the_way / "inner")
    lab.predict("p1", "How many?")
    lab.guess("p1", 4)
    lab.reveal("p1", 4)
    assert repr(shown[-1]).endswith("exactly as guessed")
    told = [repr(one) for one in shown if "cannot be written" in repr(one)]
    assert len(told) == 1
    assert FOLDER_VARIABLE in told[0]


def test_the_environment_names_the_folder(
    tmp_path: Path, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    Lab(LAB).check("e2", 4.29)
    assert kept(tmp_path / "mine")["exercises"]["e2"] == {"passed": True, "tries": 1, "hints": 0}


def test_several_notebooks_write_one_file_without_loss(tmp_path: Path) -> None:
    def work(number: int) -> None:
        file = ProgressFile(tmp_path, pytest.fail)
        for step in range(10):
            with file.change(f"{number:02d}_lab") as lab:
                lab.exercises.setdefault(f"e{step}", ExerciseRecord()).tries += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    file = ProgressFile(tmp_path, pytest.fail)
    assert all(len(file.read(f"{number:02d}_lab").exercises) == 10 for number in range(4))
    assert not list(tmp_path.glob("*.new"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches a learner's progress."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def test_shown_text_holds_no_markup(lab: Lab, shown: list[Any], run: RunSummary) -> None:
    lab.progress()
    lab.check("e1", 3)
    lab.score(run)
    assert not [one for one in shown if re.search(r"<\w", repr(one))]
