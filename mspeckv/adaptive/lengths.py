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

and the planner takes the least.

A draft model that was distilled from its target knows when it does not know, so its own guesses
end earlier, where it becomes unsure (`Chain` of `mspeckv.decoding.speculate`). With s the chance
that all of a chain of guesses is kept, one more guess brings s tokens at most and costs d
milliseconds, its draft pass and its place in the verification. Where a token is otherwise had for T
milliseconds, it pays as long as

    s T > d,   so a chain ends once s < d / T

(Charnov, Optimal foraging: the marginal value theorem, 1976: leave when a patch yields less than
the average).

All this depends on the past and on tokens already handed up, never on the verdict on tokens about
to be drawn, so every guess stays a draw from its own distribution and every round stays exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial

from mspeckv.adaptive.estimates import SLOPE, Confidence, Costs, PassCost, Verdicts
from mspeckv.events import Guess, Pass, Plan
from mspeckv.settings import AUTO_DRAFT_GAMMA, AUTO_GAMMA, Speculation

_FIRST_GAMMA, _FIRST_DRAFT_GAMMA = 2, 2
"""A round that measures; where more tokens take longer."""
_FIRST_FLAT = 8, 3
"""The same where they hardly do: then a longer one loses little."""
_ABOUT = 1.1
"""A plan that takes so many times as long as the best is about as good, if no rest is left."""
_STALE = 32
"""Rounds after which a tier left out takes part once, to be measured anew."""
_FIRST_COPY = 8
"""Most guesses of a lookup while it is not known what tier 2 takes to verify them."""
_DRAFT_SHARE = 0.25
"""Cost of a tier-0 pass over a tier-2 pass, before it was measured."""
_SURE = 0.97
"""How often a guess is kept that the draft is sure of."""
Held = tuple[float, ...]
"""How likely a lookup holds each token that it would guess."""


def expected_tokens(rates: Sequence[float], longest: int) -> list[float]:
    """Tokens that a round settles on average, the verifier's included: of 0, 1, ... guesses.

    Args:
        rates: a_1, a_2, ...; the last one stands for all further places.
        longest: most guesses.
    """
    settled, survival = [1.0], 1.0
    for place in range(longest):
        survival *= rates[min(place, len(rates) - 1)]
        settled.append(settled[-1] + survival)
    return settled


def marginal(passes: Sequence[Pass], began: float | None, ended: float | None) -> Sequence[float]:
    """Milliseconds that each pass adds to its round: until the next one begins.

    So drawing tokens from a pass, and packing after it, is a part of that pass and of no other;
    time before the round's first pass is added to its last, which is tier 2's.
    """
    if began is None or ended is None or not passes:
        return [one.ms for one in passes]
    ends = [*(one.start for one in passes[1:]), ended + passes[0].start - began]
    return [(end - one.start) * 1e3 for one, end in zip(passes, ends, strict=True)]


_SURELY = expected_tokens([_SURE], max(AUTO_GAMMA, AUTO_DRAFT_GAMMA))


class Planner:
    """Chooses the lengths of the next round.

    Args:
        speculation: which lengths are left open, and the values of those that are not.
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
        self.verdicts, self.confidence = Verdicts(has_middle), Confidence(lookup=free_draft)
        self.longest = max(speculation.longest_gamma, speculation.longest_draft_gamma)
        # plans that a choice compares share their parts
        self.cost, self._settled = cache(self._expected_ms), cache(self._settles)
        # rounds since a tier was last timed, and the tiers that have passes to time
        self._absent = [0, 0, 0]
        self._timed = [
            *((0,) if has_draft and not free_draft else ()), *((1,) if has_middle else ()), 2
        ]  # fmt: skip

    def learn(
        self,
        passes: Sequence[Pass],
        guesses: Sequence[Guess],
        began: float | None = None,
        ended: float | None = None,
    ) -> None:
        """Take in one round: pass times, and how far each guess went.

        Args:
            passes: the round's passes. What those that build something take says little of others.
            began, ended: seconds on the passes' clock; None where passes are all that takes time.
        """
        self._settled.cache_clear()
        self.cost.cache_clear()
        for tier in self._timed:
            self._absent[tier] += 1
            if self._absent[tier] > 1:
                self.costs[tier].fade()
        for one, ms in zip(passes, marginal(passes, began, ended), strict=True):
            if not one.builds:
                self.costs[one.tier].see(one.tokens, ms)
                self._absent[one.tier] = 0
        self.verdicts.see(guesses)
        self.confidence.fade()
        for guess in guesses:
            self.confidence.see(guess.verifier, guess.held, guess.accepted)

    def _expected_ms(self, tier: int, tokens: int) -> float:
        """Milliseconds of a pass of ``tier`` over ``tokens``; arbitrary units before the first."""
        if tier == 0 and self.free_draft:
            return 0.0
        if self.costs[tier].known:
            return self.costs[tier](tokens)
        if tier == 0:
            return _DRAFT_SHARE * min(self.cost(1, 1), self.cost(2, 1))
        other = self.costs[3 - tier]
        return other(tokens) if other.known else 1 + SLOPE * tokens

    def choose(self, room: int, held: Held = ()) -> Plan:
        """The lengths of the next round: the `best`; a draft's guesses go on while it is sure.

        Args:
            room: most tokens that may be guessed now.
            held: for lookup, how likely it holds each token that it would guess now; none where
                it has nothing to say.
        """
        unknown = any(not self.costs[tier].known for tier in self._timed)
        first = self._first(room, held) if room > 0 and unknown else None
        return first or self._open(self._retried(room, held), room, held)

    def _retried(self, room: int, held: Held) -> Plan:
        """The `best`, now and then of those plans that take in a tier long left out."""
        late = [tier for tier in self._timed if self._absent[tier] >= _STALE]
        plans = [plan for plan in self._plans(room, held) if set(late) & set(plan.path)]
        if not plans or late == [2]:
            return self.best(room, held)
        return self._least(plans, room, held)

    def best(self, room: int, held: Held = ()) -> Plan:
        """The lengths with the least expected time per token; arguments as of `choose`."""
        return self._least(self._plans(room, held), room, held)

    def _least(self, plans: Iterable[Plan], room: int, held: Held) -> Plan:
        """The plan of least time per token; of those about as good, one that leaves no small rest.

        Rounds end where a block of KV is packed and where the run does, and what is left there
        takes a round too.
        """
        times = {plan: self.time_per_token(plan, held) for plan in plans}
        best = min(times, key=times.__getitem__)
        whole = [
            plan for plan, ms in times.items() if plan.gamma == room and ms <= _ABOUT * times[best]
        ]
        return min(whole, key=times.__getitem__, default=best)

    def _open(self, plan: Plan, room: int, held: Held) -> Plan:
        """``plan`` with open lengths of a draft's guesses at their longest, and where they end."""
        if self.free_draft or plan.path[0] != 0:
            return plan
        verifier, guess = plan.path[1], self.speculation
        if verifier == 1:
            asked, least, longest = guess.draft_gamma, plan.draft_gamma, guess.longest_draft_gamma
            token = self._middle_token(least, held)
        else:
            asked, least, longest = guess.gamma, plan.gamma, min(guess.longest_gamma, room)
            token = self.time_per_token(plan, held)
        if asked != "auto" or not token:
            return plan
        # kernels have steps, which even a sure guess may not be worth
        longest = max(least, min(range(1, longest + 1), key=partial(self._sure, verifier)))
        place = (self.cost(verifier, longest + 1) - self.cost(verifier, 1)) / longest
        stop = (self.cost(0, 1) + max(0.0, place)) / token
        lengths = (plan.gamma, longest) if verifier == 1 else (longest, 0)
        return Plan(plan.path, *lengths, stop)

    def _sure(self, verifier: int, length: int) -> float:
        """Milliseconds per token of ``length`` guesses that the draft is sure of."""
        ms = length * self.cost(0, 1) + self.cost(verifier, length + 1)
        return ms / _SURELY[length]

    def time_per_token(self, plan: Plan, held: Held = ()) -> float:
        """Expected milliseconds per settled token."""
        top = self.cost(2, plan.gamma + 1)
        if plan.path == (2,):
            return top
        inner = plan.path == (0, 1, 2)
        token = self._middle_token(plan.draft_gamma, held) if inner else self.cost(plan.path[0], 1)
        settled = self._tokens(plan.path[-2], 2, held, plan.gamma)
        return (plan.gamma * token + top) / settled

    def _middle_token(self, draft_gamma: int, held: Held) -> float:
        """Expected milliseconds of one of tier 1's tokens, with tier 0 proposing."""
        inner = draft_gamma * self.cost(0, 1) + self.cost(1, draft_gamma + 1)
        return inner / self._tokens(0, 1, held, draft_gamma)

    def _tokens(self, tier: int, verifier: int, held: Held, gamma: int) -> float:
        """Tokens that ``gamma`` guesses of ``tier`` settle on average."""
        asked = held if tier == 0 and self.free_draft else ()
        return self._settled(tier, verifier, asked)[gamma]

    def _settles(self, tier: int, verifier: int, asked: Held) -> list[float]:
        rates = [self.confidence.kept(verifier, likelihood) for likelihood in asked]
        return expected_tokens(rates or self.verdicts.rates(tier, verifier), self.longest)

    def _guesses(self, held: Held) -> bool:
        """Whether tier 0 has something to say."""
        return self.has_draft and bool(held or not self.free_draft)

    def _plans(self, room: int, held: Held) -> Iterator[Plan]:
        """Every round that the settings leave open and that may be the best."""
        yield Plan((2,), 0, 0)
        guesses, chosen = self._guesses(held), self.speculation.gamma == "auto"
        longest = min(self.speculation.longest_gamma, room)
        if chosen and not self.costs[2].known:
            longest = min(longest, _FIRST_COPY)
        inner = self.speculation.longest_draft_gamma
        if self.speculation.draft_gamma == "auto" and guesses and self.has_middle:
            # tier 1's tokens had at the least cost, however many tier 2 is shown
            inner = min(range(1, inner + 1), key=lambda length: self._middle_token(length, held))
        for gamma in range(1 if chosen else max(1, longest), longest + 1):
            if guesses:
                yield Plan((0, 2), gamma, 0)
            if self.has_middle:
                yield Plan((1, 2), gamma, 0)
            if guesses and self.has_middle:
                yield Plan((0, 1, 2), gamma, inner)

    def _first(self, room: int, held: Held) -> Plan | None:
        """A short round through every tier there is: it measures them all."""
        path = (*((0,) if self._guesses(held) else ()), *((1,) if self.has_middle else ()), 2)
        if len(path) == 1 or (self.free_draft and not self.has_middle):
            return None
        gamma, inner = self.speculation.gamma, self.speculation.draft_gamma
        flat = self.costs[2].slope < SLOPE
        usual = _FIRST_FLAT if flat else (_FIRST_GAMMA, _FIRST_DRAFT_GAMMA)
        gamma = usual[0] if isinstance(gamma, str) else gamma
        inner = usual[1] if isinstance(inner, str) else inner
        return Plan(path, min(room, gamma), inner if len(path) == 3 else 0)
