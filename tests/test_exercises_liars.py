"""Checkers of lab 14: wrong answers get a reason, right ones pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mspeckv_study.verification.degeneration import repeated
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.course.exercises import lab14


def verdict(name: str, answer: Any) -> Verdict:
    return judge(find_exercises("14_catch_the_liar")[name], answer)


def test_every_exercise_has_two_hints() -> None:
    assert all(one.hint and one.step for one in lab14.EXERCISES.values())


def test_the_bet() -> None:
    assert verdict("e1", lab14.wealth).passed
    wrong = verdict("e1", lambda p, f, tokens: math.prod(p[t] / f[t] for t in tokens))
    assert "is right" in wrong.message
    assert "no answer yet" in verdict("e1", lambda p, f, tokens: ...).message


def test_the_planted_fault() -> None:
    def redraws(p: Any, q: Any) -> Any:
        kept = np.minimum(p, q)
        return kept + (1 - kept.sum()) * p

    assert verdict("e2", redraws).passed
    assert "that is p" in verdict("e2", lambda p, q: p).message
    assert "it made" in verdict("e2", lambda p, q: q).message
    assert "chances are asked for" in verdict("e2", lambda p, q: p[:1]).message
    assert "a function" in verdict("e2", 5).message


def test_how_many_tokens() -> None:
    assert verdict("e3", lab14.tokens_needed).passed
    assert not verdict("e3", lambda p, f, alpha: 1 / alpha).passed


def test_repetition() -> None:
    assert verdict("e4", repeated).passed
    assert not verdict("e4", lambda text: len(set(text)) / len(text)).passed


def test_the_liars() -> None:
    assert verdict("e5", lab14.WRONG).passed
    one = dict(list(lab14.WRONG.items())[:1])
    assert verdict("e5", one).message == "1 found; one more is wrong"
    assert "is honest" in verdict("e5", {**lab14.WRONG, "Ash": lab14.HOW[0]}).message
    swapped = dict(zip(lab14.WRONG, reversed(lab14.WRONG.values()), strict=True))
    assert "in another way" in verdict("e5", swapped).message
    assert "is none of" in verdict("e5", {"Oak": lab14.HOW[0]}).message
    assert "is none of" in verdict("e5", {"Ash": "lies"}).message
    assert "name: how" in verdict("e5", 3).message
