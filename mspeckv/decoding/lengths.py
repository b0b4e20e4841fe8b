"""Lengths chosen while decoding: what measured costs and acceptance favour, round by round.

A round that proposes gamma tokens, the k-th kept with probability a_k once all before it are,
settles

    E(a, gamma) = 1 + a_1 + a_1 a_2 + ... + a_1 a_2 ... a_gamma

tokens. (Leviathan et al., arXiv 2211.17192, equation 1, has one a for all; but guesses hold in
runs, the more so the more text is copied.) With c_t(n) the measured time of a pass of tier t over
n tokens, the time per token of a round is

    nothing guessed      c_2(1)
    tier i proposes      (gamma c_i(1) + c_2(gamma + 1)) / E(a_i2, gamma)
    0 proposes to 1      (gamma k + c_2(gamma + 1)) / E(a_12, gamma)
                         with k = (d c_0(1) + c_1(d + 1)) / E(a_01, d), one token of tier 1

and the planner takes the least. A draft model's own guesses then end where it becomes unsure
(`mspeckv.decoding.confidence`), or at the longest length that the settings allow. All this depends
on the past alone, never on the verdict on tokens about to be drawn, so every round stays exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from mspeckv.config import Speculation
from mspeckv.decoding.confidence import Confidence
from mspeckv.decoding.costs import FADE, SLOPE, Costs, PassCost
from mspeckv.decoding.lookup import LONGEST
from mspeckv.events import Guess, Pass, Plan

_FIRST_GAMMA, _FIRST_DRAFT_GAMMA = 2, 2
"""The round before anything was measured."""
_FIRST_COPY = 8
"""Most guesses then where they cost no pass: what verifying more of them takes is not known yet."""
_DRAFT_SHARE = 0.25
"""Cost of a tier-0 pass over a tier-2 pass, before it was measured."""
_PRIOR_WEIGHT = 1.5
"""Tests that a prior acceptance counts for; observations fade, so untried ways come back."""
_DRAFT_WEIGHT = 3.0
"""The same for a draft, which costs little where it is unsure."""
_FURTHER_WEIGHT = 3.0
"""The same for further places of a guess, of which one break says little."""
_COPY_WEIGHT = 5.0
"""The same for a copy's further places: where the match is as long as matches get, few break."""
_PRIOR_DRAFT, _PRIOR_MIDDLE = 0.5, 0.85
_SURE = 0.97
"""How often a guess is kept that the draft is sure of."""
_PLACES = 4
"""Places of a guess whose acceptance is told apart; the last one stands for all further ones."""
_Test = tuple[int, int, int, int]
"""Proposing tier, verifying tier, what a lookup's match says, place of the guess."""


def expected_tokens(rates: Sequence[float], gamma: int) -> float:
    """Tokens that a round with ``gamma`` guesses settles on average, the verifier's included.

    Args:
        rates: a_1, a_2, ...; the last one stands for all further places.
        gamma: guesses.
    """
    settled = survival = 1.0
    for place in range(gamma):
        survival *= rates[min(place, len(rates) - 1)]
        settled += survival
    return settled


def _test(tier: int, verifier: int, match: int, place: int) -> _Test:
    """What acceptance is counted by.

    How much matched tells first guesses apart. For further ones it matters only whether the match
    was as long as matches get: then text is being copied, else it was met by chance. Tier 1 is the
    target over less of the text: it errs anywhere alike.
    """
    place = min(place, _PLACES - 1)
    if tier > 0:
        return tier, verifier, 0, 0
    return tier, verifier, match if place == 0 else match // LONGEST, place


class Planner:
    """Chooses the lengths of the next round.

    Args:
        speculation: which lengths are free, and the values of those that are not.
        has_draft: whether there is a tier 0.
        has_middle: whether there is a tier 1.
        free_draft: whether tier 0 guesses without a pass.
        costs: by tier, from an earlier run with the same settings; the planner adds to them.
            Without, the first round is a short one that measures.
    """

    def __init__(
        self,
        speculation: Speculation,
        has_draft: bool,
        has_middle: bool,
        free_draft: bool,
        costs: Costs | None = None,
    ) -> None:
        self.speculation = speculation
        self.has_draft, self.has_middle, self.free_draft = has_draft, has_middle, free_draft
        self.costs: Costs = costs if costs is not None else defaultdict(PassCost)
        self._kept: dict[_Test, float] = defaultdict(float)
        self._tested: dict[_Test, float] = defaultdict(float)
        self.confidence = Confidence()
        # of all plans that a choice compares, few differ in any one part
        self._settled: dict[tuple[int, int, int, int], float] = {}
        self._middle: dict[tuple[int, int], float] = {}

    def learn(
        self, passes: Sequence[Pass], guesses: Iterable[Guess], match: int, ms: float = 0.0
    ) -> None:
        """Take in one round: pass times, and how far each guess went.

        Args:
            passes: the round's passes.
            guesses: what was guessed in it, and kept.
            match: the key of tier 0's guesses, as in `choose`.
            ms: what the round took. What it took beyond its passes, such as drawing tokens, comes
                with every pass and is counted as a part of each.
        """
        self._settled.clear()
        self._middle.clear()
        beyond = max(0.0, ms - sum(one.ms for one in passes)) / max(1, len(passes))
        for one in passes:
            self.costs[one.tier].see(one.tokens, one.ms + beyond)
        for counts in (self._kept, self._tested):
            for test in counts:
                counts[test] *= FADE
        self.confidence.fade()
        for guess in guesses:
            if guess.held:
                self.confidence.see(guess.verifier, guess.held, guess.accepted)
            for place in range(min(guess.accepted + 1, len(guess.tokens))):
                test = _test(guess.tier, guess.verifier, match, place)
                self._tested[test] += 1
                self._kept[test] += place < guess.accepted

    def rates(self, tier: int, verifier: int, match: int = 0) -> list[float]:
        """For each place of a guess, the probability that it is kept if all before it were.

        A place of which little is known is taken to be like the one before it, the more hopeful
        the less is known of that: texts differ, and a guess that is kept says that this one is
        easy (Polya's urn: of n tests with a kept share r, one more kept makes it
        (n r + 1) / (n + 1)).
        """
        prior, copied = self._prior(tier, verifier, match), match >= LONGEST
        first = _DRAFT_WEIGHT if tier == 0 and not match else _PRIOR_WEIGHT
        rate, known, out = prior, first, []
        for place in range(_PLACES):
            weight = _FURTHER_WEIGHT if place else first
            if place > 0 and copied:
                # whatever the first guess says of a copy's beginning, once begun it goes on
                rate, weight = prior if place == 1 else rate, _COPY_WEIGHT
            elif place > 0:
                rate, known = (known * rate + 1) / (known + 1), known + 1
            if place == 0 or tier == 0:
                test = _test(tier, verifier, match, place)
                rate = (weight * rate + self._kept[test]) / (weight + self._tested[test])
                known += self._tested[test]
            out.append(rate)
        return out

    def cost(self, tier: int, tokens: int) -> float:
        """Milliseconds of a pass of ``tier`` over ``tokens``; arbitrary units before the first."""
        if tier == 0 and self.free_draft:
            return 0.0
        if self.costs[tier].known:
            return self.costs[tier](tokens)
        if tier == 0:
            return _DRAFT_SHARE * self.cost(2, 1)
        other = self.costs[3 - tier]
        return other(tokens) if other.known else 1 + SLOPE * tokens

    def choose(self, room: int, match: int = 0) -> Plan:
        """The lengths of the next round: the `best`, a draft's guesses as long as it is sure.

        Args:
            room: most tokens that may be guessed now.
            match: for lookup, the tokens that match (0: it has nothing to say); tells apart
                guesses of different worth.
        """
        guesses = self.has_draft and not (self.free_draft and match == 0)
        if not self.costs[2].known and room > 0:
            first = self._first(room, guesses)
            if first is not None:
                return first
        return self._open(self.best(room, match), room, match)

    def best(self, room: int, match: int = 0) -> Plan:
        """The lengths with the least expected time per token; arguments as of `choose`."""
        guesses = self.has_draft and not (self.free_draft and match == 0)
        return min(self._plans(room, guesses), key=lambda plan: self.time_per_token(plan, match))

    def _open(self, plan: Plan, room: int, match: int) -> Plan:
        """``plan`` with free lengths of a draft's guesses at their longest, and where they end."""
        guess = self.speculation
        if self.free_draft or plan.path[0] != 0:
            return plan
        if len(plan.path) == 3:
            least, longest, verifier, token = plan.draft_gamma, guess.longest_draft_gamma, 1, 0.0
            if guess.draft_gamma == "auto":
                token = self._middle_token(plan.draft_gamma, match)
        else:
            least, longest, verifier, token = plan.gamma, min(guess.longest_gamma, room), 2, 0.0
            if guess.gamma == "auto":
                token = self.time_per_token(plan, match)
        if not token:
            return plan
        # kernels have steps, which even a sure guess may not be worth
        longest = max(least, min(range(1, longest + 1), key=partial(self._sure, verifier)))
        place = (self.cost(verifier, longest + 1) - self.cost(verifier, 1)) / longest
        stop = (self.cost(0, 1) + max(0.0, place)) / token
        if verifier == 1:
            return replace(plan, draft_gamma=longest, stop=stop)
        return replace(plan, gamma=longest, stop=stop)

    def _sure(self, verifier: int, length: int) -> float:
        """Milliseconds per token of ``length`` guesses that the draft is sure of."""
        ms = length * self.cost(0, 1) + self.cost(verifier, length + 1)
        return ms / expected_tokens([_SURE], length)

    def time_per_token(self, plan: Plan, match: int = 0) -> float:
        """Expected milliseconds per settled token."""
        top = self.cost(2, plan.gamma + 1)
        if plan.path == (2,):
            return top
        if plan.path == (0, 1, 2):
            token = self._middle_token(plan.draft_gamma, match)
        else:
            token = self.cost(plan.path[0], 1)
        settled = self._expected(plan.path[-2], 2, match, plan.gamma)
        return (plan.gamma * token + top) / settled

    def _middle_token(self, draft_gamma: int, match: int) -> float:
        """Expected milliseconds of one of tier 1's tokens, with tier 0 proposing."""
        key = draft_gamma, match
        if key not in self._middle:
            inner = draft_gamma * self.cost(0, 1) + self.cost(1, draft_gamma + 1)
            self._middle[key] = inner / self._expected(0, 1, match, draft_gamma)
        return self._middle[key]

    def _expected(self, tier: int, verifier: int, match: int, gamma: int) -> float:
        """Tokens that ``gamma`` guesses of ``tier`` settle on average."""
        key = tier, verifier, match, gamma
        if key not in self._settled:
            self._settled[key] = expected_tokens(self.rates(tier, verifier, match), gamma)
        return self._settled[key]

    def _plans(self, room: int, guesses: bool) -> Iterator[Plan]:
        """Every round that the settings leave open."""
        yield Plan((2,), 0, 0)
        free = self.speculation.gamma == "auto"
        longest = min(self.speculation.longest_gamma, room)
        if free and not self.costs[2].known:
            longest = min(longest, _FIRST_COPY)
        inner = self.speculation.longest_draft_gamma
        for gamma in range(1 if free else longest, longest + 1):
            if gamma < 1:
                continue
            if guesses:
                yield Plan((0, 2), gamma, 0)
            if self.has_middle:
                yield Plan((1, 2), gamma, 0)
            if guesses and self.has_middle:
                least = 1 if self.speculation.draft_gamma == "auto" else inner
                for draft_gamma in range(least, inner + 1):
                    yield Plan((0, 1, 2), gamma, draft_gamma)

    def _first(self, room: int, guesses: bool) -> Plan | None:
        """A short round through every tier there is: it measures them all."""
        path = (*((0,) if guesses else ()), *((1,) if self.has_middle else ()), 2)
        if len(path) == 1 or (self.free_draft and not self.has_middle):
            return None
        gamma, draft_gamma = self.speculation.gamma, self.speculation.draft_gamma
        return Plan(
            path,
            min(room, _FIRST_GAMMA if isinstance(gamma, str) else gamma),
            0 if len(path) < 3
            else _FIRST_DRAFT_GAMMA if isinstance(draft_gamma, str) else draft_gamma,
        )  # fmt: skip

    def _prior(self, tier: int, verifier: int, match: int) -> float:
        if tier == 1:
            return _PRIOR_MIDDLE
        if match:
            return 0.05 + 0.9 * match / LONGEST
        if verifier == 2 and self.has_middle:
            # What tier 1 keeps of the draft, and tier 2 of tier 1.
            return self.rates(0, 1)[0] * self.rates(1, 2)[0]
        return _PRIOR_DRAFT
