"""One interface over our tier-2 cache and the KV caches of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import QuantizedCache

from mspeckv import KVPolicy, Pair
from mspeckv.accelerate.graphs import Graphs
from mspeckv.accelerate.static_passes import StaticReader
from mspeckv.api import engine_of
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import open_link
from mspeckv.kv.shape import KVShape
from mspeckv.models.checks import cache_argument
from mspeckv.record import Ledger, Recorder, clock_of


class Subject(Protocol):
    """A model over one kind of cache."""

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt."""

    def read(self, tokens: list[int]) -> torch.Tensor:
        """Read further tokens, for good; logits ``[n, V]``."""

    def stored_bytes(self) -> int:
        """Bytes of the keys and values held."""

    def close(self) -> None:
        """Free what is held."""


class Ours:
    """The target over `FullCache`, link off (on a GPU: its bus); replayed passes on a GPU."""

    def __init__(self, pair: Pair, policy: KVPolicy, capacity: int, gbps: float | None = None):
        self.pair, shape = pair, KVShape.of(pair.target.config, pair.dtype)
        self.recorder = Recorder(Ledger(clock_of(pair.device)))
        self.link = open_link(self.recorder.ledger, gbps, pair.device)
        self.link.__enter__()
        hooks = engine_of(pair).hooks
        faster = hooks.show, hooks.restore
        self.cache = FullCache(shape, policy, capacity, self.link, pair.device, *faster)
        self.seat = Seat(
            2, "decode", pair.target, self.cache, self.recorder, kernels=hooks.kernels,
            products=hooks.products(pair.target),
        )  # fmt: skip
        self.reader = ModelReader(self.seat)
        self.tokens: list[int] = []

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt."""
        self.tokens = list(tokens)
        self.reader.prefill(tokens)
        self.link.drain()
        self.recorder.take()
        device = self.pair.device
        if device.type == "cuda":
            seat = replace(self.seat, settled=len(tokens))
            self.reader = StaticReader(seat, Graphs(device))

    def read(self, tokens: list[int]) -> torch.Tensor:
        """Read further tokens; passes end at flush boundaries, as the engine's do."""
        parts = []
        while tokens:
            count = min(len(tokens), self.cache.room(self.cache.length))
            self.tokens += tokens[:count]
            tokens = tokens[count:]
            self.cache.begin_pass()
            parts.append(self.reader.read(self.tokens, rows=count))
            self.reader.settle(len(self.tokens))
        return torch.cat(parts)

    def stored_bytes(self) -> int:
        """Packed blocks and float tails."""
        return self.cache.read_bytes()

    def close(self) -> None:
        """End the link's work."""
        self.link.__exit__(None, None, None)


class Stock:
    """The target as transformers runs it, over one of transformers' caches."""

    def __init__(self, model: PreTrainedModel, cache: Any) -> None:
        self.model, self.cache = model, cache

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt."""
        self._pass(tokens, 1)

    def read(self, tokens: list[int]) -> torch.Tensor:
        """Read further tokens."""
        return self._pass(tokens, len(tokens))

    def crop(self, count: int) -> None:
        """Forget the newest ``count`` tokens (dynamic caches only)."""
        self.cache.crop(-count)

    def stored_bytes(self) -> int:
        """Every tensor that the cache holds."""
        return sum(t.numel() * t.element_size() for t in _tensors(self.cache.layers, set()))

    def close(self) -> None:
        """Let the cache go."""
        self.cache = None

    def _pass(self, tokens: list[int], rows: int) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self.model.device)
        out = self.model(
            input_ids=ids,
            use_cache=True,
            logits_to_keep=rows,
            **{cache_argument(self.model): self.cache},
        )
        logits: torch.Tensor = out.logits[0]
        return logits


def _tensors(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Plain tensors inside caches, quantized tensors, tuples and dictionaries."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            names, _ = value.__tensor_flatten__()
            for name in names:
                yield from _tensors(getattr(value, name), seen)
        else:
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, seen)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)


Maker = Callable[[], Subject]


def subjects(pair: Pair, capacity: int, widths: tuple[int, ...]) -> dict[str, Maker]:
    """What is compared, by name; the first is the float cache that quality is measured against.

    transformers' own advice sets the quantization axis: 0 for quanto, 1 for HQQ.
    """
    model, layers = pair.target, pair.layers

    def ours(policy: KVPolicy) -> Maker:
        return lambda: Ours(pair, policy, capacity)

    def quantized(backend: str, bits: int, axis: int) -> Maker:
        return lambda: Stock(
            model,
            QuantizedCache(
                backend, model.config, nbits=bits, axis_key=axis, axis_value=axis, q_group_size=64
            ),
        )

    out: dict[str, Maker] = {
        "transformers dynamic": lambda: Stock(model, DynamicCache()),
        "ours on-chip": ours(KVPolicy("full", on_chip=layers)),
    }
    for bits in widths:
        out[f"ours int{bits} resident"] = ours(KVPolicy(bits, resident=layers))
        out[f"ours int{bits} offloaded"] = ours(KVPolicy(bits))
    if 8 in widths:
        out["ours nibble offloaded"] = ours(KVPolicy(8, nibble=True))
    for bits in widths:
        if bits in (2, 4):
            out[f"transformers quanto int{bits}"] = quantized("quanto", bits, 0)
        out[f"transformers HQQ int{bits}"] = quantized("hqq", bits, 1)
    return out
