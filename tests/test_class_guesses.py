"""A class's guesses: every student's file is read, drawn without names, and none is fatal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mspeckv_widgets.course import ClassGuesses
from mspeckv_widgets.course.class_guesses import read_class
from mspeckv_widgets.course.guess_chart import bins_of
from mspeckv_widgets.course.progress import FILE_NAME, PredictionRecord, ProgressFile

LAB = "00_start_here"
GUESSES = {"ada": 10.0, "ben": 46.0, "eve": 20_000.0, "kim": 2000.0}


def write(folder: Path, **predictions: PredictionRecord) -> None:
    with ProgressFile(folder, pytest.fail).change(LAB) as lab:
        lab.predictions.update(predictions)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Four students with a file each, at depths a hub has them."""
    for place, (name, guess) in enumerate(GUESSES.items()):
        folder = tmp_path / name / ("labs" if place % 2 else ".mspeckv")
        result = 46.08 if name in {"ada", "ben"} else None
        choice = "int8" if place else "float"
        write(
            folder,
            p1=PredictionRecord("How much?", "KB", guess, result),
            p2=PredictionRecord("Which?", "", choice, "int8" if place else None),
        )
    return tmp_path


def figures(shown: ClassGuesses) -> list[Any]:
    return [one for one in shown._charts.children if hasattr(one, "to_plotly_json")]


def words(shown: ClassGuesses) -> str:
    parts = [shown._status, *shown._charts.children]
    return "\n".join(str(one.value) for one in parts if hasattr(one, "value"))


def test_every_file_is_read_and_drawn_without_names(room: Path) -> None:
    shown = ClassGuesses(room, LAB)
    assert shown.answers.students == ("ada", "ben", "eve", "kim")
    numbers, choices = figures(shown)
    assert sum(numbers.data[0].y) == 4
    assert numbers.layout.xaxis.type == "log"
    assert numbers.layout.xaxis.title.text == "guess (KB)"
    assert numbers.layout.shapes[0].x0 == pytest.approx(46.08)
    assert numbers.layout.annotations[0].x == pytest.approx(np.log10(46.08))
    assert dict(zip(choices.data[0].x, choices.data[0].y, strict=True)) == {
        "float": 1, "int8 (result)": 3,
    }  # fmt: skip
    told = words(shown)
    assert "guesses of 4 students" in told
    assert "4 guesses from 10 KB to 20,000 KB, half of them up to 1,023 KB" in told
    assert "The result: 46.08 KB" in told
    assert "4 guesses: int8 3, float 1" in told
    assert not [name for name in GUESSES if name in told + repr(shown)]


def test_names_are_shown_when_asked_for(room: Path) -> None:
    told = words(ClassGuesses(room, LAB, names=True))
    assert all(f"<td>{name}</td>" in told for name in GUESSES)


def test_the_button_reads_again(room: Path) -> None:
    shown = ClassGuesses(room, LAB)
    write(room / "zoe", p1=PredictionRecord("How much?", "KB", 50.0))
    assert len(shown.answers.students) == 4
    next(one for one in shown.panel.children if hasattr(one, "click")).click()
    assert shown.answers.students[-1] == "zoe"
    assert sum(figures(shown)[0].data[0].y) == 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labs": {"00_start_here": {}}}', "\x00\xff"])
def test_a_damaged_file_is_named_and_not_fatal(room: Path, text: str) -> None:
    path = room / "bad" / FILE_NAME
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    shown = ClassGuesses(room, LAB)
    assert shown.answers.students == ("ada", "ben", "eve", "kim")
    assert "Could not be read: bad (the file is damaged)" in words(shown)
    assert path.read_text(encoding="latin-1") == text, "a teacher's look changes nothing"


def test_a_folder_without_rights_is_named(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look: Any = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "ada":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refusing)
    answers = read_class(room, LAB)
    assert answers.students == ("ben", "eve", "kim")
    assert answers.unreadable == ("ada (Permission denied)",)


def test_a_student_who_has_not_begun_is_no_fault(room: Path) -> None:
    (room / "new").mkdir()
    write(room / "other_lab")
    answers = read_class(room, LAB)
    assert answers.unreadable == ()
    assert "new" not in answers.students


def test_of_several_files_the_newest_counts(room: Path) -> None:
    write(room / "ada" / "copy", p1=PredictionRecord("How much?", "KB", 99.0))
    later = (room / "ada" / "copy" / FILE_NAME).stat().st_mtime + 5
    os.utime(room / "ada" / "copy" / FILE_NAME, (later, later))
    assert read_class(room, LAB).asked["p1"].guesses["ada"] == 99.0


def test_a_guess_after_the_result_is_left_out(room: Path) -> None:
    write(room / "kim" / "labs", p1=PredictionRecord("How much?", "KB", 46.0, 46.08, late=True))
    shown = ClassGuesses(room, LAB)
    assert sum(figures(shown)[0].data[0].y) == 3
    assert "1 more came after the result" in words(shown)


def test_a_median_result_is_called_so(room: Path) -> None:
    write(room / "ben" / "labs", p1=PredictionRecord("How much?", "KB", 46.0, 48.08))
    assert "The median result: 47.08 KB" in words(ClassGuesses(room, LAB))


@pytest.mark.parametrize(
    ("numbers", "log"),
    [([1, 2, 3], False), ([1, 30], True), ([-5, 40], False), ([0, 100], False), ([7], False)],
)
def test_bins_hold_every_guess(numbers: list[float], log: bool) -> None:
    bins = bins_of(numbers)
    assert sum(bins.counts) == len(numbers)
    assert bins.log is log
    assert len(bins.edges) == len(bins.counts) + 1
    steps = np.diff(np.log(bins.edges) if log else bins.edges)
    assert steps == pytest.approx(steps[0])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: .* name the folder with the students' folders"):
        ClassGuesses(tmp_path / "none", LAB)
