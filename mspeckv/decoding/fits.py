"""What a run needs, whether it can work and whether it fits, known before anything is allocated.

Cache sizes come from shapes and are exact (`mspeckv.kv.sizes`); the prefill's working memory is an
estimate from the model's widths. Everything here is *modelled*, but for what is free, which is
asked of the system.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from mspeckv.decoding.hooks import Engine
from mspeckv.decoding.reader import ModelReader
from mspeckv.kv.chunk_policies import policy
from mspeckv.kv.codec import codec_of
from mspeckv.kv.doors import guessers
from mspeckv.kv.placement import place_of
from mspeckv.kv.recurrent import reach_of, states_held
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import CacheSizes, full_sizes, streaming_bytes, window_slack
from mspeckv.kv.streaming import streaming_slots
from mspeckv.kv.tier1 import Tier1Room, tier1_caches
from mspeckv.models.checks import check_lengths
from mspeckv.models.pair import Pair
from mspeckv.models.text import check_ids
from mspeckv.models.widths import layer_widths, prefill_workspace
from mspeckv.settings import RunConfig, check_choice, check_kind, refuse

USES_GUESSES = frozenset({"vanilla", "triforce", "mspeckv"})
USES_TIER1 = frozenset({"triforce", "mspeckv"})
RUNTIME_BYTES = 65_000_000
"""What thread pools, kernels and a fragmented heap take on a CPU: 20 to 110 MB, run by run."""


def uses_draft(config: RunConfig, pair: Pair) -> bool:
    """Whether the pair's draft guesses in this run."""
    wanted = config.method in USES_GUESSES and config.speculation.tier0 == "draft"
    return wanted and pair.draft is not None


@dataclass(frozen=True, kw_only=True)
class Prediction(CacheSizes):
    """Bytes a run needs at its peak: every tier's caches, and what is not a cache.

    Attributes:
        weights: both models', shared tensors once, with a CPU's ordered copies of them.
        head: of the draft, a copy of the part that scores.
        workspace: activations of the prefill pass.
        runtime: the libraries' own.
    """

    weights: int
    workspace: int
    runtime: int
    head: int = 0


def predict(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> Prediction:
    """What a run over ``prompt`` tokens needs."""
    speculation, hooks = config.speculation, engine.hooks
    shape, size, widths = pair.kv_shape, pair.dtype.itemsize, layer_widths(pair.target.config)
    head, vocab = 0, speculation.draft_vocab
    # guesses never reach past the last wanted token, so it bounds every cache
    slack = window_slack(speculation)
    caches = full_sizes(shape, config.policy, prompt + config.new_tokens, slack)
    if config.method in USES_TIER1:
        room = Tier1Room(shape, speculation, prompt - 1, config.new_tokens + 1)
        on_device, on_host = tier1_caches.find(speculation.tier1).sizes(room)
        caches = replace(caches, retrieval=on_device, chunks=on_host)
    if uses_draft(config, pair):
        assert pair.draft is not None
        slots = streaming_slots(speculation.sinks, speculation.window, slack)
        seen = streaming_bytes(KVShape.of(pair.draft.config, pair.dtype), slots)
        head, caches = hooks.head_bytes(pair.draft, vocab), replace(caches, streaming=seen)
    caches = replace(caches, states=_state_bytes(pair, config, reach_of(slack)))
    return Prediction(
        **vars(caches),
        head=head,
        weights=pair.weight_bytes + hooks.copy_bytes(pair.models),
        workspace=prefill_workspace(widths, size, prompt, pair.rank_count),
        runtime=RUNTIME_BYTES if pair.device.type == "cpu" else 0,
    )


def _state_bytes(pair: Pair, config: RunConfig, reach: int) -> int:
    """Bytes of recurrent states and their copies in every tier; guesses have that ``reach``."""
    guessing = states_held(reach)
    held = {
        "target": states_held(0) + guessing * (config.method in USES_TIER1),
        "draft": guessing * uses_draft(config, pair),
    }
    return sum(held[name] * size for name, size in pair.state_bytes.items())


def check_memory(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that does not fit, naming the largest setting that would.

    Raises:
        ValueError: ``device_gb``, the device's free memory or the host's is exceeded.
    """
    shortage = _shortage(engine, pair, config, prompt)
    if shortage is None:
        return
    what, needed, there = shortage

    def fits(tokens: int = prompt, **changes: Any) -> bool:
        run = replace(config, policy=replace(config.policy, **changes))
        return _shortage(engine, pair, run, tokens) is None

    largest = {
        "prompt tokens": _largest(fits, 2, prompt),
        "on-chip layers": _largest(lambda n: fits(on_chip=n), 0, config.policy.on_chip),
        "resident layers": _largest(lambda n: fits(resident=n), 0, config.policy.resident),
    }
    ways = [f"{most} {name}" for name, most in largest.items() if most is not None]
    advice = f"use at most {', or '.join(ways)}" if ways else "no prompt, however short, fits"
    raise refuse(what, f"{needed / 1e9:.3g} GB", f"there are {there / 1e9:.3g} GB: {advice}")


def _shortage(
    engine: Engine, pair: Pair, config: RunConfig, prompt: int
) -> tuple[str, int, int] | None:
    """The first limit that a run exceeds: its name, the bytes needed, the bytes there."""
    need = predict(engine, pair, config, prompt)
    if config.device_gb is not None and need.device > config.device_gb * 1e9:
        return "device memory", need.device, int(config.device_gb * 1e9)
    host = int(psutil.virtual_memory().available) // (pair.ranks.here if pair.ranks else 1)
    # the weights are loaded already
    own = need.device - need.weights
    if pair.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(pair.device)
        free += torch.cuda.memory_reserved(pair.device) - torch.cuda.memory_allocated(pair.device)
        # used again, or given back before the run allocates its own
        on_host, on_device = engine.hooks.spare(engine)
        host, free = host + on_host, free + on_device
        if own > free:
            return "device memory", own, free
        own = 0
    if own + need.host > host:
        return "memory", own + need.host, host
    return None


def _largest(fits: Callable[[int], bool], least: int, beyond: int) -> int | None:
    """The largest n in ``[least, beyond)`` that fits, if any; needs grow with n."""
    fitting = bisect_left(range(least, beyond), True, key=lambda n: not fits(n))
    return least + fitting - 1 if fitting else None


def check_run(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that cannot work, before anything is allocated.

    Raises:
        ValueError: placement, length or method do not fit the pair, or the run the memory.
    """
    check_kind("config", config, RunConfig)
    config.policy.check_layers(pair.layers)
    check_choice("exact", config.exact, tuple(engine.hooks.exact))
    engine.hooks.exact[config.exact](pair, ModelReader)  # refuses a pair that it cannot read
    _check_method(config, pair)
    check_ids("stop_tokens", config.sampling.stop_tokens, pair)
    if config.sampling.stop_strings and pair.tokenizer is None:
        raise refuse("stop_strings", config.sampling.stop_strings, "this pair has no tokenizer")
    if prompt + config.new_tokens > pair.max_positions:
        left = max(0, pair.max_positions - config.new_tokens)
        allowed = f"the target has {pair.max_positions} positions: use at most {left} prompt tokens"
        raise refuse("prompt + new_tokens", f"{prompt} + {config.new_tokens}", allowed)
    check_lengths(pair.target.config, "target", prompt, config.new_tokens)
    if uses_draft(config, pair):
        assert pair.draft is not None
        check_lengths(pair.draft.config, "draft", prompt, config.new_tokens)
    check_memory(engine, pair, config, prompt)


def _check_method(config: RunConfig, pair: Pair) -> None:
    """Refuse a method that this pair cannot run, and names that no door knows."""
    speculation = config.speculation
    if speculation.tier0 not in ("draft", "none"):
        guessers.find(speculation.tier0)
    tier1_caches.find(speculation.tier1)
    policy(speculation.retrieval)
    place_of(config.policy, "offloaded")
    codec_of(pair.kv_shape, config.policy)
    alone = speculation.tier0 in ("draft", "none") and not uses_draft(config, pair)
    if config.method == "vanilla" and alone:
        allowed = "this pair has no draft: use another method, a draft, or tier0='lookup'"
        raise refuse("method", "vanilla", allowed)
    if speculation.draft_vocab > pair.vocab_size:
        allowed = f"there are {pair.vocab_size} tokens; 0 is all"
        raise refuse("draft_vocab", speculation.draft_vocab, allowed)
