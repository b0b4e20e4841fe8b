"""A round whose nesting and lengths are chosen as it begins."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

from mspeckv.adaptive.confidence import Chain
from mspeckv.adaptive.costs import Costs, PassCost
from mspeckv.adaptive.lengths import Held, Planner
from mspeckv.adaptive.lookup import Lookup
from mspeckv.decoding.hooks import Accord, Hooks
from mspeckv.decoding.reader import Reader
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Emission, Level, nest_over
from mspeckv.events import Plan
from mspeckv.record import Recorder, span
from mspeckv.settings import Speculation


@dataclass
class Adaptive:
    """The topmost level when a length is ``"auto"``: nests its tiers anew for every round.

    Attributes:
        guesser: tier 0, or None.
        middle: tier 1's reader, or None.
        top: tier 2's reader.
        planner: chooses.
        sampler: draws for every tier.
        recorder: where passes and guesses are read back.
        plan: the last choice.
    """

    guesser: Level | None
    middle: Reader | None
    top: Reader
    planner: Planner
    sampler: Sampler
    recorder: Recorder
    plan: Plan = field(default_factory=lambda: Plan((2,), 0, 0))

    @property
    def tier(self) -> int:
        """The topmost reader's tier."""
        return self.top.tier

    @property
    def costs(self) -> Costs:
        """What passes took, as far as is known."""
        return self.planner.costs

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Choose lengths, run that round, learn from it."""
        with span("plan"):
            room = min(limit - 1, self.top.room(len(prefix)))
            self.plan = self.planner.choose(room, self._held(prefix))
        start = time.perf_counter()
        emission = self._nest(self.plan).round(prefix, limit)
        with span("settle"):
            self.settle(len(prefix) + len(emission.tokens) - 1)
        ms = (time.perf_counter() - start) * 1e3
        # on a GPU, what was measured is known once the device has come by
        with span("record"):
            seen = self.recorder.so_far()
        with span("plan"):
            self.planner.learn(*seen, ms)
        return emission

    def settle(self, length: int) -> None:
        """Forget, at every tier, what was read after ``length`` tokens."""
        self.top.settle(length)
        if self.middle is not None:
            # A middle tier that sat out has been shown what tier 2 read, and now takes it over.
            self.middle.settle(length)
        if self.guesser is not None:
            self.guesser.settle(length)

    def _held(self, prefix: list[int]) -> Held:
        """How likely a lookup holds what it would guess now."""
        if not isinstance(self.guesser, Lookup):
            return ()
        return tuple(self.guesser.guess(prefix, self.planner.longest)[1])

    def _nest(self, plan: Plan) -> Level:
        below: Level | None = self.guesser if 0 in plan.path else None
        if isinstance(below, Autoregress):
            below.chain = Chain(self.planner.confidence, plan.path[1], plan.stop)
        if 1 in plan.path:
            assert self.middle is not None
            below = nest_over(below, self.middle, plan.draft_gamma, self.sampler, self.recorder)
        return nest_over(below, self.top, plan.gamma, self.sampler, self.recorder)


def choose(
    speculation: Speculation,
    guesser: Level | None,
    middle: Reader | None,
    top: Reader,
    sampler: Sampler,
    recorder: Recorder,
    costs: Costs | None,
    accord: Accord | None,
) -> Adaptive:
    """The topmost level of a run; see `mspeckv.decoding.hooks.Choose`."""
    planner = Planner(
        speculation,
        guesser is not None,
        middle is not None,
        isinstance(guesser, Lookup),
        costs if costs is not None else defaultdict(PassCost),
    )
    if accord is not None:
        planner = accord.planner(planner)
    return Adaptive(guesser, middle, top, planner, sampler, recorder)


def plug(hooks: Hooks) -> Hooks:
    """Choose lengths that are left open."""
    return replace(hooks, choose=choose)
