"""Plan your GPU: what fits, where layers go, what no other setting beats, and what paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mspeckv import plan, what_if
from mspeckv.settings import Width
from mspeckv_study.whatif import MODELS
from mspeckv_study.whatif.search import DevicePlan, Grid
from mspeckv_widgets.course.answers import as_number, call, near, short
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict

MODEL, MACHINE = "llama-2-7b", "h100"
ASKED: dict[str, Any] = {"prefill": 32768, "gpu_gb": 24, "link_gbps": 11.3}
"""The lab's card: 24 GB of an H100, behind the slower link of the published machine."""
BUDGET = 4096
"""Tier 1's, of every setting that exercise 2 judges."""
KNOBS = ("method", "bits", "on_chip", "resident", "gamma", "draft_gamma")
Widths = tuple[Width, ...]
CARDS: tuple[tuple[float, float, Widths], ...] = (
    (24, 11.3, ("full", 8, 4)),
    (24, 11.3, ("full", 8)),
    (32, 25.0, ("full", 8, 4)),
    (40, 55.4, ("full", 8)),
)
"""What exercise 2 is judged on: memory and link in 1e9 bytes, and the widths that are allowed."""
_SLOWER = 0.05
"""By so much a setting may be slower than the planner's."""
Point = tuple[float, float]


@cache
def planned() -> DevicePlan:
    """The lab's plan."""
    return plan(MODEL, MACHINE, min_acceptance=0.9, **ASKED)


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


def check_place(found: Any) -> Verdict:
    """A function places layers on any card about as well as the planner does."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    if "plan" in getattr(getattr(found, "__code__", None), "co_names", ()):
        return Verdict(False, "it asks the planner: search yourself, with what_if")
    took, best = [], []
    for card in CARDS:
        gave = call(found, *card)
        judged = _judged(gave, *card)
        if isinstance(judged, Verdict):
            return judged
        took.append(judged)
        best.append(_best_ms(*card))
        if judged > (1 + _SLOWER) * best[-1]:
            where = _words(*card)
            told = f"{where}: {short(gave)} takes {judged:.1f} ms per token"
            return Verdict(False, f"{told}; {best[-1]:.1f} can be had (modelled)")
    mean, planners = (math.exp(float(np.mean(np.log(times)))) for times in (took, best))
    told = f"{mean:.2f} ms per token, the planner {planners:.2f}"
    return Verdict(
        True,
        f"over {len(CARDS)} cards {told} (modelled, geometric means).",
        Score(round(mean, 3), "ms per token, over four cards", "modelled", less_is_better=True),
    )


def _judged(gave: Any, gpu_gb: float, link_gbps: float, widths: Widths) -> float | Verdict:
    """Time per token of a learner's setting, or what is wrong with it."""
    where = _words(gpu_gb, link_gbps, widths)
    if not isinstance(gave, dict) or not {"method", "bits"} <= gave.keys() <= set(KNOBS):
        return Verdict(False, f"{where}: return a dict of {', '.join(KNOBS)}, not {short(gave)}")
    if gave["bits"] not in widths:
        return Verdict(False, f"{where}: bits {gave['bits']!r} are none of the allowed {widths}")
    predicted = what_if(
        MODEL, MACHINE, prefill=ASKED["prefill"], link_gbps=link_gbps, budget=BUDGET,
        control=False, **gave,
    )  # fmt: skip
    if predicted.device_bytes > gpu_gb * 1e9:
        size = float(predicted.device_bytes) / 1e9
        return Verdict(False, f"{where}: {short(gave)} takes {size:.2f} GB (modelled)")
    return float(predicted.ms_per_token)


@cache
def _best_ms(gpu_gb: float, link_gbps: float, widths: Widths) -> float:
    """The planner's."""
    found = plan(
        MODEL, MACHINE, prefill=ASKED["prefill"], gpu_gb=gpu_gb, link_gbps=link_gbps,
        min_acceptance=0.0, grid=Grid(bits=widths),
    )  # fmt: skip
    return found.choice.ms_per_token


def _words(gpu_gb: float, link_gbps: float, widths: Widths) -> str:
    return f"{gpu_gb:g} GB, a link of {link_gbps:g} GB/s, widths {', '.join(map(str, widths))}"


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
        "The cache is one of several things that must fit, so ask for device_bytes. How does it "
        "grow with on_chip?",
        "what_if takes an array for on_chip, of 0 to 32; device_bytes is then an array as well.",
    ),
    "e2": Exercise(
        "place the layers",
        check_place,
        "what_if takes arrays for on_chip, resident, gamma and draft_gamma: one call predicts "
        "thousands of settings. What does not fit must not be chosen, however fast it is.",
        "Make arrays of all (on_chip, resident, gamma, draft_gamma) with on_chip + resident <= "
        "32. Loop over methods and widths, take np.where(fits, ms_per_token, np.inf).argmin().",
    ),
    "e3": Exercise(
        "the front",
        check_front,
        "How do you see, going through settings from the smallest to the largest, that one is "
        "worth its bytes?",
        "Sort by bytes, then by time; keep in a variable the least time so far.",
    ),
    "e4": Exercise(
        "what paid",
        check_owed,
        "Two settings, and neither guesses: one in floats in the choice's bytes, one with the "
        "width and the places of its own.",
        "The former is chosen.choice.prediction.equal_memory, the latter is in chosen.best; "
        "compare their ms_per_token.",
    ),
}
