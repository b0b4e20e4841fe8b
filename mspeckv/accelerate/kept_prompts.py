"""Prompts that were read once, for runs that begin with the same caches.

What a prompt leaves in a cache depends on the prompt, the model as it is now and the cache's own
settings, and on nothing else: not on the method, the seed, or how long the output will be. So a run
that finds it here copies it in, and goes on bit for bit as if it had read the prompt itself.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import psutil

from mspeckv.accelerate.fingerprint import structure, weights
from mspeckv.decoding.reader import ModelReader
from mspeckv.kv.layers import State, Tier
from mspeckv.kv.link import KVLink

MOST_BYTES = 2 << 30
"""Bytes kept at most, unless a quarter of the free memory is less."""


class Prefills:
    """The last few prompts read, cache by cache, in host memory.

    Args:
        limit: bytes kept at most; default: 2 GiB, or a quarter of what is free.

    Attributes:
        shared: whether the last run took up tier 2's prompt instead of reading it.
        saved_seconds: what the last run saved: the time that reading took when it was done, less
            that of taking it up (measured).
    """

    def __init__(self, limit: int | None = None) -> None:
        free = int(psutil.virtual_memory().available)
        self.limit = min(MOST_BYTES, free // 4) if limit is None else limit
        self.shared, self.saved_seconds = False, 0.0
        # what each prompt left in a cache, and the seconds that reading it took
        self._kept: OrderedDict[tuple[object, ...], tuple[State, float]] = OrderedDict()
        self._turn = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(_bytes(state) for state, _ in self._kept.values())

    def read(self, readers: Iterable[ModelReader], prompt: Sequence[int], link: KVLink) -> None:
        """Have every reader's caches hold ``prompt``: take up what is kept, read and keep the rest.

        Args:
            readers: with empty caches; a reader's watcher may fill a cache of its own.
            prompt: token ids.
            link: carries what a reader sends to the host.
        """
        self.shared, self.saved_seconds = False, 0.0
        for reader in readers:
            start = time.perf_counter()
            caches = reader.fills
            model = reader.model, structure(reader.model), weights(reader.model)
            keys = [(*model, tuple(prompt), *cache.settings) for cache in caches]
            found = self._find(keys)
            if found:
                for (state, _), cache in zip(found, caches, strict=True):
                    cache.load(state)
                self.shared = reader.tier == 2
                self.saved_seconds += found[0][1] - (time.perf_counter() - start)
                continue
            reader.prefill(list(prompt))
            link.drain()
            seconds = time.perf_counter() - start
            for key, cache in zip(keys, caches, strict=True):
                self._keep(key, cache, seconds)

    def _find(self, keys: list[tuple[object, ...]]) -> list[tuple[State, float]]:
        """What is kept under ``keys``, if it is kept under all."""
        with self._turn:
            if not all(key in self._kept for key in keys):
                return []
            for key in keys:
                self._kept.move_to_end(key)
            return [self._kept[key] for key in keys]

    def _keep(self, key: tuple[object, ...], cache: Tier, seconds: float) -> None:
        """Keep one more; drop those that were used longest ago."""
        state = cache.state()
        room = self.limit - _bytes(state)
        if room < 0:
            return
        copies = tuple(part.detach().to("cpu", copy=True) for part in state.tensors)
        with self._turn:
            self._kept.pop(key, None)
            while self.bytes > room:
                self._kept.popitem(last=False)
            self._kept[key] = replace(state, tensors=copies), seconds


def _bytes(state: State) -> int:
    return sum(part.nbytes for part in state.tensors)
