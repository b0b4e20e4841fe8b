"""What a run will need, from its settings alone: token counts, and bytes of every cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mspeckv.decoding.doors import guessers
from mspeckv.decoding.hooks import Hooks
from mspeckv.kv.chunk_policies import policy
from mspeckv.kv.codec import codec_of
from mspeckv.kv.placement import place_of
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import CacheSizes, full_sizes, streaming_bytes
from mspeckv.kv.streaming import streaming_slots
from mspeckv.kv.tier1 import Tier1Room, tier1_caches
from mspeckv.models.pair import Pair
from mspeckv.settings import RunConfig, refuse

USES_GUESSES = frozenset({"vanilla", "triforce", "mspeckv"})
USES_TIER1 = frozenset({"triforce", "mspeckv"})
WINDOW_SLACK = 64
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
        slack = WINDOW_SLACK + guess.longest_gamma + guess.longest_draft_gamma
        return cls(prompt, prompt + config.new_tokens, slack)

    @property
    def grown(self) -> int:
        """Most tokens that tier 1 can come to hold beside its choice of the prompt."""
        return self.capacity - self.prompt + 1


def check_method(hooks: Hooks, config: RunConfig, pair: Pair) -> None:
    """Refuse a method that this pair cannot run, or settings that nothing plugged in serves.

    Raises:
        ValueError: vanilla without a tier 0; a shortlist longer than the vocabulary; a tier, a
            placement or a policy that there is not.
    """
    speculation = config.speculation
    if speculation.tier0 not in ("draft", "none"):
        guessers.find(speculation.tier0)
    tier1_caches.find(speculation.tier1)
    policy(speculation.retrieval)
    codec_of(pair.kv_shape, config.policy)
    place_of(config.policy, "offloaded")
    alone = speculation.tier0 in ("draft", "none") and not uses_draft(config, pair)
    if config.method == "vanilla" and alone:
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


def predict_sizes(hooks: Hooks, config: RunConfig, pair: Pair, prompt: int) -> CacheSizes:
    """Bytes of every cache of a run, before any is allocated."""
    sizes, speculation = Sizes.of(config, prompt), config.speculation
    shape = pair.kv_shape
    out = full_sizes(shape, config.policy, sizes.capacity)
    if config.method in USES_TIER1:
        room = Tier1Room(shape, speculation, prompt - 1, sizes.grown)
        on_device, on_host = tier1_caches.find(speculation.tier1).sizes(room)
        out = replace(out, retrieval=on_device, chunks=on_host)
    if uses_draft(config, pair):
        assert pair.draft is not None
        slots = streaming_slots(speculation.sinks, speculation.window, sizes.slack)
        draft_shape = KVShape.of(pair.draft.config, pair.dtype)
        short = hooks.head_bytes(pair.draft, speculation.draft_vocab)
        out = replace(out, streaming=streaming_bytes(draft_shape, slots) + short)
    return out
