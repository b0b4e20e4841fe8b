"""B1, on-chip layers: a cliff that is a cache policy's, not the method's."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

from mspeckv.experiments import largest_step, tier2_rates
from mspeckv_widgets.course.answers import near, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import load_results


def check_cliff(found: Any) -> Verdict:
    """The two neighbours between which tier 2's speed rises most under LRU."""
    low, high, ratio = largest_step(tier2_rates(load_results("B1").table, "mspeckv-lru"))
    if not isinstance(found, (list, tuple)) or len(found) != 2:
        return Verdict(False, f"two on-chip counts are asked for, this is {short(found)}")
    if sorted(found) != [low, high]:
        return Verdict(False, "the largest step between neighbours is elsewhere")
    return Verdict(True, f"{ratio:.2f} times as fast from one to the next.")


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


def check_static(found: Any) -> Verdict:
    """The largest step between neighbours under fixed places."""
    rates = tier2_rates(load_results("B1").table, "mspeckv")
    places = sorted(rates)
    steps = [rates[b] / rates[a] for a, b in pairwise(places)]
    if not steps:
        return Verdict(False, "these results have fewer than two cells of mspeckv")
    told = "the same memory, the same layers, another policy."
    return near(found, max(steps), 0.02, told)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "where tier 2 jumps under LRU",
        check_cliff,
        "tier2_rates(table, 'mspeckv-lru') along its values: which neighbour is much faster?",
    ),
    "e2": Exercise(
        "hit rate of an LRU cache under a cyclic scan",
        check_lru,
        "Keep a list of cached layers, the one used last at its end. For each layer in order: if "
        "it is there, count a hit and move it to the end; else append it, and drop the first one "
        "when there are more than the places.",
    ),
    "e3": Exercise(
        "where the cliff must be",
        check_fit,
        "It hits once every packed layer fits. How many are packed with n on-chip?",
    ),
    "e4": Exercise(
        "the largest step under fixed places",
        check_static,
        "tier2_rates(table, 'mspeckv'): each over its neighbour before.",
    ),
}
