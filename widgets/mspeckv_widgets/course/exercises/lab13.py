"""Drafts at long context: what a draft sees, what kills it, and where guessing pays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from mspeckv import Pair
from mspeckv.kv.shape import KVShape
from mspeckv_widgets.at_length import Series, Spread
from mspeckv_widgets.course.answers import as_number, call, same_function, short, starts_with, tried
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict, is_open
from mspeckv_widgets.course.exercises.lab03 import tokens_per_round
from mspeckv_widgets.guess_probe import GuessProbe

SEEN, NEAR, TRAINED = 256, 128, 512
"""Exercise 2: tokens that a place may see, latest ones that it must see, training's length."""
ALIVE, DEAD = 0.33, 0.25
"""Acceptance above and below which a draft counts as such."""
GAMMAS = range(1, 25)
DRAFT_GAMMAS = range(1, 7)
DRAFT_SEES = 256
LINK = 50.0
"""By what a byte over the link is dearer than one from the device's memory: 55.5 and 2844 GB/s on
an H200 (measured, `benchmarks/results/gpu-h200.txt`)."""
PLAIN, FULL, WINDOW, TIERS = "plain decoding", "0 > 2, full cache", "0 > 2, window", "0 > 1 > 2"
_CLOSE = 1.01


def check_sees(found: Any) -> Verdict:
    """A function of query, key, sinks and window says what a draft's mask leaves."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    place = torch.arange(12)
    query, key = place[:, None], place[None, :]
    for sinks, window in ((2, 4), (0, 3), (3, 1)):
        gave = call(found, query, key, sinks, window)
        if not isinstance(gave, torch.Tensor) or gave.dtype != torch.bool:
            return Verdict(False, f"a tensor of truths is asked for, this is {short(gave)}")
        right = (key <= query) & ((key < sinks) | (query - key < window))
        wrong = (gave.broadcast_to(right.shape) != right).nonzero()
        if len(wrong):
            one, other = wrong[0].tolist()
            wanted = bool(right[one, other])
            says = "sees" if wanted else "does not see"
            case = torch.tensor(one), torch.tensor(other), sinks, window
            seen = tried(found, case, str(not wanted), str(wanted))
            told = f"{sinks} sinks, window {window}: the token at {one} {says} that at {other}"
            return Verdict(False, told, attempt=seen)
    return Verdict(True, "the first tokens and the latest, itself among them, none that comes.")


def check_killer(answer: Any) -> Verdict:
    """A mask under which the draft sees few tokens and dies, from a probe and that mask."""
    if not starts_with(answer, 2, GuessProbe) or not callable(answer[1]):
        return Verdict(False, "give (probe, your function)")
    probe, mask = answer
    place = torch.arange(len(probe.tokens))
    query, key = place[:, None], place[None, :]
    if is_open(mask(query, key)):
        return Verdict(False, "there is no answer yet: replace the ... and run the cell again")
    seen = mask(query, key) & (key <= query)
    if not bool(seen[(key <= query) & (query - key < NEAR)].all()):
        return Verdict(False, f"every token must see the latest {NEAR}, itself among them")
    most = int(seen.sum(-1).max())
    if most > SEEN:
        return Verdict(False, f"some token sees {most} others; {SEEN} are allowed")
    dead = probe.reading_what(mask).rate
    near = probe.reading_what(lambda one, other: mask(one, other) & (one - other < TRAINED)).rate
    told = f"acceptance {dead:.2f}, and {near:.2f} without what is {TRAINED} away (measured)"
    if dead >= DEAD:
        return Verdict(False, f"{told}: the draft lives, as it does from {DEAD} on")
    if near < ALIVE:
        return Verdict(False, f"{told}: it does not see enough of what is near")
    score = Score(most, "tokens seen at most", "counted", less_is_better=True)
    return Verdict(True, f"{told}, with {most} tokens in sight: far, not many.", score)


def needed_acceptance(gamma: int, cost: float) -> float:
    """The acceptance rate at which rounds of gamma guesses are as fast as none."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if tokens_per_round(middle, gamma) < gamma * cost + 1:
            low = middle
        else:
            high = middle
    return high


def check_needed(found: Any) -> Verdict:
    """A function of gamma and cost: the acceptance that pays."""
    cases = [(1, 0.25), (1, 0.6), (4, 0.1), (8, 0.05), (8, 0.25), (16, 0.5)]
    why = "long guesses need a rate far above their cost; a single one needs just its cost."
    return same_function(found, needed_acceptance, cases, why, share=1e-3)


@dataclass(frozen=True)
class PassCosts:
    """A pass of tiers 0 and 1 over one of tier 2, by the bytes that each reads (modelled)."""

    draft: float
    tier1: float

    @classmethod
    def of(
        cls,
        pair: Pair,
        context: int,
        budget: int,
        draft_sees: int = DRAFT_SEES,
        link: float = 1.0,
    ) -> PassCosts:
        """Weights, and keys and values of what is seen.

        Args:
            pair: the models.
            context: tokens that tier 2 reads.
            budget: of tier 1.
            draft_sees: tokens that the draft reads.
            link: by what a byte of tier 2's KV is dearer than one from the device's memory.
        """
        assert pair.draft is not None

        def read(model: Any, tokens: int, dearer: float = 1.0) -> float:
            shape = KVShape.of(model.config, model.dtype)
            weights = sum(weight.nbytes for weight in model.parameters())
            return float(weights + dearer * min(tokens, context) * shape.layers * shape.token_bytes)

        whole = read(pair.target, context, link)
        return cls(read(pair.draft, draft_sees) / whole, read(pair.target, budget) / whole)


def two_tiers(cost: float, rate: float, gamma: int) -> float:
    """Tier-2 passes' worth of time per settled token where tier 0 guesses for tier 2."""
    return (gamma * cost + 1) / tokens_per_round(rate, gamma)


def three_tiers(
    draft: float, tier1: float, inner: float, outer: float, draft_gamma: int, gamma: int
) -> float:
    """The same where tier 0 guesses for tier 1, and tier 1 for tier 2.

    Args:
        draft: a pass of tier 0, in passes of tier 2; so ``tier1``.
        inner: acceptance rate of tier 0's guesses at tier 1.
        outer: of tier 1's tokens at tier 2.
        draft_gamma: guesses of an inner round.
        gamma: tokens of a round.
    """
    per_token = (draft_gamma * draft + tier1) / tokens_per_round(inner, draft_gamma)
    return (gamma * per_token + 1) / tokens_per_round(outer, gamma)


def check_three_tiers(found: Any) -> Verdict:
    """A function of costs, rates and lengths: time per token of the hierarchy."""
    cases = [
        (0.1, 0.5, 0.5, 0.9, 2, 8), (0.05, 0.2, 0.5, 0.85, 3, 8), (0.2, 1.0, 0.5, 0.95, 1, 4),
    ]  # fmt: skip
    why = "an inner round is paid in draft passes and one of tier 1; a round adds one of tier 2."
    return same_function(found, three_tiers, cases, why)


def speedups(
    pair: Pair, series: Series, context: int, budget: int, link: float = 1.0
) -> dict[str, Spread]:
    """How many times as fast as plain decoding each nesting is, at its best lengths (modelled).

    From the rates of each recorded place, on the target's own words; the spread is over places.
    """
    near = PassCosts.of(pair, context, budget, link=link)
    full = PassCosts.of(pair, context, budget, context, link)
    names = ("draft, all", "draft, sinks and window", f"draft for tier 1, {budget}")
    by_place = [series.rates(name, context, "own") for name in (*names, f"tier 1, {budget}")]
    found: dict[str, list[float]] = {PLAIN: [], FULL: [], WINDOW: [], TIERS: []}
    for place in by_place[0]:
        everything, window, inner, outer = (rates[place] for rates in by_place)
        found[PLAIN].append(1.0)
        found[FULL].append(1 / min(two_tiers(full.draft, everything, g) for g in GAMMAS))
        found[WINDOW].append(1 / min(two_tiers(near.draft, window, g) for g in GAMMAS))
        costs = near.draft, near.tier1, inner, outer
        times = (three_tiers(*costs, d, g) for d in DRAFT_GAMMAS for g in GAMMAS)
        found[TIERS].append(1 / min(times))
    return {name: Spread.of(ups) for name, ups in found.items()}


def planned(
    pair: Pair, series: Series, budget: int, draft_gamma: int, gamma: int, link: float = 1.0
) -> float:
    """Modelled time per token of the hierarchy at the longest recorded context."""
    context = series.contexts[-1]
    costs = PassCosts.of(pair, context, budget, link=link)
    inner = series.spread(f"draft for tier 1, {budget}", context, "own").median
    outer = series.spread(f"tier 1, {budget}", context, "own").median
    return three_tiers(costs.draft, costs.tier1, inner, outer, draft_gamma, gamma)


def budgets_of(series: Series) -> list[int]:
    """Those that were recorded."""
    names = (name for name in series.guessers if name.startswith("tier 1, "))
    return [int(name.removeprefix("tier 1, ")) for name in names]


def check_plan(answer: Any) -> Verdict:
    """The settings with the least modelled time, from a pair, rows and the choice."""
    if not starts_with(answer, 5, Pair) or not isinstance(answer[1], Series):
        return Verdict(False, "give (pair, series, budget, draft_gamma, gamma)")
    pair, series, *chosen = answer
    allowed = (budgets_of(series), DRAFT_GAMMAS, GAMMAS)
    if any(as_number(one) not in known for one, known in zip(chosen, allowed, strict=True)):
        lengths = f"a draft_gamma to {DRAFT_GAMMAS[-1]} and a gamma to {GAMMAS[-1]}"
        return Verdict(False, f"a budget of {allowed[0]}, {lengths} are asked for")
    here = planned(pair, series, *map(int, chosen))
    best = min(planned(pair, series, *plan) for plan in product(*allowed))
    told = f"{here:.3f} tier-2 passes a token (modelled)"
    if here > best * _CLOSE:
        return Verdict(False, f"{told}; something else takes {1 - best / here:.0%} less")
    score = Score(here, "tier-2 passes per token", "modelled", less_is_better=True)
    return Verdict(True, f"{told}: {1 / here:.2f} times as fast as plain decoding.", score)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the mask of sinks and window",
        check_sees,
        "Three conditions on the two positions: not later, and either among the first or near "
        "enough.",
        "Distance is query - key. A window of 4 holds the distances 0, 1, 2 and 3. Join tensors "
        "with & and |, each comparison in brackets.",
    ),
    "e2": Exercise(
        "few tokens, and dead",
        check_killer,
        "The windows above died as they grew past 512. Was that because of how many tokens they "
        "held, or how far back the oldest was? Spend the tokens that you may add on the other one.",
        f"Begin with (query - key < {NEAR}) and add far tokens with |: every n-th position, "
        "or the first few.",
    ),
    "e3": Exercise(
        "the acceptance that pays",
        check_needed,
        "Plain decoding settles one token per pass. A round settles 1 + a + ... + a**gamma in "
        "gamma * cost + 1 passes. Where are the two equally fast?",
        "The sum grows with a, so halve the interval from 0 to 1 again and again.",
    ),
    "e4": Exercise(
        "time per token with three tiers",
        check_three_tiers,
        "What does a token cost that tier 1 hands up? It comes from a round of its own, in which "
        "the draft guesses and tier 1 checks.",
        "An inner round takes draft_gamma * draft + tier1 and yields 1 + inner + ... tokens: "
        "divide. Then gamma such tokens and one pass of tier 2 make a round.",
    ),
    "e5": Exercise(
        "budget and lengths at the longest context",
        check_plan,
        "A larger budget is kept more often and costs more per pass; a longer guess settles more "
        "and is wrong more often. There are few enough of them to try all.",
        "planned(pair, series, budget, draft_gamma, gamma) is the time per token. Three loops, or "
        "itertools.product and min(..., key=...).",
    ),
}
