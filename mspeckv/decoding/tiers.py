"""A run's tiers: its caches, its readers, and the levels that nest them.

The four methods are nestings of the two classes of `mspeckv.decoding.speculate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

from mspeckv.decoding.doors import guessers
from mspeckv.decoding.hooks import Accord, Caches, Engine, Lent
from mspeckv.decoding.needs import USES_GUESSES, USES_TIER1, Sizes, uses_draft
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Level, nest_over
from mspeckv.events import Plan, Step
from mspeckv.kv.chunk_policies import policy
from mspeckv.kv.full import FullCache
from mspeckv.kv.layers import Tier
from mspeckv.kv.link import KVLink
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache
from mspeckv.kv.tier1 import Tier1Cache, Tier1Room, tier1_caches
from mspeckv.models.pair import Pair
from mspeckv.record import Recorder
from mspeckv.settings import RunConfig


@dataclass
class Tiers:
    """A run's readers, bottom first, and the level that nests them.

    Attributes:
        root: its rounds are the run's rounds.
        full: tier 2's cache.
        prefilled: readers that read the prompt themselves (tier 1 watches tier 2 instead).
        fixed: the lengths of every round, unless ``root`` chooses them.
    """

    root: Level
    full: FullCache
    prefilled: list[ModelReader]
    fixed: Plan

    @property
    def plan(self) -> Plan:
        """The lengths of the round that was run last."""
        chosen: Plan = getattr(self.root, "plan", self.fixed)
        return chosen


def allocate(engine: Engine, pair: Pair, config: RunConfig, sizes: Sizes, link: KVLink) -> Caches:
    """Every cache that the method needs."""
    speculation, device, shape = config.speculation, pair.device, pair.kv_shape
    full = FullCache(shape, config.policy, sizes.capacity, link, device, engine.hooks.faster)
    middle: Tier1Cache | None = None
    if config.method in USES_TIER1:
        room = Tier1Room(shape, speculation, sizes.prompt - 1, sizes.grown)
        middle = tier1_caches.find(speculation.tier1).of(room, full, device)
    draft = None
    if uses_draft(config, pair):
        assert pair.draft is not None
        own = KVShape.of(pair.draft.config, pair.draft.dtype)
        draft = StreamingCache(own, speculation.sinks, speculation.window, sizes.slack, device)
    return Caches(full, middle, draft)


@contextmanager
def _new(caches: Caches) -> Iterator[Lent]:
    yield Lent(caches, ModelReader)


def build_tiers(
    engine: Engine,
    config: RunConfig,
    pair: Pair,
    prompt: Sequence[int],
    link: KVLink,
    recorder: Recorder,
    sampler: Sampler | None = None,
    accord: Accord | None = None,
    *,
    lent: ExitStack,
) -> Tiers:
    """Allocate the caches of ``config.method`` and nest its levels.

    Args:
        engine: the pair's, with what is plugged in.
        sampler: draws the tokens; default: a new one.
        accord: with other processes, if there are any.
        lent: gives back, when the run is over, what the engine lends it.
    """
    return _Building(engine, config, pair, prompt, link, recorder, lent).tiers(
        sampler or Sampler(config.sampling), accord
    )


@dataclass
class _Building:
    """What the steps of `build_tiers` share."""

    engine: Engine
    config: RunConfig
    pair: Pair
    prompt: Sequence[int]
    link: KVLink
    recorder: Recorder
    lent: ExitStack

    def __post_init__(self) -> None:
        self.sizes = Sizes.of(self.config, len(self.prompt))
        self.key = run_key(self.config, self.sizes)
        self.products = {
            layer: product
            for model in self.pair.models
            for layer, product in self.engine.hooks.products(model).items()
        }
        space = self.lent.enter_context(self._lend())
        self.caches, self.reader = space.caches, space.reader

    def tiers(self, sampler: Sampler, accord: Accord | None) -> Tiers:
        """Guesser, middle and top, nested."""
        prefilled: list[ModelReader] = []
        guesser: Level | None = None
        if self.caches.draft is not None:
            draft = self._bottom(self.caches.draft)
            prefilled.append(draft)
            guesser = Autoregress(draft, sampler, self.config.speculation.draft_threshold)
        else:
            guesser = self._guesser()
        middle = self._middle("verify" if guesser else "draft")
        top = self._top("verify" if guesser or middle else "decode")
        prefilled.append(top)
        root, plan = self._nest(guesser, middle, top, sampler, accord)
        return Tiers(root, self.caches.full, prefilled, plan)

    def _lend(self) -> AbstractContextManager[Lent]:
        def make() -> Caches:
            return allocate(self.engine, self.pair, self.config, self.sizes, self.link)

        lend = self.engine.hooks.lend
        if lend is None or not self.config.graphs:
            self.engine.give_back()
            return _new(make())
        return lend(self.engine, self.pair, self.key, self.link, make)

    def _seat(self, tier: int, step: Step, cache: Tier, longest: int) -> Seat:
        """A reader of the target; ``longest`` are the most guesses that it may verify."""
        return Seat(
            tier,
            step,
            self.pair.target,
            cache,
            self.recorder,
            kernels=self.engine.hooks.kernels,
            products=self.products,
            settled=cache.settled_slots(len(self.prompt) - 1),
            longest=longest + 1 if self.config.speculation.adaptive else 0,
        )

    def _bottom(self, cache: StreamingCache) -> ModelReader:
        """Tier 0: the draft."""
        assert self.pair.draft is not None
        seat = replace(self._seat(0, "draft", cache, 0), model=self.pair.draft, longest=0)
        size, head = self.config.speculation.draft_vocab, self.engine.hooks.head
        if size and head is not None:
            seat = replace(seat, head=head(self.pair.draft, self.prompt, size))
        return self.reader(seat)

    def _guesser(self) -> Level | None:
        """Tier 0 without a model, if there is one."""
        speculation = self.config.speculation
        if self.config.method not in USES_GUESSES or speculation.tier0 in ("draft", "none"):
            return None
        make = guessers.find(speculation.tier0)
        return make(speculation, self.pair.vocab_size, self.pair.device)

    def _middle(self, step: Step) -> ModelReader | None:
        """Tier 1, if there is one."""
        if self.caches.middle is None:
            return None
        longest = self.config.speculation.longest_draft_gamma
        return self.reader(self._seat(1, step, self.caches.middle, longest))

    def _top(self, step: Step) -> ModelReader:
        """Tier 2."""
        seat = self._seat(2, step, self.caches.full, self.config.speculation.longest_gamma)
        middle = self.caches.middle
        return self.reader(replace(seat, onlooker=middle if middle and middle.looks_on else None))

    def _nest(
        self,
        guesser: Level | None,
        middle: ModelReader | None,
        top: ModelReader,
        sampler: Sampler,
        accord: Accord | None,
    ) -> tuple[Level, Plan]:
        """The levels over one another, and the lengths they work with."""
        speculation, recorder, engine = self.config.speculation, self.recorder, self.engine
        path = (*((0,) if guesser else ()), *((1,) if middle else ()), 2)
        if speculation.adaptive and engine.hooks.choose is not None and len(path) > 1:
            key = self.key, self.link.gbps
            # a run learns from a copy of its own: others may be learning too
            costs = deepcopy(engine.pass_costs.get(key))
            chosen = engine.hooks.choose(
                speculation, guesser, middle, top, sampler, recorder, costs, accord
            )
            self.lent.callback(engine.pass_costs.__setitem__, key, chosen.costs)
            return chosen, chosen.plan
        gamma, draft_gamma = speculation.longest_gamma, speculation.longest_draft_gamma
        below = guesser
        if middle is not None:
            below = nest_over(below, middle, draft_gamma, sampler, recorder)
        root = nest_over(below, top, gamma, sampler, recorder)
        return root, Plan(path, gamma if below else 0, draft_gamma if len(path) == 3 else 0)


def run_key(config: RunConfig, sizes: Sizes) -> tuple[object, ...]:
    """What two runs must share to use the same caches, or to take as long."""
    # A name may have been given to another function since: graphs hold on to the old one.
    chooser = policy(config.speculation.retrieval)
    return config.method, config.policy, config.speculation, chooser, config.graphs, sizes
