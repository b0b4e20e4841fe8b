"""A typed guess counts at the reveal, and the page's word about a box's control is taken."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mspeckv_widgets.course import Lab
from mspeckv_widgets.course.lab import UNRECORDED


@pytest.fixture
def lab(tmp_path: Path, shown: list[Any]) -> Lab:
    """A lab with a number and a choice asked."""
    made = Lab("00_start_here", tmp_path)
    made.predict("p1", "How many MB?", unit="MB")
    made.predict("p2", "Which?", choices=["int8", "float"])
    return made


def guess(lab: Lab, name: str) -> Any:
    return lab._file.read(lab.lab_id).predictions[name].guess


def test_a_typed_guess_counts_at_the_reveal(lab: Lab, shown: list[Any]) -> None:
    lab.boxes["p1"].control.value = "12,5"
    lab.reveal("p1", 25)
    assert guess(lab, "p1") == 12.5
    assert repr(shown[-1]).startswith("p1: guess 12.5 MB, result 25 MB: too low by a factor of 2")
    assert UNRECORDED in repr(shown[-1])
    lab.boxes["p2"].control.value = "float"
    lab.reveal("p2", "float")
    assert guess(lab, "p2") == "float"


def test_a_reveal_asks_for_the_explanation_unless_another_guess_comes_first(
    lab: Lab, shown: list[Any]
) -> None:
    lab.reveal("p1", ...)
    lab.reveal("p1", 3, explain=False)
    assert lab.boxes["p1"].keys.explained == 0
    lab.reveal("p1", 3)
    lab.reveal("p1", 3)
    assert lab.boxes["p1"].keys.explained == 2, "each time anew"
    assert lab.boxes["p2"].keys.explained == 0


def test_what_was_typed_after_recording_counts(lab: Lab, shown: list[Any]) -> None:
    lab.guess("p1", 1 / 3)
    lab.reveal("p1", ...)
    assert guess(lab, "p1") == 1 / 3
    lab.boxes["p1"].control.value = "7"
    lab.reveal("p1", 7)
    assert guess(lab, "p1") == 7


def test_a_recorded_guess_stays_as_exact_as_it_was(lab: Lab, shown: list[Any]) -> None:
    lab.guess("p1", 1 / 3)
    lab.reveal("p1", 2)
    assert guess(lab, "p1") == 1 / 3
    assert UNRECORDED not in repr(shown[-1])


def test_what_is_no_answer_does_not_count(lab: Lab, shown: list[Any]) -> None:
    lab.boxes["p1"].control.value = "many"
    lab.reveal("p1", 7)
    assert guess(lab, "p1") is None
    assert repr(shown[-1]).endswith("no guess was recorded")


def test_nothing_typed_counts_once_the_result_is_known(lab: Lab, shown: list[Any]) -> None:
    lab.reveal("p1", 7)
    lab.boxes["p1"].control.value = "7"
    lab.reveal("p1", 7)
    assert guess(lab, "p1") is None


def test_the_pages_word_is_recorded_and_answered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    for box in lab.boxes.values():
        monkeypatch.setattr(box.keys, "send", sent.append)
    lab.boxes["p1"].hear({"kind": "guess", "value": "many"})
    lab.boxes["p1"].hear({"kind": "guess", "value": "4"})
    lab.boxes["p2"].hear({"kind": "guess", "value": None})
    lab.boxes["p2"].hear({"kind": "guess", "value": 1})
    assert [one["taken"] for one in sent] == [False, True, False, True]
    assert (guess(lab, "p1"), guess(lab, "p2")) == (4, "float")
    assert not lab.boxes["p1"].keys.unanswered
    lab.boxes["p1"].hear({"kind": "typed", "value": "5"})
    assert guess(lab, "p1") == 4
    assert lab.boxes["p1"].control.value == "5"


def test_a_guess_that_is_just_being_recorded_is_no_unrecorded_one(
    lab: Lab, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the page's word is heard on a subshell's thread while the next cell reveals the result
    box, keep = lab.boxes["p1"], lab.boxes["p1"]._record
    recording, go_on = threading.Event(), threading.Event()

    def slowly(answer: float | str) -> None:
        recording.set()
        assert go_on.wait(30)
        keep(answer)

    monkeypatch.setattr(box, "_record", slowly)
    page = threading.Thread(target=box.hear, args=({"kind": "guess", "value": "4"},))
    page.start()
    assert recording.wait(30)
    threading.Timer(0.2, go_on.set).start()
    lab.reveal("p1", 5)
    page.join(30)
    assert guess(lab, "p1") == 4
    assert UNRECORDED not in repr(shown[-1])


def test_a_settled_box_hears_nothing(lab: Lab, shown: list[Any]) -> None:
    lab.guess("p1", 4)
    lab.reveal("p1", 5)
    lab.boxes["p1"].hear({"kind": "guess", "value": "5"})
    assert guess(lab, "p1") == 4
