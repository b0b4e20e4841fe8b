"""The profiler: reading shares, overlap and ceilings from the data behind the pictures."""

from __future__ import annotations

from typing import Any

from mspeckv import Profile
from mspeckv.profiling import Ceilings
from mspeckv_widgets.course.answers import near
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.panels.profile_view import overlap_ms

_ROUND = 1


def check_waiting(answer: Any) -> Verdict:
    """Share of the wall time in ``kv/fetch``, from a profile and the learner's number."""
    if not _pair_of(answer, Profile):
        return Verdict(False, "give (streamed, your share)")
    waited = [row for row in answer[0].rows if row.step == "kv/fetch"]
    if not waited:
        return Verdict(False, "this profile holds no wait for the link: use the streamed one")
    right = sum(row.share for row in waited)
    return near(
        answer[1], right, 0.02,
        f"{right:.0%} of the wall time, over {sum(row.calls for row in waited)} waits (measured).",
    )  # fmt: skip


def check_hidden(answer: Any) -> Verdict:
    """Link time of round 1 that no wait was for, from a profile and the learner's number."""
    if not _pair_of(answer, Profile):
        return Verdict(False, "give (mended, your milliseconds)")
    busy, hidden = overlap_ms(answer[0].timeline(_ROUND))
    if not busy:
        return Verdict(False, "nothing crossed the link in this round: use the mended profile")
    return near(answer[1], hidden, 0.02, f"{hidden:.0f} of {busy:.0f} ms were hidden (measured).")


def check_ridge(answer: Any) -> Verdict:
    """Operations per byte at which the two ceilings meet."""
    if not _pair_of(answer, Ceilings):
        return Verdict(False, "give (ceilings, your number)")
    right = answer[0].matrix_gflops / answer[0].memory_gbps
    return near(answer[1], right, 0.02, "left of it memory is the limit, right of it arithmetic.")


def _pair_of(answer: Any, kind: type) -> bool:
    """Whether an answer is what it is about, and a value."""
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], kind)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the share of time spent waiting",
        check_waiting,
        "Waits are the rows whose step is kv/fetch. There may be one for each tier that waits: "
        "add up their share.",
    ),
    "e2": Exercise(
        "how much of the link's time was hidden",
        check_hidden,
        "Add the ms of the bars on the link lane that carry bytes; take away the ms of those "
        "named kv/fetch. Waits are never longer than the transfers that they wait for.",
    ),
    "e3": Exercise(
        "where the ceilings meet",
        check_ridge,
        "At x operations per byte, memory allows memory_gbps * x GFLOP/s. For which x is that as "
        "much as the matrix products reach?",
    ),
}
