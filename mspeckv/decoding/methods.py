"""The four methods as nestings of the two level classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList

from mspeckv.config import RunConfig, Speculation
from mspeckv.decoding.adaptive import Adaptive
from mspeckv.decoding.agreement import AgreedPlanner, AgreedSampler, Agreement
from mspeckv.decoding.costs import Costs, PassCost
from mspeckv.decoding.lengths import Planner
from mspeckv.decoding.levels import Autoregress, Level, nest_over
from mspeckv.decoding.lookup import SHORTEST, SHORTEST_CHOSEN, Lookup
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.sizes import USES_GUESSES, Sizes
from mspeckv.decoding.workspace import Workspace, workspace_key
from mspeckv.events import Plan
from mspeckv.kv.cache import FullCache
from mspeckv.kv.link import KVLink
from mspeckv.models import Pair


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
        return self.root.plan if isinstance(self.root, Adaptive) else self.fixed


def sampler_of(
    config: RunConfig,
    processors: LogitsProcessorList | None = None,
    agreement: Agreement | None = None,
) -> Sampler:
    """What draws a run's tokens; see `Sampler`."""
    if agreement is None:
        return Sampler(config.sampling, processors)
    return AgreedSampler(config.sampling, processors, agreement)


def build_tiers(
    config: RunConfig,
    pair: Pair,
    prompt: Sequence[int],
    link: KVLink,
    recorder: Recorder,
    sampler: Sampler | None = None,
    agreement: Agreement | None = None,
    *,
    lent: ExitStack,
) -> Tiers:
    """Allocate the caches of ``config.method`` and nest its levels.

    Args:
        sampler: draws the tokens; default: a new one.
        agreement: with the other ranks, if there are any.
        lent: gives back, when the run is over, what the pair lends it.
    """
    speculation, sampler = config.speculation, sampler or sampler_of(config, agreement=agreement)
    sizes = Sizes.of(config, len(prompt))
    space = lent.enter_context(Workspace.lent(config, pair, sizes, link))
    guesser: Level | None = None
    prefilled: list[ModelReader] = []
    if space.draft is not None:
        draft = space.bottom(config, pair, prompt, recorder)
        prefilled.append(draft)
        guesser = Autoregress(draft, sampler, speculation.draft_threshold)
    elif config.method in USES_GUESSES and speculation.tier0 == "lookup":
        shortest = SHORTEST_CHOSEN if speculation.gamma == "auto" else SHORTEST
        like = torch.empty(0, dtype=torch.float32, device=pair.device)
        guesser = Lookup(pair.vocab_size, like, shortest)
    middle = space.between(pair, "verify" if guesser else "draft", recorder)
    top = space.top(pair, "verify" if guesser or middle else "decode", recorder)
    prefilled.append(top)
    costs: Costs = defaultdict(PassCost)
    if speculation.adaptive:
        key = workspace_key(config, sizes), link.gbps
        # a run learns from a copy of its own: others may be learning too
        costs = deepcopy(pair.pass_costs.get(key, costs))
        lent.callback(pair.pass_costs.__setitem__, key, costs)
    root, plan = _nest(speculation, guesser, middle, top, sampler, recorder, costs, agreement)
    return Tiers(root, space.full, prefilled, plan)


def _nest(
    speculation: Speculation,
    guesser: Level | None,
    middle: ModelReader | None,
    top: ModelReader,
    sampler: Sampler,
    recorder: Recorder,
    costs: Costs,
    agreement: Agreement | None,
) -> tuple[Level, Plan]:
    """The levels over one another, and the lengths they work with."""
    path = (*((0,) if guesser else ()), *((1,) if middle else ()), 2)
    if speculation.adaptive and len(path) > 1:
        there = guesser is not None, middle is not None, isinstance(guesser, Lookup)
        planner = Planner(speculation, *there, costs)
        if agreement is not None:
            planner = AgreedPlanner(speculation, *there, costs, agreement)
        adaptive = Adaptive(guesser, middle, top, planner, sampler, recorder)
        return adaptive, adaptive.plan
    gamma, draft_gamma = speculation.longest_gamma, speculation.longest_draft_gamma
    below = guesser
    if middle is not None:
        below = nest_over(below, middle, draft_gamma, sampler, recorder)
    root = nest_over(below, top, gamma, sampler, recorder)
    return root, Plan(path, gamma if below else 0, draft_gamma if len(path) == 3 else 0)
