"""Judgements that several checkers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mspeckv import RunSummary
from mspeckv_widgets.course import trial
from mspeckv_widgets.course.exercise import StillOpen, Verdict
from mspeckv_widgets.course.trial import Attempt, call_text, returned_at, short

__all__ = ["as_number", "call", "is_run", "near", "same_function", "short", "starts_with", "tried"]


def near(found: Any, right: float, share: float, why: str) -> Verdict:
    """Whether a number is within ``share`` of the right one; the wrong side is told, not the value.

    Args:
        why: one line for the right answer.
    """
    number = as_number(found)
    if number is None:
        return Verdict(False, f"a number is asked for, this is {short(found)}")
    if math.isclose(number, right, rel_tol=share, abs_tol=1e-12):
        return Verdict(True, why)
    side = "too large" if number > right else "too small"
    factor = number / right if right else math.inf
    known = factor if factor >= 1 else 1 / factor if factor > 0 else math.inf
    far = f", by a factor of about {known:.2g}" if math.isfinite(known) else ""
    return Verdict(False, f"{number:.6g} is {side}{far}")


def same_function(
    found: Any,
    right: Callable[..., float],
    cases: Sequence[tuple[Any, ...]],
    why: str,
    share: float = 1e-6,
) -> Verdict:
    """Whether a function gives what ``right`` gives for every case."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for case in cases:
        gave, wanted = call(found, *case), right(*case)
        number = as_number(gave)
        if number is None:
            told = f"it returned {short(gave)} instead of a number"
            return Verdict(False, told, attempt=tried(found, case, short(gave), f"{wanted:.6g}"))
        if not math.isclose(number, wanted, rel_tol=share, abs_tol=1e-9):
            told = f"it returned {number:.6g}; {wanted:.6g} is right"
            seen = tried(found, case, f"{number:.6g}", f"{wanted:.6g}")
            return Verdict(False, told, attempt=seen)
    return Verdict(True, why)


def tried(found: Any, case: Sequence[Any], got: str, wanted: str = "") -> Attempt:
    """What a failing check shows: the call, both values, and the line that returned.

    Args:
        case: the arguments tried.
    """
    return Attempt(call_text(found, case), got, wanted, returned_at(found, case))


def call(found: Callable[..., Any], *arguments: Any) -> Any:
    """What a learner's function returns; it gets copies of arrays, tensors, lists and the like.

    Raises:
        StillOpen: it returns the placeholder; `judge` says that there is no answer yet.
    """
    gave = trial.call(found, *arguments)
    if gave is ...:
        raise StillOpen
    return gave


def is_run(found: Any) -> Verdict | None:
    """A complaint where a run's summary is asked for and something else came."""
    if isinstance(found, RunSummary):
        return None
    return Verdict(False, f"what generate(...) returned is asked for, this is {short(found)}")


def starts_with(answer: Any, parts: int, kind: type) -> bool:
    """Whether an answer has so many parts, the first of a kind: what the others are about."""
    return isinstance(answer, tuple) and len(answer) == parts and isinstance(answer[0], kind)


def as_number(found: Any) -> float | None:
    """A plain float of whatever kind of number was given; None where it is none."""
    if isinstance(found, (bool, str)):
        return None
    try:
        return float(found)
    except (TypeError, ValueError):
        return None
