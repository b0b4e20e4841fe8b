"""What an exercise is, how a lab finds its own, and how an answer is judged."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mspeckv.settings import refuse
from mspeckv_widgets.course.trial import Attempt, TooSlow, failed_attempt, few_prints, limited

_PACKAGE = "mspeckv_widgets.course.exercises"
_LAB_ID = re.compile(r"(\d\d)_\w+")


@dataclass(frozen=True)
class Score:
    """How good an answer that holds is.

    Attributes:
        value: the number.
        unit: what it counts, such as ``KB per token``.
        kind: how it was come by: ``counted``, ``measured``, ``emulated`` or ``modelled``.
        less_is_better: whether the smaller of two is the better one.
    """

    value: float
    unit: str
    kind: str
    less_is_better: bool = False


@dataclass(frozen=True)
class Verdict:
    """A checker's judgement.

    Attributes:
        passed: whether the answer holds.
        message: one line: why it holds, or what is wrong with it.
        score: how good it is, where the exercise has a score and the answer holds.
        attempt: the call that it failed, where the answer is a function.
    """

    passed: bool
    message: str
    score: Score | None = None
    attempt: Attempt | None = None


class StillOpen(Exception):
    """A learner's function returned the placeholder."""


_OPEN = Verdict(False, "there is no answer yet: replace the ... and run the cell again")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab.

    Attributes:
        title: the task in a few words.
        check: judges an answer; what it raises counts as a wrong answer.
        hint: the first hint, a nudge: it points the way without giving the answer.
        step: the second hint: the first step of a solution; empty where the nudge is enough.
        seconds: how long judging an answer may take before it is stopped.
        gives: makes the names that the lab has given to an answer before, such as a pair; with
            them `leaderboard.recompute` runs an answer's source.
    """

    title: str
    check: Callable[[Any], Verdict]
    hint: str
    step: str = ""
    seconds: float = 60.0
    gives: Callable[[], Mapping[str, Any]] | None = None


def find_exercises(lab_id: str) -> dict[str, Exercise]:
    """The exercises of a lab, by the two digits its id begins with.

    Args:
        lab_id: a notebook's stem, such as ``02_quantize``.

    Raises:
        ValueError: not such a stem, or there is no module of exercises for it.
    """
    found = _LAB_ID.fullmatch(lab_id)
    if found is None:
        raise refuse("lab_id", lab_id, "use the notebook's name, such as '00_start_here'")
    name = f"{_PACKAGE}.lab{found[1]}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise refuse("lab_id", lab_id, f"no exercises lab{found[1]} are installed") from None
    exercises: dict[str, Exercise] = module.EXERCISES
    return exercises


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """The verdict on an answer; one that makes the checker stumble, or never returns, is wrong.

    It is stopped after `Exercise.seconds` in the main thread, where a notebook's cells run.
    """
    if is_open(answer):
        return _OPEN
    try:
        with limited(exercise.seconds), few_prints():
            return exercise.check(answer)
    except StillOpen:
        return _OPEN
    except TooSlow as error:
        told = f"this answer was stopped: it took longer than {exercise.seconds:g} seconds"
        return Verdict(
            False, told, attempt=failed_attempt(error, "nothing in time", exercise.check)
        )
    except (Exception, SystemExit) as error:  # a learner's function may raise anything
        raised = f"{type(error).__name__}: {error}"
        attempt = failed_attempt(error, f"the error {raised}", exercise.check)
        return Verdict(False, f"this answer raised {raised}", attempt=attempt)


def is_open(answer: Any) -> bool:
    """Whether an answer, or a part of it, is still the placeholder."""
    if answer is None or answer is ...:
        return True
    if isinstance(answer, Mapping):
        return any(is_open(part) for part in answer.values())
    return isinstance(answer, (tuple, list)) and any(is_open(part) for part in answer)
