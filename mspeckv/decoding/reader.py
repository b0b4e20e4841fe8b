"""A model with its cache: reads tokens it has not read yet, returns logits."""

from __future__ import annotations

from typing import Protocol

import torch
from transformers import PreTrainedModel

from mspeckv.attention import reading
from mspeckv.compatibility import cache_argument
from mspeckv.context import Products, Watcher
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.shortlist import Shortlist
from mspeckv.events import Step
from mspeckv.host import to_device
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.streaming import StreamingCache
from mspeckv.ranges import span
from mspeckv.tiled import tile

UNBOUNDED = 2**31


class Reader(Protocol):
    """What levels need of a model with a cache."""

    tier: int

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        """Read what is new of ``tokens``; logits ``[rows, V]`` of its last ``rows`` tokens."""

    def room(self, length: int) -> int:
        """Most guesses that may follow a prefix of ``length`` tokens in one pass."""

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""


class ModelReader:
    """A transformers model reading through one of the tiers' caches.

    Args:
        tier: 0, 1 or 2.
        step: how its passes are called in events.
        model: any decoder.
        cache: its cache; holds ``cache.length`` tokens of the sequence.
        recorder: notes passes, and may cancel the run between two layers.
        watcher: also shown every layer's query, key and value.
        shortlist: score only these tokens.
        products: what linear layers multiply by; default: current copies (`mspeckv.tiled`).
    """

    def __init__(
        self,
        tier: int,
        step: Step,
        model: PreTrainedModel,
        cache: FullCache | RetrievalCache | CoarseCache | StreamingCache,
        recorder: Recorder,
        watcher: Watcher | None = None,
        shortlist: Shortlist | None = None,
        products: Products | None = None,
    ) -> None:
        self.tier, self.step, self.model, self.cache = tier, step, model, cache
        self.recorder, self.watcher, self.shortlist = recorder, watcher, shortlist
        own = tile(model) if products is None else products
        self.products = {**own, **(shortlist.products if shortlist else {})}
        self._cache_name = cache_argument(model)
        self._prefilling = False

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt into the empty cache, in one pass.

        One pass reads the prompt layer by layer, so a layer's float KV lives only while that layer
        is computed and its packed bytes leave for the host once.
        """
        if isinstance(self.cache, StreamingCache):
            tokens = self.cache.visible(tokens)
            self._forward(tokens, self.cache.first_position, "prefill")
            return
        self._prefilling = True
        self._forward(tokens, 0, "prefill")
        self._prefilling = False

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        """Read what is new of ``tokens``; logits ``[rows, V]`` of its last ``rows`` tokens."""
        new = tokens[self.cache.length :]
        if isinstance(self.cache, StreamingCache) and len(new) > self.cache.slack:
            # Left out for many rounds: what it sees now is less to read than what it missed.
            self.cache.restart()
            seen = self.cache.visible(tokens)
            return self._forward(seen, self.cache.first_position, self.step, rows)
        if isinstance(self.cache, StreamingCache) and self.cache.must_slide(len(new)):
            self.cache.slide()
            self._forward(tokens[: self.cache.sinks], self.cache.first_position, self.step)
            self.cache.reopen()
        return self._forward(new, len(tokens) - len(new), self.step, rows)

    def room(self, length: int) -> int:
        """Most guesses that may follow a prefix of ``length`` tokens in one pass."""
        if isinstance(self.cache, FullCache):
            return self.cache.room() - (length - self.cache.length)
        return UNBOUNDED

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        self.cache.settle(length)

    def _forward(self, tokens: list[int], position: int, step: Step, rows: int = 1) -> torch.Tensor:
        """One pass over ``tokens`` at positions from ``position`` on."""
        self.recorder.check()
        start = self.recorder.mark()
        with span(f"tier{self.tier}/{step}"):
            logits = self._logits(tokens, position, rows)
            lookups = (0, 0)
            if isinstance(self.cache, FullCache) and step != "prefill":
                lookups = self.cache.lookups()
            read = self.cache.read_bytes()
            self.recorder.passed(self.tier, step, len(tokens), read, start, lookups)
        return logits

    def _logits(self, tokens: list[int], position: int, rows: int) -> torch.Tensor:
        """Logits ``[rows, V]`` of the last of ``tokens``."""
        device = self.model.device
        ids = to_device([tokens], device)
        positions = torch.arange(position, position + len(tokens), device=device)[None]
        with reading(self.model, self._watch, products=self.products):
            logits: torch.Tensor = self.model(
                input_ids=ids,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=rows,
                **{self._cache_name: self.cache},
            ).logits[0]
        return self.shortlist.widen(logits) if self.shortlist else logits

    def _watch(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        self.recorder.check()
        if self._prefilling and self.recorder.on_progress is not None:
            layers = len(self.cache.layers)
            self.recorder.on_progress("prefill", layer + 1, layers)
        if self.watcher is not None:
            self.watcher(layer, query, key, value)
