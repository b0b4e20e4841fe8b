"""Plan your GPU: what fits, what quality costs, what no other setting beats, and what paid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mspeckv import plan, what_if
from mspeckv.whatif import MODELS
from mspeckv.whatif.search import DevicePlan
from mspeckv_widgets.course.answers import as_number, call, near, short
from mspeckv_widgets.course.exercise import Exercise, Verdict

MODEL, MACHINE = "llama-2-7b", "h100"
ASKED: dict[str, Any] = {"prefill": 32768, "gpu_gb": 24, "link_gbps": 11.3}
"""The lab's card: 24 GB of an H100, behind the slower link of the published machine."""
STRICT = 0.99
Point = tuple[float, float]


@cache
def planned(min_acceptance: float = 0.9) -> DevicePlan:
    """The lab's plan."""
    return plan(MODEL, MACHINE, min_acceptance=min_acceptance, **ASKED)


@cache
def most_on_chip() -> int:
    """Layers that plain decoding can keep on the lab's card."""
    counts = np.arange(MODELS[MODEL].layers + 1)
    found = what_if(
        MODEL, MACHINE, method="autoregressive", draft=None, prefill=ASKED["prefill"],
        on_chip=counts, control=False,
    )  # fmt: skip
    return int(counts[found.device_bytes <= ASKED["gpu_gb"] * 1e9].max())


def check_fit(answer: Any) -> Verdict:
    """How many layers fit on-chip as floats."""
    share = most_on_chip() / MODELS[MODEL].layers
    return near(answer, most_on_chip(), 0.0, f"{share:.0%} of the layers; the others must stream.")


def check_price(answer: Any) -> Verdict:
    """Time under the strict bound over time under the usual one."""
    right = planned(STRICT).choice.ms_per_token / planned().choice.ms_per_token
    number = as_number(answer)
    if number is not None and abs(number * right - 1) < 0.02:
        return Verdict(
            False, "the other way round: how many times as long does the strict one take?"
        )
    return near(answer, right, 0.02, "a width more is a setting that has to stream.")


def front(settings: Sequence[Point]) -> list[Point]:
    """Points that no other beats in one number without losing in the other."""
    best: list[Point] = []
    for size, ms in sorted(set(settings)):
        if not best or ms < best[-1][1]:
            best.append((size, ms))
    return best


def check_front(found: Any) -> Verdict:
    """A function: those of (bytes, ms) that are on the front."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    rng = np.random.default_rng(7)
    cases = [
        [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0)],
        [(2.0, 3.0), (1.0, 3.0)],
        [(1.0, 3.0), (1.0, 2.0)],
        [(float(a), float(b)) for a, b in rng.integers(0, 30, (40, 2))],
    ]
    for case in cases:
        gave, right = call(found, list(case)), front(case)
        try:
            points = {(float(size), float(ms)) for size, ms in gave}
        except (TypeError, ValueError):
            return Verdict(False, f"pairs (bytes, ms) are asked for, it returned {short(gave)}")
        for point in sorted(points - set(right)):
            return Verdict(False, f"of {short(case)}, {point} is beaten by another")
        for point in sorted(set(right) - points):
            return Verdict(False, f"of {short(case)}, nothing beats {point}, which is missing")
    return Verdict(True, "more memory only for more speed.")


def check_owed(answer: Any) -> Verdict:
    """What width and placement alone gained over plain decoding in the same memory."""
    found = planned()
    control = found.choice.prediction.equal_memory
    assert control is not None
    right = control.ms_per_token / found.best["autoregressive"].ms_per_token
    whole = control.ms_per_token / found.choice.ms_per_token
    number = as_number(answer)
    if number is not None and abs(number / whole - 1) < 0.02:
        return Verdict(False, "that is the whole gain, guesses included")
    return near(answer, right, 0.02, f"of {whole:.0f} times in all; guessing did the rest.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "what fits as floats",
        check_fit,
        "what_if takes an array for on_chip: device_bytes is then an array as well. Count how far "
        "it stays under 24e9; draft=None leaves the draft's weights out.",
    ),
    "e2": Exercise(
        "the price of quality",
        check_price,
        "Call plan again with min_acceptance=0.99 and divide the two choices' ms_per_token.",
    ),
    "e3": Exercise(
        "the front",
        check_front,
        "Sort by bytes, then by time. Going through them, keep a setting if it is faster than "
        "every one before it.",
    ),
    "e4": Exercise(
        "what paid",
        check_owed,
        "The choice's prediction has equal_memory: plain decoding, as floats, in the same bytes. "
        'Compare its time with that of best["autoregressive"], which guesses nothing either.',
    ),
}
