"""Quantizing a KV cache: codes and scales, what they cost, which way they run, two planes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mspeckv import KVPolicy, KVProbe
from mspeckv.kv.codec import codec_of, codecs
from mspeckv.kv.shape import KVShape
from mspeckv_widgets.course.answers import as_number, call, same_function, short, tried
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict
from mspeckv_widgets.course.own_codec import OwnCodec, StoredOtherwise, register_own

_SCALE_BITS = 32
"""A step and a low in float16."""
MOST_BITS = 4.5
"""Int4 codes, and a step and a low of 16 bits for 64 of them."""
OWN = "mine"
"""The learner's codec, as settings call it."""


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
        seen = tried(found, (x, bits), short(back))
        levels, step = len(np.unique(back.round(9))), np.ptp(x) / (2**bits - 1)
        if levels == 2**bits + 1:
            return Verdict(
                False, f"at {bits} bits it gives {levels} different values, one more than there "
                f"are codes: from code 0 to code {2**bits - 1} it is {2**bits - 1} steps",
                attempt=seen,
            )  # fmt: skip
        if levels > 2**bits:
            told = f"at {bits} bits it gives {levels} different values; round codes"
            return Verdict(False, told, attempt=seen)
        worst = float(np.abs(back - x).max())
        if worst > 0.501 * step:
            return Verdict(
                False,
                f"at {bits} bits an error is {worst / step:.2f} steps; half a step is the most "
                "that rounding to the nearest code can cost",
                attempt=seen,
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


def check_codec(answer: Any) -> Verdict:
    """``(pack, unpack, probe)``: few bits, and an acceptance like that of the engine's codec.

    A codec that passes is a setting from then on: ``KVPolicy(codec="mine")``.
    """
    if not isinstance(answer, tuple) or len(answer) != 3 or not all(map(callable, answer[:2])):
        return Verdict(False, "give (pack, unpack, explorer.probe)")
    pack, unpack, probe = answer
    if not isinstance(probe, KVProbe):
        return Verdict(False, f"a probe is asked for, this is {short(probe)}")
    register_own(
        OWN, lambda x, name: call(pack, x, name), lambda stored, name: call(unpack, stored, name)
    )
    verdict = Verdict(False, "")
    try:
        verdict = _codec_judged(probe)
    except StoredOtherwise as error:
        verdict = Verdict(False, str(error))
    finally:
        if not verdict.passed:
            codecs.unregister(OWN)
    return verdict


def _codec_judged(probe: KVProbe) -> Verdict:
    """Bits (counted) and acceptance (measured) of the learner's codec, beside the engine's."""
    layers, heads, _, dim = probe.keys.shape
    policy = KVPolicy(4, codec=OWN)
    made = codec_of(KVShape(layers, heads, dim, probe.keys.dtype), policy)
    assert isinstance(made, OwnCodec)
    mine, ours = probe.over(policy), probe.over(KVPolicy(4))
    told = (
        f"{made.bits:.2f} bits a number (counted), acceptance {mine.acceptance:.3f} (measured); "
        f"the engine's own int4: {MOST_BITS} bits, {ours.acceptance:.3f} ± {ours.error:.3f}"
    )
    if made.bits > MOST_BITS:
        return Verdict(False, f"{told}. Get down to {MOST_BITS} bits: two codes fit into a byte")
    # one that is no number fails as well
    if not mine.acceptance >= ours.acceptance - ours.error:
        return Verdict(False, f"{told}. Which way do keys want their scales, and which way values?")
    return Verdict(True, f"{told}.", Score(mine.acceptance, "acceptance", "measured"))


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
            seen = tried(found, (code,), told, str(divmod(code, 16)))
            message = f"code {code} gave {told}; 16 * upper + lower must be the code"
            return Verdict(False, message, attempt=seen)
    return Verdict(True, "each plane is four bits wide, and together they are all of int8.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "quantize and restore",
        check_round_trip,
        "How many steps lie between the first code and the last? Count them for 2 bits.",
        "low is x.min(), step is the range over 2**bits - 1. A code is a whole number of steps "
        "above low.",
    ),
    "e2": Exercise(
        "what a scale costs",
        check_stored,
        "A step and a low of 16 bits each are shared by the group.",
        "Spread the 32 bits over the numbers that share them, and add a code's own.",
    ),
    "e3": Exercise(
        "a codec of your own",
        check_codec,
        "Exercise 1 for 64 groups at once: x.min(0, keepdims=True) is one low a channel, "
        "x.min(1, keepdims=True) one a token. Scales count too: keep them as float16. And what "
        "does a byte have room for?",
        'Begin with along = 0 if name == "keys" else 1, low = x.min(along, keepdims=True)'
        '.astype("float16"), and step likewise. Of codes of uint8, 16 * codes[::2] + codes[1::2] '
        "puts two rows into one.",
    ),
    "e4": Exercise(
        "two planes",
        check_planes,
        "Which part of a code is a whole number of sixteens, and what is left?",
        "The upper four bits are the code divided by 16, without the remainder.",
    ),
}
