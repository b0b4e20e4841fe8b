"""The tiers: what each one sees of the prompt, and who knows the needle."""

from __future__ import annotations

from typing import Any

import torch

from mspeckv import AttentionProbe, RetrievalReport, Speculation
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache
from mspeckv_widgets.course.answers import as_number, near, short
from mspeckv_widgets.course.exercise import Exercise, Verdict, is_open
from mspeckv_widgets.replay import Replay

MASS = 0.9
"""Share of the attention that exercise 4 wants captured."""
_STEP = 8


def check_sees(found: Any) -> Verdict:
    """A function says which positions tier 0's cache holds."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    if is_open(found(0, 40, 4, 12)):
        return Verdict(False, "there is no answer yet: replace the ... and run the cell again")
    for length, sinks, window in ((40, 4, 12), (40, 0, 8), (10, 4, 12)):
        shape = KVShape(1, 1, 8, torch.float32)
        cache = StreamingCache(shape, sinks, window, 1, torch.device("cpu"))
        visible = set(cache.visible(list(range(length))))
        for position in range(length):
            if bool(found(position, length, sinks, window)) != (position in visible):
                sees = "sees" if position in visible else "does not see"
                where = f"position {position} of {length}, {sinks} sinks, window {window}"
                return Verdict(False, f"{where}: tier 0 {sees} it")
    return Verdict(True, "the first tokens and the latest, and nothing between them.")


def check_heads(answer: Any) -> Verdict:
    """Heads that keep some of a span, from a report, the span and the learner's number."""
    if not _starts_with(answer, 3, RetrievalReport):
        return Verdict(False, "give (report, (start, stop), your number)")
    report, span, number = answer
    share = report.seen(*span)
    why = f"of {share.size}; {int((share == 1).sum())} keep all of it."
    return near(number, int((share > 0).sum()), 0.0, why)


def check_token(answer: Any) -> Verdict:
    """A token that tier 0 got wrong and tier 1 got right, from a run's events and its number."""
    if not isinstance(answer, tuple) or len(answer) != 2 or as_number(answer[1]) is None:
        return Verdict(False, "give (events, the token's number)")
    events, number = answer
    steps = Replay.of(events).steps
    if not 1 <= number <= len(steps):
        return Verdict(False, f"tokens are numbered from 1 to {len(steps)}")
    step = steps[int(number) - 1]
    if not any(word.fate == "rejected" and word.judge == 1 for word in step.words):
        return Verdict(False, f"at token {number} tier 1 rejected nothing that tier 0 guessed")
    if step.settled_by != 1:
        return Verdict(
            False, f"token {number} was settled by tier {step.settled_by}, not by tier 1"
        )
    return Verdict(True, "tier 0 guessed wrong, tier 1 put it right, and tier 2 agreed.")


def check_budget(answer: Any) -> Verdict:
    """The smallest budget with enough attention captured, from a probe and the learner's number."""
    if not _starts_with(answer, 2, AttentionProbe):
        return Verdict(False, "give (probe, your budget)")
    probe, budget = answer
    if as_number(budget) is None or int(budget) % _STEP:
        return Verdict(False, f"a multiple of {_STEP} tokens is asked for, this is {short(budget)}")
    here, less = (_captured(probe, int(budget) - by) for by in (0, _STEP))
    if here is None:
        return Verdict(False, "such a budget is refused: it has no room for recent and two chunks")
    told = f"{budget} tokens capture {here:.1%} on average (measured)"
    if here < MASS:
        return Verdict(False, f"{told}, which is less than {MASS:.0%}")
    if less is not None and less >= MASS:
        return Verdict(False, f"{told}, but {int(budget) - _STEP} do as well")
    return Verdict(True, f"{told}, of a prompt of {len(probe.tokens)}.")


def _captured(probe: AttentionProbe, budget: int) -> float | None:
    """Mean mass that a budget captures; None where it is refused."""
    try:
        return float(probe.report(Speculation(budget=budget)).captured.mean())
    except ValueError:
        return None


def _starts_with(answer: Any, parts: int, kind: type) -> bool:
    """Whether an answer is what it is about, and what was found."""
    return isinstance(answer, tuple) and len(answer) == parts and isinstance(answer[0], kind)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "what tier 0 sees",
        check_sees,
        "The first `sinks` positions, and the last `window` of them. Count positions from 0, so "
        "the last one is length - 1.",
    ),
    "e2": Exercise(
        "heads that keep some of the needle",
        check_heads,
        "report.seen(start, stop) is an array [layers, heads] of shares. Count those that are "
        "not 0.",
    ),
    "e3": Exercise(
        "a token that tier 0 cannot know",
        check_token,
        "Press Step through the story and read what became of each guess: you look for one that "
        "was rejected by tier 1, whose own choice was then kept by tier 2.",
    ),
    "e4": Exercise(
        f"the least budget that captures {MASS:.0%}",
        check_budget,
        "probe.report(Speculation(budget=...)).captured is an array of shares; take its mean. "
        "Try multiples of 8, by a loop or by halving.",
    ),
}
