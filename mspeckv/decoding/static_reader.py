"""A reader whose decoding passes have fixed shapes, so that a GPU can replay them."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from mspeckv.attention import reading
from mspeckv.context import Products
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.shortlist import Shortlist
from mspeckv.events import Step
from mspeckv.graphs import Body
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.streaming import StreamingCache
from mspeckv.ranges import span
from mspeckv.static import LONGEST, Cut, StaticCache, StaticInputs, StaticKeys, width_of


class Runner(Protocol):
    """`mspeckv.graphs.Graphs`, or `mspeckv.graphs.Direct`."""

    def rare(self, key: Any) -> bool:
        """Whether the static pass called ``key``, wanted now, had better be a shared one."""

    def settled(self, key: Any) -> bool:
        """Whether the pass called ``key`` is ready to be run."""

    def run(self, key: Any, body: Body) -> torch.Tensor:
        """The logits of the static pass called ``key``."""


class StaticReader(ModelReader):
    """`ModelReader` by static passes (`mspeckv.static`); prefill and very long passes as there.

    Args:
        runner: runs, or replays, a pass.
        inputs: buffers by width, kept with the runner: what it captured reads them.
        settled: slots of the cache that hold the prompt: no pass rewrites them.
        tier1: the retrieval cache that watches, for tier 2.
        longest: tokens of the longest pass, where lengths are chosen: rare ones share its shape.
            Which are rare depends on what came before, and the last bit of a logit on the shape.

    The rest is `ModelReader`'s.
    """

    def __init__(
        self,
        tier: int,
        step: Step,
        model: PreTrainedModel,
        cache: FullCache | RetrievalCache | CoarseCache | StreamingCache,
        recorder: Recorder,
        *,
        runner: Runner,
        inputs: dict[int, StaticInputs],
        settled: int,
        tier1: RetrievalCache | None = None,
        shortlist: Shortlist | None = None,
        products: Products | None = None,
        longest: int = 0,
    ) -> None:
        watcher = tier1.watch if tier1 is not None else None
        super().__init__(tier, step, model, cache, recorder, watcher, shortlist, products)
        self.runner, self.tier1, self._inputs = runner, tier1, inputs
        self._settled = settled
        self._shared = width_of(longest) if longest <= LONGEST else 0
        for layer in self.cache.layers:
            # what is masked has no weight, but would have to be a number
            for part in layer.view.whole:
                part[:, :, settled:].zero_()

    def _forward(self, tokens: list[int], position: int, step: Step, rows: int = 1) -> torch.Tensor:
        """One pass over ``tokens`` at positions from ``position`` on."""
        if step == "prefill" or len(tokens) > LONGEST or self._room() < len(tokens):
            return super()._forward(tokens, position, step, rows)
        self.recorder.check()
        start = self.recorder.mark()
        with span(f"tier{self.tier}/{step}"):
            logits, settled = self._static(tokens, position)
            lookups = self.cache.lookups() if isinstance(self.cache, FullCache) else (0, 0)
            read = self.cache.read_bytes()
            self.recorder.passed(
                self.tier, step, len(tokens), read, start, lookups, builds=not settled
            )
        return logits[len(tokens) - rows : len(tokens)]

    def _static(self, tokens: list[int], position: int) -> tuple[torch.Tensor, bool]:
        """A pass that begins with ``tokens``, and whether it was one that was ready to be run."""
        due, watched = False, 0
        if self.tier1 is not None:
            due = self.tier1.begin(position + len(tokens))
            watched = self.tier1.slot_of(position)
        width = width_of(len(tokens))
        if width < self._shared and self.runner.rare((self.tier, width, due, self._settled)):
            width = self._shared
        inputs = self._inputs.get(width)
        if inputs is None:
            inputs = self._inputs[width] = StaticInputs(width, self.model.device)
        first = self.cache.layers[0].filled
        tail = first - max(layer.tail_start for layer in self.cache.layers)
        inputs.fill(tokens, position, first, tail, watched)
        key = self.tier, width, due, self._settled
        settled = self.runner.settled(key)
        logits = self.runner.run(key, partial(self._body, inputs, due))
        for layer in self.cache.layers:
            layer.length = layer.filled + len(tokens)
        return logits, settled

    def _body(self, inputs: StaticInputs, due: bool, cut: Cut) -> torch.Tensor:
        """The pass itself: logits ``[width, V]``, padding's included."""
        slots = self.cache.layers[0].view.key.shape[2]
        keys = StaticKeys.of(inputs, self._settled, slots, self.model.dtype)
        watcher = None
        if self.tier1 is not None:
            watcher = partial(self.tier1.watch_static, inputs=inputs, due=due)
        with reading(self.model, watcher, keys, self.products):
            logits: torch.Tensor = self.model(
                input_ids=inputs.ids,
                position_ids=inputs.positions,
                use_cache=True,
                logits_to_keep=inputs.width,
                **{self._cache_name: StaticCache(self.cache, inputs, cut)},
            ).logits[0]
        return self.shortlist.widen(logits) if self.shortlist else logits

    def _room(self) -> int:
        """Tokens that the cache still takes."""
        layer = self.cache.layers[0]
        room: int = layer.view.key.shape[2] - layer.filled
        if isinstance(self.cache, FullCache):
            room = self.cache.room()
        elif isinstance(self.cache, CoarseCache):
            room = self.cache.full.room() - (layer.filled - self.cache.full.length)
        return room
