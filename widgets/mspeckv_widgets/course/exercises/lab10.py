"""B1, on-chip layers: a cliff that is a cache policy's, and layers placed under two budgets."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Any

import numpy as np

from mspeckv import what_if
from mspeckv_study.whatif import Forecast
from mspeckv_widgets.course.answers import same_function, short
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict

DEVICE_BYTES, LINK_BYTES = 5e9, 400e6
"""Most KV on the device, and most bytes over the link per token."""
WITHIN = 1.1
"""An answer passes if it takes so many times the best one's time at most."""
CHOSEN = ("on_chip", "resident", "gamma", "draft_gamma")
LAYERS = 32


def lru_hits(packed: int, places: int, passes: int) -> float:
    """Share of lookups that an LRU cache answers when layers are read in order, pass after pass."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for _ in range(passes):
        for layer in range(packed):
            if layer in cache:
                hits += 1
                cache.move_to_end(layer)
            elif places:
                if len(cache) == places:
                    cache.popitem(last=False)
                cache[layer] = None
    return hits / (packed * passes)


def check_lru(found: Any) -> Verdict:
    """A function gives an LRU cache's hit rate under a cyclic scan."""
    cases = [(26, 15, 10), (16, 15, 10), (15, 15, 10), (13, 15, 4), (5, 0, 3)]
    told = "one layer too many and it finds none: each is dropped just before it is wanted again."
    return same_function(found, lru_hits, cases, told)


def first_fit(layers: int, resident: int) -> int:
    """Fewest on-chip layers at which all others fit into the resident places."""
    return max(0, layers - resident)


def check_fit(found: Any) -> Verdict:
    """A function tells where the cliff of an LRU cache must be."""
    cases = [(30, 15), (32, 16), (32, 8), (80, 40), (12, 16)]
    told = "the published table has its jump where 16 more of 32 layers fit: between 12 and 16."
    return same_function(found, first_fit, cases, told)


def fixed_hits(layers: int, on_chip: int, resident: int) -> float:
    """Share of packed layers found under fixed places."""
    packed = layers - on_chip
    return min(resident, packed) / packed


def check_fixed(found: Any) -> Verdict:
    """A function gives the hit rate of fixed places."""
    cases = [(30, 4, 15), (30, 12, 15), (30, 15, 15), (30, 17, 15), (32, 8, 16), (32, 0, 0)]
    told = "each layer with a place is found in every pass; nothing jumps."
    return same_function(found, fixed_hits, cases, told)


def predicted(**setting: Any) -> Forecast:
    """The published machine's time for a setting, by the cost model (modelled)."""
    return what_if(
        "llama-2-7b", "origin", method="mspeckv", prefill=16384, new_tokens=256, budget=4096,
        bits=8, control=False, **setting,
    )  # fmt: skip


@cache
def best_ms() -> float:
    """The least time of any setting that keeps both budgets."""
    grid = np.meshgrid(
        np.arange(LAYERS + 1), np.arange(LAYERS + 1), np.arange(1, 17), np.arange(1, 5),
        indexing="ij",
    )  # fmt: skip
    there = grid[0] + grid[1] <= LAYERS
    found = predicted(**{name: part[there] for name, part in zip(CHOSEN, grid, strict=True)})
    kept = (found.kv_device_bytes <= DEVICE_BYTES) & (found.link_bytes_per_token <= LINK_BYTES)
    return float(np.min(found.ms_per_token[kept]))


def check_places(found: Any) -> Verdict:
    """A setting that keeps both budgets and is quick."""
    if not isinstance(found, dict) or set(found) != set(CHOSEN):
        return Verdict(False, f"a dictionary of {', '.join(CHOSEN)} is asked for")
    asked = predicted(**found)
    device, link, ms = asked.kv_device_bytes, asked.link_bytes_per_token, asked.ms_per_token
    if np.ndim(ms):
        return Verdict(False, f"one number for each is asked for, this is {short(found)}")
    if device > DEVICE_BYTES:
        return Verdict(False, f"{device / 1e9:.2f} GB of KV on the device, 5 are allowed")
    if link > LINK_BYTES:
        return Verdict(False, f"{link / 1e6:.0f} MB over the link per token, 400 are allowed")
    if ms > WITHIN * best_ms():
        return Verdict(False, f"{ms:.1f} ms per token keep both budgets; it goes in fewer")
    told = f"{ms / best_ms() - 1:.1%} more than the best of all settings that keep both budgets."
    return Verdict(True, told, score=Score(float(ms), "ms per token", "modelled", True))


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "hit rate of an LRU cache under a cyclic scan",
        check_lru,
        "Play it by hand with three layers and two places: which layer is dropped when the third "
        "is read, and which one is wanted next?",
        "Keep a list of cached layers, the one used last at its end. For each layer in order: if "
        "it is there, count a hit and move it to the end; else append it, and drop the first one "
        "when there are more than the places.",
    ),
    "e2": Exercise(
        "where the cliff must be",
        check_fit,
        "It hits once every packed layer fits. How many are packed with n on-chip?",
    ),
    "e3": Exercise(
        "hit rate of fixed places",
        check_fixed,
        "Of the packed layers, which are found in every pass, and which in none?",
        "packed = layers - on_chip, and no more of them have a place than there are places.",
    ),
    "e4": Exercise(
        "places under two budgets",
        check_places,
        "Memory is filled by unquantized layers twice as quickly as by int8 ones. And not only "
        "places make traffic less: how many tokens does one trip bring?",
        "Try resident layers first, as many as fit; then lengthen gamma until the link keeps its "
        "budget; then see whether a shorter draft_gamma costs less.",
    ),
}
