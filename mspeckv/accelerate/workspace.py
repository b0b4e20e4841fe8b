"""On a GPU, caches and CUDA graphs that outlive a run, for the next one like it.

With the graphs that it keeps (`mspeckv.accelerate.graphs`) it saves 44 to 73 % of a plain step on
an H200 (benchmarks/results/accelerations-h200.txt).

A CUDA graph holds the addresses of the caches that it was captured over, so graphs outlive a run
only together with them. The engine keeps one spare workspace, that of its last run; a run has its
workspace for itself alone.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from mspeckv.accelerate.fingerprint import structure
from mspeckv.accelerate.graphs import Direct, Graphs, capturing, forget_all
from mspeckv.accelerate.static_passes import StaticReader, can_be_static
from mspeckv.decoding.hooks import Caches, Engine, Hooks
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.kv.link import KVLink
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.models.pair import Pair

MakeRunner = Callable[[], Direct]


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Replay passes on a GPU."""
    if device.type != "cuda":
        return hooks
    return replace(plug_runners(hooks, partial(Graphs, device)), forget=forget_all)


def plug_runners(hooks: Hooks, make_runner: MakeRunner) -> Hooks:
    """Run passes of fixed shape by what ``make_runner`` makes: one runner for each tier."""
    return replace(hooks, lend=partial(lend, make_runner), spare=spare)


@dataclass
class Workspace:
    """A run's caches, and a runner for each tier.

    Attributes:
        key: runs with the same key can use it one after the other.
        runners: by tier.
    """

    key: tuple[object, ...]
    caches: Caches
    make_runner: MakeRunner
    runners: defaultdict[int, Direct]

    def reader(self, seat: Seat) -> ModelReader:
        """A reader whose passes are run by its tier's runner."""
        looks_on = seat.onlooker
        known = isinstance(looks_on, RetrievalCache) and not looks_on.asks_host
        if not (known or looks_on is None) or not can_be_static(seat):
            return ModelReader(seat)
        # a head's list of tokens is this prompt's, and graphs hold on to it
        runner = self.make_runner() if seat.head is not None else self.runners[seat.tier]
        return StaticReader(seat, runner)

    def give_back(self) -> None:
        """Let graphs and caches go."""
        self.runners.clear()
        self.caches = None  # type: ignore[assignment]  # nobody uses it any more
        with capturing:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@contextmanager
def lend(
    make_runner: MakeRunner,
    engine: Engine,
    pair: Pair,
    key: tuple[object, ...],
    link: KVLink,
    allocate: Callable[[], Caches],
) -> Iterator[Caches]:
    """The spare workspace if it fits, emptied; else a new one.

    Afterwards it is the spare one, unless the run failed.
    """
    key = (*key, *map(structure, pair.models))
    with engine.lock:
        kept, engine.spare = engine.spare, None
    if isinstance(kept, Workspace) and kept.key == key:
        kept.caches.restart(link)
        made = kept
    else:
        if kept is not None:
            kept.give_back()
        made = Workspace(key, allocate(), make_runner, defaultdict(make_runner))
    failed = False
    try:
        yield replace(made.caches, reader=made.reader)
    except Exception:
        failed = True
        raise
    finally:
        if not failed:
            with engine.lock:
                engine.spare = made


def spare(engine: Engine) -> tuple[int, int]:
    """Host and device bytes of the spare workspace's caches."""
    kept = engine.spare
    if not isinstance(kept, Workspace):
        return 0, 0
    places = kept.caches.full.allocated()
    on_host, middle = places.pop("offloaded"), kept.caches.middle
    return on_host, sum(places.values()) + (middle.bytes if middle is not None else 0)
