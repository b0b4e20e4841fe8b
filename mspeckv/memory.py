"""Whether a run fits, known before anything is allocated.

Cache sizes come from shapes and are exact (`mspeckv.kv.plan`); the prefill's working memory is an
estimate from the model's widths. Everything here is *modelled*, but for what is free, which is
asked of the system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from transformers import PretrainedConfig

from mspeckv.config import RunConfig, refuse
from mspeckv.decoding.sizes import predict_sizes
from mspeckv.decoding.workspace import Workspace
from mspeckv.events import Memory
from mspeckv.kv.plan import CacheSizes
from mspeckv.models import Pair

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
        return self.caches.offloaded


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


def predict(pair: Pair, config: RunConfig, prompt: int) -> Prediction:
    """What a run over ``prompt`` tokens needs."""
    return Prediction(
        weights=pair.weight_bytes + pair.copy_bytes,
        caches=predict_sizes(config, pair, prompt),
        workspace=prefill_workspace(
            pair.target.config, pair.dtype.itemsize, prompt, pair.rank_count
        ),
        runtime=RUNTIME_BYTES if pair.device.type == "cpu" else 0,
    )


def check_memory(pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that does not fit, naming the largest setting that would.

    Raises:
        ValueError: ``device_gb``, the device's free memory or the host's is exceeded.
    """
    shortage = _shortage(pair, config, prompt)
    if shortage is None:
        return
    what, needed, there = shortage

    def fits(run: RunConfig, tokens: int = prompt) -> bool:
        return _shortage(pair, run, tokens) is None

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


def _shortage(pair: Pair, config: RunConfig, prompt: int) -> tuple[str, int, int] | None:
    """The first limit that a run exceeds: its name, the bytes needed, the bytes there."""
    need = predict(pair, config, prompt)
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
        if isinstance(pair.workspace, Workspace):
            # used again, or given back before the run allocates its own
            places = pair.workspace.full.allocated()
            host += places.pop("offloaded")
            middle = pair.workspace.middle
            free += sum(places.values()) + (middle.bytes if middle is not None else 0)
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
