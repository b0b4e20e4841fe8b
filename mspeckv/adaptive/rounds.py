"""A round whose nesting and lengths are chosen as it begins."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial

from mspeckv.adaptive.estimates import FAR, GPU_SLOPE, SLOPE, Costs, PassCost, steeper
from mspeckv.adaptive.lengths import Held, Planner
from mspeckv.adaptive.lookup import Lookup
from mspeckv.decoding.hooks import Accord, Hooks
from mspeckv.decoding.reader import ModelReader, Reader
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Chain, Emission, Level, nest_over
from mspeckv.events import Plan
from mspeckv.models.experts import growth
from mspeckv.record import Recorder, span
from mspeckv.settings import Speculation


@dataclass
class Adaptive:
    """The topmost level when a length is ``"auto"``: nests its tiers anew for every round.

    Tier 0 is ``guesser``, tiers 1 and 2 are the readers ``middle`` and ``top``; what passes took
    and what was kept is read back from ``recorder``, and ``plan`` is the last choice.
    """

    guesser: Level | None
    middle: Reader | None
    top: Reader
    planner: Planner
    sampler: Sampler
    recorder: Recorder
    plan: Plan = field(default_factory=lambda: Plan((2,), 0, 0))

    tier = 2

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Choose lengths, run that round, learn from it."""
        with span("plan"):
            room = min(limit - 1, self.top.room(len(prefix)))
            held: Held = ()
            if isinstance(self.guesser, Lookup):
                held = tuple(self.guesser.guess(prefix, self.planner.longest)[1])
            self.plan = self.planner.choose(room, held)
        clock = self.recorder.ledger
        began = clock.now()
        emission = self._nest(self.plan).round(prefix, limit)
        with span("settle"):
            self.settle(len(prefix) + len(emission.tokens) - 1)
        ended = clock.now()
        # on a GPU, what was measured is known once the device has come by
        with span("record"):
            seen = self.recorder.so_far()
        with span("plan"):
            self.planner.learn(*seen, began, ended)
        return emission

    def settle(self, length: int) -> None:
        """Forget, at every tier, what was read after ``length`` tokens.

        A middle tier that sat out was shown what tier 2 read, and takes that over.
        """
        for part in (self.top, self.middle, self.guesser):
            if part is not None:
                part.settle(length)

    def _nest(self, plan: Plan) -> Level:
        """The levels of one round."""
        below: Level | None = self.guesser if 0 in plan.path else None
        if isinstance(below, Autoregress):
            below.chain = Chain(partial(self.planner.confidence.kept, plan.path[1]), plan.stop)
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
) -> tuple[Adaptive, Costs]:
    """The topmost level of a run; see `mspeckv.decoding.hooks.Choose`."""
    free = isinstance(guesser, Lookup)
    if costs is None:
        costs = defaultdict(partial(PassCost, _slope(top)))
    planner = Planner(speculation, guesser is not None, middle is not None, free, costs)
    if accord is not None:
        planner = accord.planner(planner)
    return Adaptive(guesser, middle, top, planner, sampler, recorder), planner.costs


def _slope(top: Reader) -> float:
    """What one more token adds to a pass, before any was seen."""
    if not isinstance(top, ModelReader):
        return SLOPE
    slope = GPU_SLOPE if top.model.device.type == "cuda" else SLOPE
    return steeper(slope, growth(top.model, FAR))


def plug(hooks: Hooks) -> Hooks:
    """Choose lengths that are left open."""
    return replace(hooks, choose=choose)
