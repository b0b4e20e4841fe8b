"""Labs 08 to 11 judge answers by the loaded rows: right ones pass, near misses do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mspeckv_widgets.course.exercise import find_exercises, judge
from tests.experiment_rows import a1, a2, b1, b2, write

LABS = ("08_A1_context", "09_A2_resident", "10_B1_on_chip", "11_B2_output_length")


def mean_ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    return sum(ours[seed] / theirs[seed] for seed in ours) / len(ours)


def ratio_of_means(ours: dict[int, float], theirs: dict[int, float]) -> float:
    return sum(ours.values()) / sum(theirs.values())


def lru(packed: int, places: int, passes: int) -> float:
    """By reuse distance: a cyclic scan finds everything after its first pass, or nothing."""
    return (passes - 1) / passes if 0 < packed <= places else 0.0


ANSWERS: list[tuple[str, str, Any, Any]] = [
    ("08", "e1", mean_ratio, ratio_of_means),
    # 125, 250, 400 and 500 ms by seeds' mean: the line through them at 3072
    ("08", "e2", 765.0, 500.0),
    # 30 over 28 tokens/s
    ("08", "e3", 30 / 28, 28 / 30),
    ("08", "e4", [512, 1024, 1536], [512, 1024, 1536, 2048]),
    # 9, 10 and 11 over 10
    ("09", "e1", 1.0, 1.05),
    ("09", "e2", lambda n, a, b: 1 - (a + b) / n, lambda n, a, b: (a + b) / n),
    # 11 over 10
    ("09", "e3", 1.1, 1.0),
    ("09", "e4", 4.0, 3.0),
    ("10", "e1", (12, 15), (15, 17)),
    ("10", "e2", lru, lambda packed, places, passes: places / packed),
    ("10", "e3", lambda n, r: n - min(n, r), lambda n, r: r),
    # 52 over 45 ms
    ("10", "e4", 52 / 45, 2.25),
    ("11", "e1", lambda tokens, kept: tokens / (1 + kept), lambda tokens, kept: tokens / kept),
    ("11", "e2", 1.0, 2.0),
    # seeds at 0.95, 1 and 1.05 of the mean
    ("11", "e3", dict.fromkeys((16, 32, 48, 64, 96, 128), 0.05), {16: 0.05}),
    # 4 + 128 / 64, less 4 + 16 / 64
    ("11", "e4", 1.75, 2.0),
]


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of results where labs look for one."""
    write(tmp_path / "results", [*a1(), *a2(), *b1(), *b2()])
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("lab", "name", "right", "wrong"), ANSWERS)
def test_answers(lab: str, name: str, right: Any, wrong: Any) -> None:
    stem = next(one for one in LABS if one.startswith(lab))
    exercise = find_exercises(stem)[name]
    verdict = judge(exercise, right)
    assert verdict.passed, verdict.message
    assert verdict.message
    for other in (wrong, "words", ...):
        assert not judge(exercise, other).passed


def test_every_exercise_is_judged_here() -> None:
    asked = {(lab[:2], name) for lab in LABS for name in find_exercises(lab)}
    assert asked == {(lab, name) for lab, name, _, _ in ANSWERS}
