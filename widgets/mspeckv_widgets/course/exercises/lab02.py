"""Quantizing a KV cache: codes and scales, what they cost, which way they run, two planes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mspeckv_widgets.course.answers import as_number, call, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.explorers.quant import QuantExplorer

_SCALE_BITS = 32
"""A step and a low in float16."""


def check_round_trip(found: Any) -> Verdict:
    """A function ``(x, bits)`` quantizes an array with one step and one low, and restores it."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    rng = np.random.default_rng(0)
    for bits in (8, 4, 2):
        x = rng.normal(3.0, 2.0, 200)
        back = np.asarray(call(found, x.copy(), bits), dtype=np.float64)
        if back.shape != x.shape:
            return Verdict(False, f"an array of {x.shape[0]} numbers should come back")
        levels, step = len(np.unique(back.round(9))), np.ptp(x) / (2**bits - 1)
        if levels > 2**bits:
            return Verdict(False, f"at {bits} bits it gives {levels} different values; round codes")
        worst = float(np.abs(back - x).max())
        if worst > 0.501 * step:
            return Verdict(
                False,
                f"at {bits} bits an error is {worst / step:.2f} steps; half a step is the most "
                "that rounding to the nearest code can cost",
            )
    return Verdict(True, "no error is larger than half a step.")


def stored_bits(bits: int, group: int) -> float:
    """Bits per number of codes that share a step and a low in float16."""
    return bits + _SCALE_BITS / group


def check_stored(found: Any) -> Verdict:
    """A function of width and group gives stored bits per number."""
    cases = [(8, 64), (4, 64), (2, 64), (2, 16)]
    why = "int2 with 16 numbers to a scale takes 4 bits, as much as int4 without any."
    return same_function(found, stored_bits, cases, why)


def check_axis(answer: Any) -> Verdict:
    """The better axis for values at int2, by the model's own answers in the explorer."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "give (explorer, 'channel' or 'token')")
    explorer, axis = answer
    if not isinstance(explorer, QuantExplorer):
        return Verdict(False, "give (explorer, 'channel' or 'token')")
    found = {
        one.packing.axis: one.acceptance
        for one in explorer.asked
        if one.tensor == "values" and one.packing.bits == 2 and one.packing.group == 64
    }
    if set(found) != {"channel", "token"}:
        return Verdict(False, "ask the model about int2 values both ways first, 64 numbers a scale")
    if axis not in found:
        return Verdict(False, f"answer 'channel' or 'token', this is {short(axis)}")
    told = ", ".join(f"per {way} {share:.2f}" for way, share in sorted(found.items()))
    if found[axis] < max(found.values()):
        return Verdict(False, f"the model disagrees (acceptance measured): {told}")
    return Verdict(True, f"acceptance (measured): {told}.")


def check_planes(found: Any) -> Verdict:
    """A function splits an int8 code into upper and lower four bits, which join again."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for code in range(256):
        gave = call(found, code)
        if not isinstance(gave, tuple) or len(gave) != 2:
            return Verdict(False, f"for code {code} it returned {short(gave)}, not (upper, lower)")
        upper, lower = (as_number(part) for part in gave)
        if (upper, lower) != divmod(code, 16):
            told = f"({short(gave[0])}, {short(gave[1])})"
            return Verdict(False, f"code {code} gave {told}; 16 * upper + lower must be the code")
    return Verdict(True, "each plane is four bits wide, and together they are all of int8.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "quantize and restore",
        check_round_trip,
        "low = x.min(); step = (x.max() - low) / (2**bits - 1); a code is the rounded number of "
        "steps above low. Return low + step * code.",
    ),
    "e2": Exercise(
        "what a scale costs",
        check_stored,
        "A step and a low of 16 bits each are shared by the group: spread them over its numbers.",
    ),
    "e3": Exercise(
        "which way values want their scales",
        check_axis,
        "In the explorer: tensor values, width int2, 64 numbers a scale. Ask the model once per "
        "channel and once per token, then compare the two acceptances.",
    ),
    "e4": Exercise(
        "two planes",
        check_planes,
        "The upper four bits are the code divided by 16, the lower four what is left: // and %, "
        "or divmod.",
    ),
}
