"""The build track: functions are blanked, the project's tests see that, and what is put back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mspeckv_widgets
from mspeckv_study.cli import main
from mspeckv_widgets.course.teaching.blanks import (
    BLANKS,
    Blank,
    blanked,
    blanks,
    body_of,
    with_body,
)
from mspeckv_widgets.course.teaching.build import build
from mspeckv_widgets.course.teaching.judge import Judgement, judge

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = {
    # p is drawn from where something is left, too
    "residual": ("(target - proposal).clamp_min_(0)", "(target - proposal).abs_()"),
    # the origin's flaw: after a rejection the token comes from p
    "accept": ("residual(target[place], proposal[place])", "target[place]"),
    # a step for each code, though the largest value needs a code too
    "pack": ("top = 2**width - 1", "top = 2**width"),
    # the oldest tokens in place of the most recent
    "choose": ("slice(plan.prompt - plan.rest, plan.prompt)", "slice(0, plan.rest)"),
    # operations of attention are forgotten
    "cost": (" * tokens + 4 * tokens * seen * wide", " * tokens"),
}
"""For each function something that looks right."""


def original(blank: Blank) -> str:
    return (ROOT / blank.file).read_text(encoding="utf-8")


def put(folder: Path, blank: Blank, body: str) -> None:
    """Write a function's body into a copy, as a student does."""
    path = folder / blank.file
    path.write_text(with_body(path.read_text(encoding="utf-8"), blank.function, body))


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: blank.name)
def test_a_blank_keeps_signature_and_docstring_alone(blank: Blank) -> None:
    source = original(blank)
    hole, body = blanked(source, blank), body_of(source, blank.function)
    raised = f'raise NotImplementedError("write me: {blank.name}")'
    assert body_of(hole, blank.function) == raised
    assert ast.unparse(ast.parse(hole)) != ast.unparse(ast.parse(source))
    # nothing else was touched, and the docstring stays
    assert with_body(hole, blank.function, body) == source
    assert '"""' not in body


def judged(folder: Path, *names: str) -> dict[str, Judgement]:
    return {found.name: found for found in judge(folder, names)}


@pytest.mark.slow
def test_what_is_put_back_passes(tmp_path: Path) -> None:
    copy = build(tmp_path / "copy")
    for blank in BLANKS:
        put(copy, blank, body_of(original(blank), blank.function))
    found = judged(copy)
    assert list(found) == [blank.name for blank in BLANKS]
    assert all(one.holds for one in found.values()), found


@pytest.mark.slow
def test_blanks_fail(tmp_path: Path) -> None:
    for name, hole in judged(build(tmp_path / "copy")).items():
        assert hole.passed < hole.failed, name
        assert "write me" in hole.describe(), name


@pytest.mark.slow
@pytest.mark.parametrize("names", [("residual", "pack", "cost"), ("accept", "choose")])
def test_a_subtle_fault_fails(names: tuple[str, ...], tmp_path: Path) -> None:
    """Those together whose tests need none of the others: each fails by its own fault."""
    copy = build(tmp_path / "copy", names)
    for blank in blanks(names):
        body = body_of(original(blank), blank.function)
        right, wrong = MUTATIONS[blank.name]
        assert body.count(right) == 1
        put(copy, blank, body.replace(right, wrong))
    found = judged(copy)
    assert found.keys() == set(names)
    for name, one in found.items():
        assert not one.holds, name
        assert "assert" in one.describe(), name


def test_a_file_that_is_no_python_is_told(tmp_path: Path) -> None:
    folder = build(tmp_path / "copy", ["cost"])
    path = folder / "study/mspeckv_study/whatif/passes.py"
    path.write_text(path.read_text(encoding="utf-8").replace("raise NotImpl", "raise raise Not"))
    (found,) = judge(folder)
    assert not found.holds
    assert "SyntaxError" in found.describe()


def test_the_copy_names_every_function_and_is_judged_by_pytest_too(tmp_path: Path) -> None:
    folder = build(tmp_path / "copy", ["residual"])
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "residual" in page
    assert "arXiv 2211.17192" in page
    assert "cost" not in page
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "write me: residual" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["course", "build", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mspeckv: folder: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_names_folders_and_words_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [blank.name for blank in blanks(["cost", "residual"])] == ["residual", "cost"]
    for words, told in (
        (["build", str(tmp_path / "new"), "--blank", "draw"], "use one of residual, accept"),
        (["judge", str(tmp_path)], "`mspeckv course build` made"),
        (["teach"], "mspeckv course --help"),
    ):
        assert main(["course", *words]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_the_checkout_it_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mspeckv_widgets, "__file__", str(tmp_path / "a/b/c/__init__.py"))
    with pytest.raises(ValueError, match="checkout is needed"):
        build(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_without_the_labs_libraries_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mspeckv_widgets.course.teaching.command", None)
    assert main(["course", "judge", "here"]) == 2
    assert "pip install 'mspeckv[lab]'" in capsys.readouterr().err
