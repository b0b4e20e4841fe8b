"""Result files: written, signed, read back, and merged into a class's table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mspeckv_study.cli import main
from mspeckv_widgets.course import Lab, Verdict, submit
from mspeckv_widgets.course import lab as course_lab
from mspeckv_widgets.course.exercise import Score
from mspeckv_widgets.course.leaderboard import FILE_NAME as LEADERBOARD
from mspeckv_widgets.course.progress import FILE_NAME
from mspeckv_widgets.course.teaching import merge as merging
from mspeckv_widgets.course.teaching.merge import Merged, merge
from mspeckv_widgets.course.teaching.recompute import Again, answer_all, judge_anew
from mspeckv_widgets.course.teaching.result import (
    KEY_VARIABLE,
    read_result,
    write_result,
)

LAB = "00_start_here"
KEY = b"what the teacher said"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(course_lab, "_show", lambda thing: None)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_bytes(KEY + b"\n")
    return path


def worked(folder: Path, guess: float = 40.0) -> Path:
    """A student's folder: one guess, one exercise solved, one tried."""
    folder.mkdir()
    lab = Lab(LAB, folder)
    lab.predict("p1", "How many?", unit="KB")
    lab.guess("p1", guess)
    names = list(lab.exercises)
    lab.check(names[1], 3)
    lab._helped(names[1], 2)
    with lab._file.change(LAB) as record:
        record.exercises.setdefault(names[0], type(record.exercises[names[1]])()).passed = True
    return folder


def handed_in(folder: Path, student: str, key: Path | None) -> Path:
    path, signed = write_result(student, folder, folder / "result.json", key)
    assert signed == (key is not None)
    return path


def edited(path: Path, **changes: Any) -> None:
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, **changes}))


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_a_signature_holds_until_something_changes(tmp_path: Path, key: Path) -> None:
    path = handed_in(worked(tmp_path / "ada"), "Ada", key)
    assert read_result(path, KEY).signature == "good"
    assert read_result(path, b"another key").signature == "bad"
    assert read_result(path, None).signature == "not checked"
    # written anew with other spaces and another order, it is still the same
    body = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(body.items()))))
    assert read_result(path, KEY).signature == "good"
    fewer = json.loads(path.read_text())
    for one in fewer["progress"][LAB]["exercises"].values():
        one["hints"] = 0
    (tmp_path / "fewer.json").write_text(json.dumps(fewer))
    assert read_result(tmp_path / "fewer.json", KEY).signature == "bad", "hints are signed too"
    for part in ("student", "progress", "leaderboard", "made", "versions"):
        copy = tmp_path / f"{part}.json"
        other = {"student": "Bob", "progress": {}, "leaderboard": [{}]}.get(part, "x")
        copy.write_text(json.dumps({**body, part: other}))
        assert read_result(copy, KEY).signature == "bad", part
    edited(path, signature=None)
    assert read_result(path, KEY).signature == "unsigned"


def test_the_environment_may_hold_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    path, signed = write_result("Ada", worked(tmp_path / "ada"), tmp_path / "r.json", None)
    assert signed
    assert read_result(path, KEY).signature == "good"


def test_a_notebook_submits_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(worked(tmp_path / "ada"))
    path = submit("Ada Lovelace")
    assert path.name == "mspeckv-result-Ada_Lovelace.json"
    assert "Not signed" in capsys.readouterr().out
    found = read_result(path, None)
    assert found.student == "Ada Lovelace"
    assert found.labs[LAB]["predictions"]["p1"]["guess"] == 40.0
    assert {one["hints"] for one in found.labs[LAB]["exercises"].values()} == {0, 2}


def test_a_class_becomes_a_table(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ada = handed_in(worked(tmp_path / "ada"), "Ada", key)
    bob = handed_in(worked(tmp_path / "bob"), "=Bob", key)
    forged = handed_in(worked(tmp_path / "eve"), "Eve", key)
    edited(forged, made="2030-01-01T00:00:00+00:00")
    unsigned = handed_in(worked(tmp_path / "kim"), "Kim", None)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    table = tmp_path / "table.csv"
    files = [str(path) for path in (ada, bob, forged, unsigned, broken)]
    assert main(["course", "merge", *files, "--out", str(table), "--key", str(key)]) == 1
    said = capsys.readouterr().err
    assert f"{forged}: Eve: the signature is bad" in said
    assert f"{unsigned}: Kim: not signed" in said
    assert "broken.json" in said
    assert "Ada" not in said
    rows = rows_of(table)
    # no spreadsheet takes a name for a formula
    assert sorted(rows) == ["'=Bob", "Ada", "Eve", "Kim"]
    exercises = list(Lab(LAB, tmp_path / "new").exercises)
    assert rows["Ada"]["solved"] == "1"
    assert rows["Ada"]["guessed"] == "1"
    assert rows["Ada"]["hints"] == "2"
    assert [rows["Ada"][f"00 {name}"] for name in exercises[:3]] == ["1", "0", ""]
    assert {name: row["signature"] for name, row in rows.items()} == {
        "Ada": "good", "'=Bob": "good", "Eve": "bad", "Kim": "unsigned",
    }  # fmt: skip


def test_of_two_files_the_later_counts(tmp_path: Path, key: Path) -> None:
    first = handed_in(worked(tmp_path / "one"), "Ada", key)
    second = handed_in(worked(tmp_path / "two"), "Ada", key)
    edited(first, made="2020-01-01T00:00:00+00:00", progress={})
    merged = merge([second, first], tmp_path / "table.csv", key)
    assert merged.students == 1
    assert rows_of(merged.table)["Ada"]["solved"] == "1"
    assert any("two files" in line for line in merged.complaints)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.write_text(" ")
    for words, told in (
        (["result", "--folder", str(tmp_path)], ".mspeckv-progress.json"),
        (["result", "--folder", str(worked(tmp_path / "a")), "--key", str(empty)], "not empty"),
        (["merge", "x.json", "--out", str(tmp_path / "t.csv"), "--key", "none"], "key: 'none'"),
    ):
        assert main(["course", *words]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    "body",
    [[], {}, {"format": "mspeckv-result", "version": 1}, {"format": "mspeckv-result", "version": 1,
      "student": "A", "made": "", "progress": {LAB: 3}, "leaderboard": []},
     {"format": "mspeckv-result", "version": 1, "student": "A", "made": "", "leaderboard": [],
      "progress": {LAB: {"predictions": {"p": 1}, "exercises": {}}}},
     {"format": "mspeckv-result", "version": 1, "student": "A", "made": "", "leaderboard": [],
      "progress": {LAB: {"predictions": {},
                         "exercises": {"e": {"passed": True, "hints": float("inf")}}}}}],
)  # fmt: skip
def test_a_damaged_file_is_left_out_and_named(body: Any, tmp_path: Path) -> None:
    path, table = tmp_path / "r.json", tmp_path / "t.csv"
    path.write_text(json.dumps(body))
    table.write_text("last week's")
    merged = merge([path], table)
    assert merged.students == 0
    assert table.read_text() == "last week's"
    assert "not written" in merged.describe()
    assert len(merged.complaints) == 1
    assert "r.json" in merged.complaints[0]


def test_an_odd_name_or_signature_breaks_no_merge(tmp_path: Path) -> None:
    path, key = tmp_path / "r.json", tmp_path / "key"
    key.write_text("secret")
    body = {"format": "mspeckv-result", "version": 1, "student": "\ud800", "made": "",
            "progress": {}, "leaderboard": [], "signature": "\u00e9"}  # fmt: skip
    path.write_text(json.dumps(body))
    merged = merge([path], tmp_path / "t.csv", key)
    assert merged.students == 1
    assert list(rows_of(merged.table)) == ["?"]
    assert "the signature is bad" in merged.complaints[0]


def test_deep_data_and_a_damaged_leaderboard_are_refused(tmp_path: Path) -> None:
    home = worked(tmp_path / "home")
    for name, text in ((FILE_NAME, "[" * 200_000), (LEADERBOARD, '{"entries": 5}')):
        whole = (home / name).read_text() if (home / name).exists() else None
        (home / name).write_text(text)
        with pytest.raises(ValueError, match=f"file: .*{name}.* is not allowed; it is damaged"):
            write_result("A", home, tmp_path / "out.json", None)
        if whole is not None:
            (home / name).write_text(whole)


def entry(answer: str, value: float, **changes: Any) -> dict[str, Any]:
    """An entry as the leaderboard's file has it; its source tells what it is really worth."""
    return {
        "lab": LAB, "exercise": "e1", "student": "me", "value": value, "unit": "KB",
        "kind": "counted", "less_is_better": True, "source": answer, "date": "", **changes,
    }  # fmt: skip


def with_board(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / LEADERBOARD).write_text(json.dumps({"version": 1, "entries": entries}))
    return folder


def test_of_a_shared_leaderboard_only_ones_own_entries_go_along(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with_board(shared, entry("", 1.0, student="ada"), entry("", 2.0, student="bob"))
    monkeypatch.setenv("MSPECKV_LEADERBOARD", str(shared))
    monkeypatch.setenv("MSPECKV_STUDENT", "ada")
    path = handed_in(worked(tmp_path / "ada"), "Ada Lovelace", key)
    assert [one["value"] for one in read_result(path, KEY).leaderboard] == [1.0]


def board_of(merged: Merged) -> dict[str, dict[str, str]]:
    assert merged.board is not None
    return rows_of(merged.board)


def test_scores_are_judged_anew(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that claims too much is named, and the table has what the answer is worth."""
    files = []
    for student, answer, claimed in (("Ada", "7", 7.0), ("Bob", "9", 1.0), ("Eve", "-", 0.5)):
        folder = with_board(worked(tmp_path / student), entry(answer, claimed))
        files.append(handed_in(folder, student, key))
    believed = merge(files, tmp_path / "a.csv", key)
    assert list(board_of(believed)) == ["Eve", "Bob", "Ada"]
    assert believed.complaints == ()

    def worth(one: dict[str, Any]) -> Again:
        if one["source"] == "-":
            return Again(None, "it does not hold")
        parts = {part: one[part] for part in ("unit", "kind", "less_is_better")}
        return Again({"value": float(one["source"]), **parts})

    monkeypatch.setattr(merging, "judge_anew", lambda entries: [worth(one) for one in entries])
    judged = merge(files, tmp_path / "b.csv", key, recompute=True)
    assert {name: row["score"] for name, row in board_of(judged).items()} == {
        "Ada": "7.0", "Bob": "9.0",
    }  # fmt: skip
    assert [line.split(":")[0] for line in judged.complaints] == ["Bob", "Eve"]
    assert "claimed 1.0; judged anew it is 9.0" in judged.complaints[0]
    assert "does not hold" in judged.complaints[1]


def test_each_answer_is_a_line_whatever_it_does() -> None:
    def judge(one: dict[str, Any]) -> Verdict:
        if one["value"] < 0:
            raise ZeroDivisionError("no")
        return Verdict(one["value"] > 1, "told", Score(one["value"], "KB", "counted"))

    out = io.StringIO()
    answer_all([entry("", value) for value in (2.0, 0.5, -1.0)], judge, out)
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["score"] and one["score"]["value"] for one in said] == [2.0, None, None]
    assert said[2]["message"] == "ZeroDivisionError: no"


def test_an_answer_is_judged_by_the_labs_own_check_in_another_process() -> None:
    pytest.importorskip("mspeckv_widgets.course.leaderboard")
    forged = 'import os\nprint(\'{"score": {"value": 0}}\')\n'
    ends = "import os\nos._exit(3)\n"
    wrong = "def kv_bytes(*shape):\n    return 0\nanswer = kv_bytes\n"
    found = judge_anew([entry(source, 1.0) for source in (wrong, forged + wrong, ends, wrong)])
    assert [one.score for one in found] == [None] * 4
    assert "code 3" in found[2].message
    # what came after the end of the process is not believed either
    assert "code 3" in found[3].message
    assert "code 3" not in found[1].message
    slow = judge_anew([entry("while True: pass", 1.0)], seconds=20)
    assert "more than 20 s" in slow[0].message
