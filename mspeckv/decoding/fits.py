"""Whether a run can work and fits, known before anything is allocated.

Cache sizes come from shapes and are exact (`mspeckv.kv.sizes`); the prefill's working memory is an
estimate from the model's widths. Everything here is *modelled*, but for what is free, which is
asked of the system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
import psutil
import torch
from transformers import PretrainedConfig

from mspeckv.decoding.hooks import Engine
from mspeckv.decoding.needs import check_method, predict_sizes, uses_draft
from mspeckv.events import Memory
from mspeckv.kv.sizes import CacheSizes
from mspeckv.models.checks import check_lengths
from mspeckv.models.pair import Pair
from mspeckv.settings import RunConfig, Sampling, refuse

Prompt = str | Sequence[int]

RUNTIME_BYTES = 65_000_000
"""What thread pools, kernels and a fragmented heap take on a CPU: 20 to 110 MB, run by run."""


@dataclass(frozen=True)
class Prediction:
    """Bytes a run needs at its peak.

    Attributes:
        weights: both models', shared tensors once, with a CPU's ordered copies of them.
        caches: every tier's, by place.
        workspace: activations of the prefill pass.
        runtime: the libraries' own.
    """

    weights: int
    caches: CacheSizes
    workspace: int
    runtime: int

    @property
    def device(self) -> int:
        """Peak bytes on the device."""
        return self.weights + self.caches.device + self.workspace + self.runtime

    def record(self) -> Memory:
        """The event stream's form."""
        caches = self.caches
        return Memory(caches.on_chip, caches.resident, caches.offloaded, self.device)

    @property
    def host(self) -> int:
        """Bytes of offloaded KV in host memory."""
        return self.caches.offloaded + self.caches.chunks


def prefill_workspace(config: PretrainedConfig, itemsize: int, prompt: int, ranks: int = 1) -> int:
    """Bytes of activations alive at once while one layer reads ``prompt`` tokens.

    Per token, a gated MLP holds its gate, its up projection and two products (4 intermediate
    widths) beside the residual stream, its norm, and queries before and after rotation (6 hidden
    widths); the allocator's slack is inside these counts. ``ranks`` share the MLP.
    """
    hidden, inner = layer_widths(config)
    return prompt * itemsize * (4 * -(-inner // ranks) + 6 * hidden)


def layer_widths(config: PretrainedConfig) -> tuple[int, int]:
    """Hidden and intermediate width of a decoder's layers."""
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    inner = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None) or 4 * hidden
    return hidden, int(inner)


def predict(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> Prediction:
    """What a run over ``prompt`` tokens needs."""
    return Prediction(
        weights=pair.weight_bytes + engine.hooks.copy_bytes(pair.models),
        caches=predict_sizes(engine.hooks, config, pair, prompt),
        workspace=prefill_workspace(
            pair.target.config, pair.dtype.itemsize, prompt, pair.rank_count
        ),
        runtime=RUNTIME_BYTES if pair.device.type == "cpu" else 0,
    )


def check_memory(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that does not fit, naming the largest setting that would.

    Raises:
        ValueError: ``device_gb``, the device's free memory or the host's is exceeded.
    """
    shortage = _shortage(engine, pair, config, prompt)
    if shortage is None:
        return
    what, needed, there = shortage

    def fits(run: RunConfig, tokens: int = prompt) -> bool:
        return _shortage(engine, pair, run, tokens) is None

    def with_policy(**changes: Any) -> RunConfig:
        return replace(config, policy=replace(config.policy, **changes))

    largest = {
        "prompt tokens": _largest(lambda n: fits(config, n), 2, prompt),
        "on-chip layers": _largest(
            lambda n: fits(with_policy(on_chip=n)), 0, config.policy.on_chip
        ),
        "resident layers": _largest(
            lambda n: fits(with_policy(resident=n)), 0, config.policy.resident
        ),
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
    host = int(psutil.virtual_memory().available)
    if pair.ranks is not None:
        host //= pair.ranks.here
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
    if beyond <= least or not fits(least):
        return None
    low, high = least, beyond
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def encode_prompt(pair: Pair, prompt: Prompt) -> list[int]:
    """Token ids of a prompt.

    Raises:
        ValueError: an empty prompt, an id outside the vocabulary, or text without a tokenizer.
    """
    if isinstance(prompt, str):
        if pair.tokenizer is None:
            raise refuse("prompt", prompt[:40], "this pair has no tokenizer: pass token ids")
        tokens = list(pair.tokenizer(prompt)["input_ids"])
    else:
        tokens = _ids(prompt)
    if not tokens:
        raise refuse("prompt", prompt, "it needs at least one token")
    wrong = next((token for token in tokens if not 0 <= token < pair.vocab_size), None)
    if wrong is not None:
        raise refuse("prompt", wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")
    return tokens


def _ids(prompt: Any) -> list[int]:
    """Token ids of whatever holds one row of them: a list, an array, a tokenizer's answer."""
    given = prompt["input_ids"] if isinstance(prompt, Mapping) and "input_ids" in prompt else prompt
    if isinstance(given, (torch.Tensor, np.ndarray)):
        given = given.tolist()
    if isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], Sequence):
        given = given[0]
    try:
        return [index(token) for token in given]
    except TypeError:
        shown = f"{type(prompt).__name__} {str(prompt)[:40]}"
        allowed = "use text, token ids, or one row of them as a tokenizer gives it"
        raise refuse("prompt", shown, allowed) from None


def check_run(engine: Engine, pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that cannot work, before anything is allocated.

    Raises:
        ValueError: the placement, the length or the method does not fit this pair, or the run
            does not fit into memory.
    """
    config.policy.check_layers(pair.layers)
    check_method(engine.hooks, config, pair)
    _check_stops(pair, config.sampling)
    total = prompt + config.new_tokens
    if total > pair.max_positions:
        raise refuse(
            "prompt + new_tokens",
            f"{prompt} + {config.new_tokens}",
            f"the target has {pair.max_positions} positions: "
            f"use at most {max(0, pair.max_positions - config.new_tokens)} prompt tokens",
        )
    check_lengths(pair.target.config, "target", prompt, config.new_tokens)
    if uses_draft(config, pair):
        assert pair.draft is not None
        check_lengths(pair.draft.config, "draft", prompt, config.new_tokens)
    check_memory(engine, pair, config, prompt)


def _check_stops(pair: Pair, sampling: Sampling) -> None:
    """Refuse stops that could never be met."""
    wrong = next((t for t in sampling.stop_tokens if not 0 <= t < pair.vocab_size), None)
    if wrong is not None:
        raise refuse("stop_tokens", wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")
    if sampling.stop_strings and pair.tokenizer is None:
        raise refuse("stop_strings", sampling.stop_strings, "this pair has no tokenizer")
