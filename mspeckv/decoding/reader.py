"""A model with its cache: reads tokens it has not read yet, returns logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from transformers import PreTrainedModel

from mspeckv.context import Kernels, Products, Shown, Watcher
from mspeckv.decoding.attention import reading
from mspeckv.events import Pass, Step
from mspeckv.kv.layers import Tier
from mspeckv.kv.tier1 import Tier1Cache
from mspeckv.models.checks import cache_argument
from mspeckv.record import Recorder, span, to_device


class Reader(Protocol):
    """What levels need of a model with a cache."""

    tier: int

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        """Read what is new of ``tokens``; logits ``[rows, V]`` of its last ``rows`` tokens."""

    def room(self, length: int) -> int:
        """Most guesses that may follow a prefix of ``length`` tokens in one pass."""

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""


class Head(Protocol):
    """A head that scores some tokens only."""

    @property
    def products(self) -> Products:
        """What the model's own head multiplies by instead."""

    def widen(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, K]`` as ``[n, V]``, minus infinity where nothing was scored."""


@dataclass(frozen=True)
class Seat:
    """All that a reader is made of.

    Attributes:
        tier, step: 0, 1 or 2, and how its passes are called in events.
        recorder: notes passes, and may cancel the run between two layers.
        onlooker: a cache that fills itself from what the passes show.
        kernels: of attention, beside the stock one; so ``products``: see `mspeckv.context.Pass`.
        head: scores fewer tokens; ``vocab``: how many count, the others are padding (None: all do).
        settled: slots of the cache that hold the prompt: no pass of this reader rewrites them.
        longest: tokens of the longest pass where lengths are chosen; 0 where they are not.
    """

    tier: int
    step: Step
    model: PreTrainedModel
    cache: Tier
    recorder: Recorder
    onlooker: Tier1Cache | None = None
    kernels: Kernels = field(default_factory=dict)
    products: Products = field(default_factory=dict)
    head: Head | None = None
    settled: int = 0
    longest: int = 0
    vocab: int | None = None


class ModelReader:
    """A transformers model reading through one of the tiers' caches."""

    also: Watcher | None = None
    """Shown every layer of a pass, as an onlooker is."""

    def __init__(self, seat: Seat) -> None:
        self.seat, self.tier = seat, seat.tier
        self.model, self.cache, self.recorder = seat.model, seat.cache, seat.recorder
        self.products = {**seat.products, **(seat.head.products if seat.head else {})}
        self._kernels: Kernels = seat.kernels
        self._cache_name, self._prefilling = cache_argument(seat.model), False

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt into the empty cache.

        One pass reads it layer by layer, so a layer's float KV lives only while that layer is
        computed, and its packed bytes leave for the host once.
        """
        for new, position in self.cache.to_read(tokens):
            self.read_prompt(new, position)

    def read_prompt(self, tokens: list[int], position: int) -> None:
        """A pass of `prefill`."""
        self._prefilling = self.tier == 2
        self._forward(tokens, position, "prefill")
        self._prefilling = False

    def place(self, brought: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Give the caches each layer's keys, values and last queries of such a pass, as it did."""
        self._prefilling = self.tier == 2
        for layer, (key, value, query) in enumerate(brought):
            shown = self.cache.layers[layer].append(key, value)
            self._watch(layer, query, shown)
            shown.release()
        self._prefilling = False

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        """Read what is new of ``tokens``; logits ``[rows, V]`` of its last ``rows`` tokens."""
        for new, position in self.cache.to_read(tokens):
            logits = self._forward(new, position, self.seat.step, min(rows, len(new)))
        return logits[:, : self.seat.vocab]

    def room(self, length: int) -> int:
        """Most guesses that may follow a prefix of ``length`` tokens in one pass."""
        return self.cache.room(length)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        self.cache.settle(length)

    def _forward(self, tokens: list[int], position: int, step: Step, rows: int = 1) -> torch.Tensor:
        """One pass over ``tokens`` at positions from ``position`` on; noted."""
        self.recorder.check()
        start = self.recorder.mark()
        with span(f"tier{self.tier}/{step}"):
            logits, builds = self._run(tokens, position, step, rows)
            lookups = self.cache.lookups() if step != "prefill" else (0, 0)
            size = len(tokens), self.cache.read_bytes()
            self.recorder.passed(Pass(self.tier, step, *size, 0.0, 0.0, *lookups, builds), start)
        return logits

    def _run(
        self, tokens: list[int], position: int, step: Step, rows: int
    ) -> tuple[torch.Tensor, bool]:
        """Logits ``[rows, V]`` of the last of ``tokens``, and whether something was built."""
        device = self.model.device
        ids = to_device([tokens], device)
        positions = torch.arange(position, position + len(tokens), device=device)[None]
        return self._logits(ids, positions, self.cache, self._watch, rows), False

    def _logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Tier,
        watcher: Watcher | None,
        rows: int,
    ) -> torch.Tensor:
        """The model's pass over ids ``[1, n]`` at ``positions``: logits ``[rows, V]``."""
        with reading(self.model, watcher, self._kernels, self.products):
            logits: torch.Tensor = self.model(
                input_ids=ids,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=rows,
                **{self._cache_name: cache},
            ).logits[0]
        return self.seat.head.widen(logits) if self.seat.head else logits

    def _watch(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
        self.recorder.check()
        if self._prefilling and self.recorder.on_progress is not None:
            self.recorder.on_progress("prefill", layer + 1, len(self.cache.layers))
        if self.also is not None:
            self.also(layer, query, shown)
        if self.seat.onlooker is not None:
            self.seat.onlooker.watch(layer, query, shown)
