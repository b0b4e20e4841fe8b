"""A run's tiers: its caches, its readers, and the levels that nest them.

The four methods are nestings of the two classes of `mspeckv.decoding.speculate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

from mspeckv.decoding.fits import USES_GUESSES, USES_TIER1, uses_draft
from mspeckv.decoding.hooks import Accord, Caches, Engine, Hooks
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Level, nest_over
from mspeckv.events import Plan, Step
from mspeckv.kv.chunk_policies import policy
from mspeckv.kv.doors import guessers
from mspeckv.kv.full import FullCache
from mspeckv.kv.layers import Tier
from mspeckv.kv.link import KVLink
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import window_slack
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
        plan: the lengths of every round, unless ``root`` chooses them.
    """

    root: Level
    full: FullCache
    prefilled: list[ModelReader]
    plan: Plan


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
        sampler: draws the tokens; default: a new one.
        accord: with other processes, if there are any.
        lent: gives back, when the run is over, what the engine lends it.
    """
    hooks, speculation = engine.hooks, config.speculation
    sampler = sampler or Sampler(config.sampling)
    # What runs must share to use the same caches, or to take as long; with retrieval's function,
    # since graphs hold on to it while its name may be given to another.
    lengths, chooser = (len(prompt), config.new_tokens), policy(speculation.retrieval)
    key = config.method, config.policy, speculation, chooser, config.graphs, lengths, config.exact
    allocate = partial(_allocate, hooks, pair, config, len(prompt), link)
    if hooks.lend is not None and config.graphs:
        caches = lent.enter_context(hooks.lend(engine, pair, key, link, allocate))
    else:
        engine.give_back()
        caches = allocate()
    products = {
        layer: product for model in pair.models for layer, product in hooks.products(model).items()
    }

    def target(tier: int, step: Step, cache: Tier, gamma: int) -> Seat:
        """The target reading through a cache, with at most ``gamma`` guesses to verify."""
        slots = cache.settled_slots
        return Seat(
            tier, step, pair.target, cache, recorder,
            kernels=hooks.kernels, products=products,
            settled=len(prompt) - 1 if slots is None else slots,
            longest=gamma + 1 if speculation.adaptive else 0, vocab=pair.vocab,
        )  # fmt: skip

    # 1) tier 0: the draft, or a guesser without a model, or nobody
    prefilled: list[ModelReader] = []
    guesser: Level | None = None
    if caches.draft is not None:
        assert pair.draft is not None
        seat = replace(target(0, "draft", caches.draft, 0), model=pair.draft, longest=0)
        if speculation.draft_vocab and hooks.head is not None:
            seat = replace(seat, head=hooks.head(pair.draft, prompt, speculation.draft_vocab))
        prefilled.append(caches.reader(seat))
        guesser = Autoregress(prefilled[0], sampler, speculation.draft_threshold)
    elif config.method in USES_GUESSES and speculation.tier0 not in ("draft", "none"):
        make = guessers.find(speculation.tier0)
        guesser = make(speculation, pair.vocab_size, pair.device)

    # 2) tier 1: the target over a smaller cache, or nobody
    middle: ModelReader | None = None
    if caches.middle is not None:
        step: Step = "verify" if guesser else "draft"
        gamma = speculation.longest_draft_gamma
        middle = caches.reader(target(1, step, caches.middle, gamma))

    # 3) tier 2: the target over everything
    step = "verify" if guesser or middle else "decode"
    seat = target(2, step, caches.full, speculation.longest_gamma)
    looks_on = caches.middle if caches.middle and caches.middle.looks_on else None
    make_top = hooks.exact[config.exact](pair, caches.reader)
    top = make_top(replace(seat, onlooker=looks_on))
    prefilled.append(top)

    # 4) nested, with lengths chosen round by round or fixed
    path = tuple(tier for tier, there in enumerate((guesser, middle, top)) if there)
    if speculation.adaptive and hooks.choose is not None and len(path) > 1:
        # a run learns from a copy of its own: others may be learning too
        costs = deepcopy(engine.pass_costs.get((key, link.gbps)))
        given = speculation, guesser, middle, top, sampler, recorder, costs, accord
        root, costs = hooks.choose(*given)
        lent.callback(engine.pass_costs.__setitem__, (key, link.gbps), costs)
        return Tiers(root, caches.full, prefilled, Plan(path, 0, 0))
    gamma, draft_gamma, below = speculation.longest_gamma, speculation.longest_draft_gamma, guesser
    if middle is not None:
        below = nest_over(below, middle, draft_gamma, sampler, recorder)
    root = nest_over(below, top, gamma, sampler, recorder)
    plan = Plan(path, gamma if below else 0, draft_gamma if len(path) == 3 else 0)
    return Tiers(root, caches.full, prefilled, plan)


def _allocate(hooks: Hooks, pair: Pair, config: RunConfig, prompt: int, link: KVLink) -> Caches:
    """Every cache that the method needs."""
    speculation, device, shape = config.speculation, pair.device, pair.kv_shape
    capacity, slack = prompt + config.new_tokens, window_slack(speculation)
    full = FullCache(shape, config.policy, capacity, link, device, hooks.show, hooks.restore, slack)
    middle: Tier1Cache | None = None
    if config.method in USES_TIER1:
        room = Tier1Room(shape, speculation, prompt - 1, config.new_tokens + 1)
        middle = tier1_caches.find(speculation.tier1)(room, full, device)
    draft = None
    if uses_draft(config, pair):
        assert pair.draft is not None
        own = KVShape.of(pair.draft.config, pair.draft.dtype)
        draft = StreamingCache(own, speculation.sinks, speculation.window, slack, device)
    return Caches(full, middle, draft)
