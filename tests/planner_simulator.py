"""Rounds played from recorded passes and acceptances, so that a planner is judged without a GPU.

`planner_rounds.json` holds, of an H200 and of two CPU cores, what passes of each tier take, with
what comes after them until the next begins, and along decoded texts the chance that one tier keeps
another's guess at each place (`benchmarks.lengths_record`). Where a cell names ``of``, some times
are fitted to the passes of a table in benchmarks/results; nibble and int8, 8 + 8, borrow the texts
of int8, 16 + 16. A played round does what the engine's does: chains that end, passes over what a
tier has not read yet, widths that share a graph, two passes that build each graph, rounds that end
where a block is packed, and packing it.

What a tier guesses after a guess that will be rejected was not recorded; what stands at that place
of the text is taken for it.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from mspeckv import Speculation
from mspeckv.accelerate.static_passes import width_of
from mspeckv.adaptive.estimates import Costs
from mspeckv.adaptive.lengths import Held, Planner
from mspeckv.decoding.speculate import Chain
from mspeckv.events import Guess, Pass, Plan

FIXED = ((2, 2), (4, 3), (8, 3), (16, 3), (24, 3))
AUTO = Speculation(gamma="auto", draft_gamma="auto")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_BLOCK, _TAIL = 64, 32
_JITTER = 0.02
"""A pass takes so much more or less, as recorded ones did."""


@cache
def recorded() -> dict[str, Any]:
    """The file's contents."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("planner_rounds.json").read_text())
    return found


@dataclass(frozen=True)
class Setting:
    """A cell's machine and text.

    Attributes:
        cell: name of pass times.
        text: name of a text with its acceptances.
        tiers: who takes part.
        lookup: whether tier 0 is one.
    """

    cell: str
    text: str
    tiers: tuple[int, ...] = (0, 1, 2)
    lookup: bool = False

    @property
    def name(self) -> str:
        """For a test's report."""
        tier0 = "lookup" if self.lookup else "draft"
        return f"{self.cell}; {self.text}" + ("" if 1 in self.tiers else f"; {tier0} alone")


def settings() -> list[Setting]:
    """Every cell on every text of its context; on a CPU tier 0 alone too."""
    out = []
    for cell, given in recorded()["cells"].items():
        for text in given["texts"]:
            out.append(Setting(cell, text))
            if given["machine"] == "cpu":
                out.append(Setting(cell, text, (0, 2)))
                if "lookup" in recorded()["texts"][text]:
                    out.append(Setting(cell, text, (0, 2), lookup=True))
    return out


@dataclass
class Game:
    """A run over a recorded text.

    Args:
        setting: what is played.
        seed: of jitter, of where in the text it begins, and of verdicts where text is drawn.
        shared: whether rare widths go by the widest graph, as where lengths are chosen.
        built: graphs captured so far, by tier and width, with how often they ran.
    """

    setting: Setting
    seed: int
    shared: bool
    built: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = recorded()
        self.times, self.rows = given["cells"][self.setting.cell], given["texts"][self.setting.text]
        self.dice = random.Random(self.seed)
        self.now = 0.0
        self.place, self.packed = self.times["prompt"], 0
        self.read = {0: self.place - 1, 1: self.place - 1, 2: self.place - 1}
        self.passes: list[Pass] = []
        self.guesses: list[Guess] = []

    def run(self, way: tuple[int, int] | Planner, tokens: int) -> float:
        """Milliseconds per token of a way: fixed lengths, or a planner's."""
        start, end = self.place, self.place + tokens
        self.packed = self._packed(self.place)
        while self.place < end:
            room = min(end - self.place - 1, _BLOCK + _TAIL - (self.place - self.packed))
            began = self.now
            self.passes, self.guesses = [], []
            if isinstance(way, Planner):
                plan = way.choose(room, self._held())
                chain = None
                if len(plan.path) > 1:
                    chain = Chain(partial(way.confidence.kept, plan.path[1]), plan.stop)
            else:
                gamma, inner = way
                path = self.setting.tiers if not self.setting.lookup or self._held() else (2,)
                plan, chain = Plan(path, min(gamma, room), inner), None
            self.now += self.times["before"] / 1e3
            self._round(plan, chain)
            if isinstance(way, Planner):
                way.learn(self.passes, self.guesses, began, self.now)
        return float(self.now * 1e3 / (self.place - start))

    def _round(self, plan: Plan, chain: Chain | None) -> None:
        """Tier 2's verification, and the guessing before it."""
        text, held = self.place, [0.0] * 0
        if plan.path == (2,):
            tokens = 0
        elif plan.path[-2] == 1:
            tokens = self._middle(plan, chain)
        elif self.setting.lookup:
            held = list(self._held()[: plan.gamma])
            tokens = len(held)
        else:
            held = self._drafts(text, plan.gamma, chain)
            tokens = len(held)
        self._pass(2, text + tokens)
        edge = "12" if plan.path[-2:] == (1, 2) else "02"
        kept = self._kept(edge, text, tokens)
        if tokens:
            self._test(plan.path[-2], 2, tokens, kept, held)
        self.place += kept + 1
        for tier in (0, 1, 2):
            self.read[tier] = min(self.read[tier], self.place - 1)
        # what tier 2 read, tier 1 takes over
        self.read[1] = max(self.read[1], min(self.read[2], self.place - 1))
        if self._packed(self.place - 1) > self.packed and self.times["packs"]:
            self.packed = self._packed(self.place - 1)
            self.now += self.times["packing"] / 1e3

    def _middle(self, plan: Plan, chain: Chain | None) -> int:
        """Tier 1's tokens."""
        tokens = 0
        while tokens < plan.gamma:
            text = self.place + tokens
            count = min(plan.draft_gamma, plan.gamma - tokens - 1) if 0 in plan.path else 0
            held = self._drafts(text, count, chain)
            self._pass(1, text + len(held))
            kept = self._kept("01", text, len(held))
            if 0 in plan.path:
                self._test(0, 1, len(held), kept, held)
            tokens += kept + 1
            self.read[1] = self.place + tokens - 1
            self.read[0] = min(self.read[0], self.read[1])
        return tokens

    def _drafts(self, text: int, count: int, chain: Chain | None) -> list[float]:
        """Tier 0's guesses: how likely it holds each."""
        held: list[float] = []
        if chain is not None:
            chain.whole = 1.0
        while len(held) < count:
            self._pass(0, text + len(held))
            held.append(self._row("held", text + len(held)))
            if chain is not None and chain.ends_with(held[-1]):
                break
        return held

    def _pass(self, tier: int, end: int) -> None:
        """A pass over what the tier has not read."""
        tokens = max(1, end - self.read[tier])
        self.read[tier] = end
        if tier == 0:
            # a draft that was left out for long begins anew, which takes about as long
            tokens = min(tokens, 4)
        table, longest = self.times["passes"][str(tier)], (0, 8, 32)[tier]
        width, builds, extra = tokens, False, 0.0
        if self.times["graphs"]:
            width = width_of(tokens)
            if self.shared:
                # where codes are read, as far as a kernel gains by it
                narrow = self.times.get("narrow", 0) if tier == 2 else 0
                width = narrow if width <= narrow else max(width, longest)
            ran = self.built.get((tier, width), 0)
            self.built[tier, width] = ran + 1
            if builds := ran < 2:
                extra = self.times["building"][str(tier)][ran]
        factor = 1 + _JITTER * self.dice.gauss(0, 1)
        ms = between(table, width) * factor + extra
        whole = ms + self.times["after"][tier][0] + tokens * self.times["after"][tier][1]
        self.passes.append(Pass(tier, "verify", tokens, 0, self.now, ms, builds=builds))
        self.now += whole / 1e3

    def _test(self, tier: int, verifier: int, count: int, kept: int, held: list[float]) -> None:
        told = tuple(held) if tier == 0 else ()
        self.guesses.append(Guess(tier, verifier, (0,) * count, kept, 0, told))

    def _kept(self, edge: str, text: int, count: int) -> int:
        """How many of the guesses from ``text`` on are kept."""
        if self.setting.lookup and edge == "02":
            right = self.rows["lookup"][self._at(text, len(self.rows["lookup"]))][0]
            return int(min(count, right))
        kept = 0
        # luck hangs on the place alone, so that every way meets the same
        while kept < count and self._luck(edge, text + kept) < self._row(edge, text + kept):
            kept += 1
        return kept

    def _luck(self, edge: str, place: int) -> float:
        return random.Random(f"{self.seed} {edge} {place}").random()

    def _row(self, what: str, place: int) -> float:
        found = self.rows[what]
        return _DIGITS.index(found[self._at(place, len(found))]) / 35

    def _at(self, place: int, length: int) -> int:
        """Where a text of so many places is read: every seed begins elsewhere in it."""
        return int(place - self.times["prompt"] + 23 * self.seed) % length

    def _held(self) -> Held:
        """What a lookup has to say."""
        if not self.setting.lookup:
            return ()
        rows = self.rows["lookup"]
        return tuple(_DIGITS.index(one) / 35 for one in rows[self._at(self.place, len(rows))][1])

    def _packed(self, length: int) -> int:
        """Tokens in finished blocks, where layers are packed."""
        return (length - _TAIL) // _BLOCK * _BLOCK if self.times["packs"] else self.place


def between(table: dict[str, float], tokens: int) -> float:
    """Milliseconds by a table of some widths: linear between them."""
    places = sorted(map(int, table))
    if tokens <= places[0]:
        return table[str(places[0])]
    for low, high in itertools.pairwise(places):
        if tokens <= high:
            share = (tokens - low) / (high - low)
            return (1 - share) * table[str(low)] + share * table[str(high)]
    return table[str(places[-1])] * tokens / places[-1]


def planner_of(
    setting: Setting, costs: Costs | None = None, kind: type[Planner] = Planner
) -> Planner:
    """A planner for a setting."""
    return kind(AUTO, True, 1 in setting.tiers, setting.lookup, costs)
