"""Labs 08 to 11 judge answers by the loaded rows: right ones pass, near misses do not."""

from __future__ import annotations

from math import ceil, log, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mspeckv_widgets.course.exercise import find_exercises, judge
from tests.experiment_rows import a1, a2, b1, b2, write

LABS = ("08_A1_context", "09_A2_resident", "10_B1_on_chip", "11_B2_output_length")


Times = dict[int, float]


def geometric(theirs: Times, ours: Times) -> float:
    return float(np.prod([theirs[seed] / ours[seed] for seed in ours]) ** (1 / len(ours)))


def mean_ratio(theirs: Times, ours: Times) -> float:
    return sum(theirs[seed] / ours[seed] for seed in ours) / len(ours)


def judged(low: float, high: float, claimed: float, noise: float) -> str:
    if low / noise > claimed:
        return "shown"
    return "contradicted" if high * noise < claimed else "not shown"


def judged_without_noise(low: float, high: float, claimed: float, noise: float) -> str:
    return judged(low, high, claimed, 1.0)


def effects(ms: dict[tuple[str, str], float]) -> tuple[float, float, float]:
    rows = [[ms[guess, stay] for stay in ("streamed", "kept")] for guess in ("plain", "guessing")]
    (a, b), (c, d) = rows
    return a / c, a / b, c * b / (a * d)


def swapped(ms: dict[tuple[str, str], float]) -> tuple[float, float, float]:
    guessing, keeping, both = effects(ms)
    return keeping, guessing, both


def held(count: int, rank: int) -> float:
    return float(1 - 2 * stats.binom.cdf(rank - 1, count, 0.5))


def one_side(count: int, rank: int) -> float:
    return (1 + held(count, rank)) / 2


def interval(values: list[float], confidence: float) -> tuple[float, float] | None:
    """By taking away one value at each end as long as enough is left."""
    ranks = [
        rank for rank in range(1, len(values) // 2 + 1) if held(len(values), rank) >= confidence
    ]
    return (sorted(values)[ranks[-1] - 1], sorted(values)[-ranks[-1]]) if ranks else None


def whole_range(values: list[float], confidence: float) -> tuple[float, float]:
    return min(values), max(values)


def lru(packed: int, places: int, passes: int) -> float:
    """By reuse distance: a cyclic scan finds everything after its first pass, or nothing."""
    return (passes - 1) / passes if 0 < packed <= places else 0.0


A2_GROUPS = [
    [("A2", value, name) for value in (0, 8, 15)] for name in ("triforce",)
] + [
    [("A1", 1024, name), ("A2", 15, name), *more]
    for name, more in (("mspeckv", [("B1", 15, "mspeckv")]), ("plain-int8", []))
]  # fmt: skip
GROUPS = [
    [*A2_GROUPS[0], ("A1", 1024, "triforce"), ("B1", 15, "triforce")],
    *A2_GROUPS[1:],
    [("A1", 1024, "mspeckv-streamed"), ("A2", 0, "mspeckv")],
    [("A1", 512, "mspeckv"), ("B2", 32, "mspeckv")],
    [("A1", 512, "triforce"), ("B2", 32, "triforce")],
]
"""Worked out by hand from what each cell's variant does with each setting."""
BEST = {"on_chip": 0, "resident": 10, "gamma": 11, "draft_gamma": 1}

ANSWERS: list[tuple[str, str, Any, Any]] = [
    ("08", "e1", geometric, mean_ratio),
    # 125, 250, 400 and 500 ms: the line through them at 3072
    ("08", "e2", 765.0, 500.0),
    ("08", "e3", judged, judged_without_noise),
    ("08", "e4", effects, swapped),
    ("09", "e1", held, one_side),
    ("09", "e2", interval, whole_range),
    ("09", "e3", GROUPS, A2_GROUPS),
    # packing 2, keeping 1.1
    ("09", "e4", log(2) / log(2.2), log(1.1) / log(2.2)),
    ("10", "e1", lru, lambda packed, places, passes: places / packed),
    ("10", "e2", lambda n, r: n - min(n, r), lambda n, r: r),
    ("10", "e3", lambda n, c, r: 1 - max(0, n - c - r) / (n - c), lambda n, c, r: r / n),
    ("10", "e4", BEST, BEST | {"resident": 11}),
    ("11", "e1", lambda tokens, kept: tokens / (1 + kept), lambda tokens, kept: tokens / kept),
    ("11", "e2", lambda n, k: n / (n + -n % k), lambda n, k: (n % k or k) / k),
    ("11", "e3", (1.0, 1.0, "not shown"), (1.0, 1.0, "shown")),
    ("11", "e4", lambda c: ceil(log2(2 / (1 - c)) - 1e-9), lambda c: ceil(log2(1 / (1 - c)))),
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


def test_a_ratio_of_totals_is_a_speed_up_too() -> None:
    exercise = find_exercises("08_A1_context")["e1"]
    verdict = judge(exercise, lambda theirs, ours: sum(theirs.values()) / sum(ours.values()))
    assert verdict.passed
    assert "totals" in verdict.message
    wrong = judge(exercise, mean_ratio).message
    assert "1.25, the other way 1.25" in wrong, "the mean of ratios is refuted, not only refused"


def test_a_group_that_lacks_a_cell_is_told_so() -> None:
    exercise = find_exercises("09_A2_resident")["e3"]
    assert "lacks 2 more" in judge(exercise, [GROUPS[0][:3], *GROUPS[1:]]).message
    assert "1 groups are missing" in judge(exercise, GROUPS[1:]).message
    mixed = [*GROUPS, [("B1", 4, "mspeckv"), ("B1", 8, "mspeckv")]]
    assert "not all told the same" in judge(exercise, mixed).message
    assert judge(exercise, [set(group) for group in GROUPS]).passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resident": 11}, "5.02 GB of KV on the device"),
        ({"gamma": 8}, "MB over the link per token, 400 are allowed"),
        ({"gamma": 16, "draft_gamma": 4}, "it goes in fewer"),
    ],
)
def test_places_keep_both_budgets_and_are_scored(change: dict[str, int], words: str) -> None:
    exercise = find_exercises("10_B1_on_chip")["e4"]
    assert words in judge(exercise, BEST | change).message
    best = judge(exercise, BEST)
    assert best.score is not None
    assert (best.score.kind, best.score.less_is_better) == ("modelled", True)
    assert best.message.startswith("0.0% more than the best")
    worse = judge(exercise, BEST | {"gamma": 13})
    assert worse.score is not None
    assert worse.score.value > best.score.value
