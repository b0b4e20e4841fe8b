"""Every cache of a run, and what replays passes over them; on a GPU kept for the next run like it.

A CUDA graph holds the addresses of the caches that it was captured over, so graphs outlive a run
only together with them. The pair keeps one spare workspace, that of its last run; a run has its
workspace for itself alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from mspeckv.config import RunConfig
from mspeckv.context import Products
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.shortlist import Shortlist, shortlist_tokens
from mspeckv.decoding.sizes import USES_TIER1, Sizes, uses_draft
from mspeckv.decoding.static_reader import Runner, StaticReader
from mspeckv.events import Step
from mspeckv.fingerprint import structure
from mspeckv.graphs import Graphs, capturing
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.link import KVLink
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache
from mspeckv.models import Pair
from mspeckv.retrieval import policy
from mspeckv.static import StaticInputs
from mspeckv.tiled import tile


def runner_of(device: torch.device, graphs: bool) -> Runner | None:
    """What replays a reader's passes; None where they are run as they come."""
    return Graphs(device) if graphs and device.type == "cuda" else None


@dataclass
class Workspace:
    """A run's caches by tier, and a runner for each tier that has one.

    Attributes:
        key: runs with the same key can use it one after the other.
        prompt: tokens that prefill reads.
        full: tier 2's cache.
        middle: tier 1's, if any.
        draft: tier 0's, if any.
        runners: by tier; None where passes are run as they come.
        longest: tokens of a verifying tier's longest pass, where lengths are chosen; else empty.
        inputs: what the runners' passes read, by tier and width.
        products: what the models' linear layers multiply by in this run.
    """

    key: tuple[object, ...]
    prompt: int
    full: FullCache
    middle: RetrievalCache | CoarseCache | None
    draft: StreamingCache | None
    runners: dict[int, Runner | None]
    longest: dict[int, int]
    inputs: dict[int, dict[int, StaticInputs]] = field(default_factory=dict)
    products: Products = field(default_factory=dict)

    @classmethod
    @contextmanager
    def lent(cls, config: RunConfig, pair: Pair, sizes: Sizes, link: KVLink) -> Iterator[Workspace]:
        """A workspace for one run alone: the pair's spare one if it fits, emptied; else a new one.

        Afterwards it is the pair's spare one, unless the run failed or it would save nothing.
        """
        products = {**tile(pair.target), **(tile(pair.draft) if pair.draft is not None else {})}
        key = (*workspace_key(config, sizes), *map(structure, pair.models))
        with pair.lock:
            kept, pair.workspace = pair.workspace, None
        if isinstance(kept, cls) and kept.key == key:
            kept.restart(link)
            made = kept
        else:
            if kept is not None:
                del kept
                _give_memory_back()
            made = cls._allocate(key, config, pair, sizes, link)
        made.products = products
        try:
            yield made
        except Exception:
            made.runners.clear()
            raise
        finally:
            if any(made.runners.values()):
                with pair.lock:
                    pair.workspace = made

    @classmethod
    def _allocate(
        cls, key: tuple[object, ...], config: RunConfig, pair: Pair, sizes: Sizes, link: KVLink
    ) -> Workspace:
        speculation, device, shape = config.speculation, pair.device, pair.kv_shape
        full = FullCache(shape, config.policy, sizes.capacity, link, device)
        middle: RetrievalCache | CoarseCache | None = None
        if config.method in USES_TIER1 and speculation.tier1 == "nibble":
            middle = CoarseCache(full)
        elif config.method in USES_TIER1:
            read = sizes.prompt - 1
            middle = RetrievalCache(shape, speculation, read, sizes.grown, device)
        draft = None
        if uses_draft(config, pair):
            assert pair.draft is not None
            own = KVShape.of(pair.draft.config, pair.draft.dtype)
            draft = StreamingCache(own, speculation.sinks, speculation.window, sizes.slack, device)
        runners = {tier: runner_of(device, config.graphs) for tier in (0, 1, 2)}
        longest = {}
        if speculation.adaptive:
            longest = {1: speculation.longest_draft_gamma + 1, 2: speculation.longest_gamma + 1}
        return cls(key, sizes.prompt - 1, full, middle, draft, runners, longest)

    def restart(self, link: KVLink) -> None:
        """Forget the last run, keep memory and graphs."""
        self.full.restart(link)
        if self.middle is not None:
            self.middle.restart()
        if self.draft is not None:
            self.draft.restart()

    def top(self, pair: Pair, step: Step, recorder: Recorder) -> ModelReader:
        """Tier 2."""
        tier1 = self.middle if isinstance(self.middle, RetrievalCache) else None
        runner = self.runners[2]
        if runner is None:
            watcher = tier1.watch if tier1 is not None else None
            return ModelReader(
                2, step, pair.target, self.full, recorder, watcher, products=self.products
            )
        return StaticReader(
            2, step, pair.target, self.full, recorder,
            runner=runner, inputs=self._inputs(2), settled=self.prompt, tier1=tier1,
            longest=self.longest.get(2, 0), products=self.products,
        )  # fmt: skip

    def between(self, pair: Pair, step: Step, recorder: Recorder) -> ModelReader | None:
        """Tier 1, if there is one."""
        if self.middle is None:
            return None
        runner, settled = self.runners[1], self.prompt
        if isinstance(self.middle, RetrievalCache):
            settled = self.middle.plan.kept
        if runner is None:
            return ModelReader(1, step, pair.target, self.middle, recorder, products=self.products)
        return StaticReader(
            1, step, pair.target, self.middle, recorder,
            runner=runner, inputs=self._inputs(1), settled=settled,
            longest=self.longest.get(1, 0), products=self.products,
        )  # fmt: skip

    def bottom(
        self, config: RunConfig, pair: Pair, prompt: Sequence[int], recorder: Recorder
    ) -> ModelReader:
        """Tier 0: the draft."""
        draft, cache = pair.draft, self.draft
        assert draft is not None
        assert cache is not None
        shortlist = None
        runner = self.runners[0]
        if config.speculation.draft_vocab:
            chosen = shortlist_tokens(prompt, pair.vocab_size, config.speculation.draft_vocab)
            shortlist = Shortlist(draft, chosen)
            # the list is this prompt's, and graphs hold on to it
            runner = runner_of(pair.device, config.graphs) if runner is not None else None
        if runner is None:
            return ModelReader(
                0, "draft", draft, cache, recorder, shortlist=shortlist, products=self.products
            )
        return StaticReader(
            0, "draft", draft, cache, recorder,
            runner=runner, inputs=self._inputs(0), settled=0, shortlist=shortlist,
            products=self.products,
        )  # fmt: skip

    def _inputs(self, tier: int) -> dict[int, StaticInputs]:
        return self.inputs.setdefault(tier, {})


def workspace_key(config: RunConfig, sizes: Sizes) -> tuple[object, ...]:
    """What two runs must share to use the same caches and graphs."""
    # A name may have been given to another function since: graphs hold on to the old one.
    chooser = policy(config.speculation.retrieval)
    return config.method, config.policy, config.speculation, chooser, config.graphs, sizes


def release(pair: Pair) -> None:
    """Give back the memory of the pair's spare workspace."""
    with pair.lock:
        kept, pair.workspace = pair.workspace, None
    if kept is not None:
        del kept
        _give_memory_back()


def _give_memory_back() -> None:
    with capturing:
        gc.collect()
        torch.cuda.empty_cache()
