"""The four methods as nestings of the two level classes, and the caches each needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import LogitsProcessorList

from mspeckv.attention import Watcher
from mspeckv.config import RunConfig, Speculation, refuse
from mspeckv.decoding.adaptive import Adaptive, Planner
from mspeckv.decoding.levels import Autoregress, Level, nest_over
from mspeckv.decoding.lookup import Lookup
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.shortlist import Shortlist, shortlist_tokens
from mspeckv.events import Plan, Step
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.plan import CacheSizes, full_sizes, retrieval_bytes, streaming_bytes
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache, streaming_slots
from mspeckv.models import Pair

USES_GUESSES = frozenset({"vanilla", "triforce", "mspeckv"})
USES_TIER1 = frozenset({"triforce", "mspeckv"})
_WINDOW_SLACK = 64
"""Tokens between two slides of the draft's window."""


@dataclass(frozen=True)
class Sizes:
    """Token counts of a run, known before it starts.

    Attributes:
        prompt: prompt tokens; all but the last are read by prefill.
        capacity: most tokens tier 2 can come to hold.
        slack: tokens tier 0 can append between two slides.
    """

    prompt: int
    capacity: int
    slack: int

    @classmethod
    def of(cls, config: RunConfig, prompt: int) -> Sizes:
        """Guesses never reach past the last wanted token, so it bounds every cache."""
        guess = config.speculation
        slack = _WINDOW_SLACK + guess.longest_gamma + guess.longest_draft_gamma
        return cls(prompt, prompt + config.new_tokens, slack)


def check_method(config: RunConfig, pair: Pair) -> None:
    """Refuse a method that this pair cannot run.

    Raises:
        ValueError: vanilla without a tier 0; a shortlist longer than the vocabulary.
    """
    speculation = config.speculation
    if config.method == "vanilla" and not (
        uses_draft(config, pair) or speculation.tier0 == "lookup"
    ):
        raise refuse(
            "method",
            "vanilla",
            "this pair has no draft: use another method, a draft, or tier0='lookup'",
        )
    if speculation.draft_vocab > pair.vocab_size:
        raise refuse(
            "draft_vocab", speculation.draft_vocab, f"there are {pair.vocab_size} tokens; 0 is all"
        )


def uses_draft(config: RunConfig, pair: Pair) -> bool:
    """Whether the pair's draft guesses in this run."""
    wanted = config.method in USES_GUESSES and config.speculation.tier0 == "draft"
    return wanted and pair.draft is not None


def predict_sizes(config: RunConfig, pair: Pair, prompt: int) -> CacheSizes:
    """Bytes of every cache of a run, before any is allocated."""
    sizes, speculation = Sizes.of(config, prompt), config.speculation
    shape = KVShape.of(pair.target.config, pair.dtype)
    out = full_sizes(shape, config.policy, sizes.capacity)
    if config.method in USES_TIER1 and speculation.tier1 == "retrieval":
        grown = sizes.capacity - prompt + 1
        out = replace(out, retrieval=retrieval_bytes(shape, speculation, prompt - 1, grown))
    if uses_draft(config, pair):
        assert pair.draft is not None
        slots = streaming_slots(speculation.sinks, speculation.window, sizes.slack)
        draft_shape = KVShape.of(pair.draft.config, pair.dtype)
        head = pair.draft.get_output_embeddings().weight
        short = speculation.draft_vocab * head.shape[1] * head.element_size()
        out = replace(out, streaming=streaming_bytes(draft_shape, slots) + short)
    return out


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


def build_tiers(
    config: RunConfig,
    pair: Pair,
    prompt: Sequence[int],
    link: CopyEngine,
    recorder: Recorder,
    processors: LogitsProcessorList | None = None,
) -> Tiers:
    """Allocate the caches of ``config.method`` and nest its levels.

    Args:
        processors: see `Sampler`.
    """
    sizes, speculation = Sizes.of(config, len(prompt)), config.speculation
    device, sampler = pair.target.device, Sampler(config.sampling, processors)
    shape = KVShape.of(pair.target.config, pair.dtype)
    full = FullCache(shape, config.policy, sizes.capacity, link, device)
    guesser: Level | None = None
    prefilled: list[ModelReader] = []
    if uses_draft(config, pair):
        draft = _draft_reader(config, sizes, pair, prompt, recorder)
        prefilled.append(draft)
        guesser = Autoregress(draft, sampler, speculation.draft_threshold)
    elif config.method in USES_GUESSES and speculation.tier0 == "lookup":
        guesser = Lookup(pair.vocab_size, torch.empty(0, device=device))
    middle: ModelReader | None = None
    watcher: Watcher | None = None
    if config.method in USES_TIER1:
        cache: RetrievalCache | CoarseCache
        if speculation.tier1 == "nibble":
            cache = CoarseCache(full)
        else:
            grown = sizes.capacity - len(prompt) + 1
            cache = RetrievalCache(shape, speculation, len(prompt) - 1, grown, device)
            watcher = cache.watch
        step: Step = "verify" if guesser else "draft"
        middle = ModelReader(1, step, pair.target, cache, recorder)
    step = "verify" if guesser or middle else "decode"
    top = ModelReader(2, step, pair.target, full, recorder, watcher)
    prefilled.append(top)
    root, plan = _nest(speculation, guesser, middle, top, sampler, recorder)
    return Tiers(root, full, prefilled, plan)


def _nest(
    speculation: Speculation,
    guesser: Level | None,
    middle: ModelReader | None,
    top: ModelReader,
    sampler: Sampler,
    recorder: Recorder,
) -> tuple[Level, Plan]:
    """The levels over one another, and the lengths they work with."""
    path = (*((0,) if guesser else ()), *((1,) if middle else ()), 2)
    if speculation.adaptive and len(path) > 1:
        free = isinstance(guesser, Lookup)
        planner = Planner(speculation, guesser is not None, middle is not None, free)
        adaptive = Adaptive(guesser, middle, top, planner, sampler, recorder)
        return adaptive, adaptive.plan
    gamma, draft_gamma = speculation.longest_gamma, speculation.longest_draft_gamma
    below = guesser
    if middle is not None:
        below = nest_over(below, middle, draft_gamma, sampler, recorder)
    root = nest_over(below, top, gamma, sampler, recorder)
    return root, Plan(path, gamma if below else 0, draft_gamma if len(path) == 3 else 0)


def _draft_reader(
    config: RunConfig, sizes: Sizes, pair: Pair, prompt: Sequence[int], recorder: Recorder
) -> ModelReader:
    speculation, draft = config.speculation, pair.draft
    assert draft is not None
    shape = KVShape.of(draft.config, draft.dtype)
    cache = StreamingCache(shape, speculation.sinks, speculation.window, sizes.slack, pair.device)
    shortlist = None
    if speculation.draft_vocab:
        chosen = shortlist_tokens(prompt, pair.vocab_size, speculation.draft_vocab)
        shortlist = Shortlist(draft, chosen)
    return ModelReader(0, "draft", draft, cache, recorder, shortlist=shortlist)
