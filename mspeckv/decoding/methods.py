"""The four methods as nestings of the two level classes, and the caches each needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from mspeckv.attention import Watcher
from mspeckv.config import RunConfig, refuse
from mspeckv.decoding.levels import Autoregress, Level, Speculate
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler
from mspeckv.events import Step
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.plan import CacheSizes, full_sizes, retrieval_bytes, streaming_bytes
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache, streaming_slots
from mspeckv.models import Pair

USES_DRAFT = frozenset({"vanilla", "triforce", "mspeckv"})
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
        slack = _WINDOW_SLACK + config.speculation.gamma + config.speculation.draft_gamma
        return cls(prompt, prompt + config.new_tokens, slack)


def check_method(config: RunConfig, pair: Pair) -> None:
    """Refuse a method that this pair cannot run.

    Raises:
        ValueError: vanilla without a draft.
    """
    if config.method == "vanilla" and pair.draft is None:
        raise refuse("method", "vanilla", "this pair has no draft: use another method, or a draft")


def predict_sizes(config: RunConfig, pair: Pair, prompt: int) -> CacheSizes:
    """Bytes of every cache of a run, before any is allocated."""
    sizes, speculation = Sizes.of(config, prompt), config.speculation
    shape = KVShape.of(pair.target.config, pair.dtype)
    out = full_sizes(shape, config.policy, sizes.capacity)
    if config.method in USES_TIER1 and speculation.tier1 == "retrieval":
        grown = sizes.capacity - prompt + 1
        out = replace(out, retrieval=retrieval_bytes(shape, speculation, prompt - 1, grown))
    if config.method in USES_DRAFT and pair.draft is not None:
        slots = streaming_slots(speculation.sinks, speculation.window, sizes.slack)
        draft_shape = KVShape.of(pair.draft.config, pair.dtype)
        out = replace(out, streaming=streaming_bytes(draft_shape, slots))
    return out


@dataclass
class Tiers:
    """A run's readers, bottom first, and the level that nests them.

    Attributes:
        root: its rounds are the run's rounds.
        full: tier 2's cache.
        prefilled: readers that read the prompt themselves (tier 1 watches tier 2 instead).
    """

    root: Level
    full: FullCache
    prefilled: list[ModelReader]


def build_tiers(
    config: RunConfig, pair: Pair, prompt: int, link: CopyEngine, recorder: Recorder
) -> Tiers:
    """Allocate the caches of ``config.method`` and nest its levels."""
    sizes, speculation = Sizes.of(config, prompt), config.speculation
    device, sampler = pair.target.device, Sampler(config.sampling)
    shape = KVShape.of(pair.target.config, pair.dtype)
    full = FullCache(shape, config.policy, sizes.capacity, link, device)
    root: Level | None = None
    prefilled: list[ModelReader] = []
    if config.method in USES_DRAFT and pair.draft is not None:
        draft = _draft_reader(config, sizes, pair.draft, device, recorder)
        prefilled.append(draft)
        root = Autoregress(draft, sampler)
    watcher: Watcher | None = None
    if config.method in USES_TIER1:
        cache: RetrievalCache | CoarseCache
        if speculation.tier1 == "nibble":
            cache = CoarseCache(full)
        else:
            grown = sizes.capacity - prompt + 1
            cache = RetrievalCache(shape, speculation, prompt - 1, grown, device)
            watcher = cache.watch
        step: Step = "verify" if root else "draft"
        middle = ModelReader(1, step, pair.target, cache, recorder)
        root = _over(root, middle, speculation.draft_gamma, sampler, recorder)
    top = ModelReader(2, "verify" if root else "decode", pair.target, full, recorder, watcher)
    prefilled.append(top)
    return Tiers(_over(root, top, speculation.gamma, sampler, recorder), full, prefilled)


def _over(
    below: Level | None, reader: ModelReader, gamma: int, sampler: Sampler, recorder: Recorder
) -> Level:
    """``reader`` verifying ``below``, or decoding alone where nothing is below it."""
    if below is None:
        return Autoregress(reader, sampler)
    return Speculate(below, reader, gamma, sampler, recorder)


def _draft_reader(
    config: RunConfig,
    sizes: Sizes,
    draft: PreTrainedModel,
    device: torch.device,
    recorder: Recorder,
) -> ModelReader:
    speculation = config.speculation
    shape = KVShape.of(draft.config, draft.dtype)
    cache = StreamingCache(shape, speculation.sinks, speculation.window, sizes.slack, device)
    return ModelReader(0, "draft", draft, cache, recorder)
