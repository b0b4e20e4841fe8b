"""Where something faster, or something more, is plugged into a run.

Every hook does nothing by default: `decoding` and `kv` alone decode exactly. `mspeckv.api` fills
them from `accelerate`, `adaptive` and `parallel`, none of which the engine knows by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from transformers import LogitsProcessorList, PreTrainedModel

from mspeckv.context import Kernels, Products
from mspeckv.decoding.reader import Head, ModelReader, Reader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Level
from mspeckv.kv.blocks import ShowWith
from mspeckv.kv.codec import Restore
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import KVLink
from mspeckv.kv.streaming import StreamingCache
from mspeckv.kv.tier1 import Tier1Cache
from mspeckv.models.pair import Pair
from mspeckv.record import Progress, Recorder
from mspeckv.settings import Sampling, Speculation


@dataclass(frozen=True)
class Caches:
    """Every cache of a run, which has them for itself while it lasts.

    Attributes:
        full: tier 2's.
        middle: tier 1's, if any.
        draft: tier 0's, if any.
        reader: makes a reader over one of them.
    """

    full: FullCache
    middle: Tier1Cache | None
    draft: StreamingCache | None
    reader: Callable[[Seat], ModelReader] = ModelReader

    def restart(self, link: KVLink) -> None:
        """Forget the last run, keep the memory."""
        self.full.restart()
        self.full.pipeline.link = link
        for cache in (self.middle, self.draft):
            if cache is not None:
                cache.restart()


Lend = Callable[
    ["Engine", Pair, tuple[object, ...], KVLink, Callable[[], Caches]],
    AbstractContextManager[Caches],
]
"""Called as (engine, pair, key, link, allocate): lends caches, those of a run of the same key."""
MakeReader = Callable[[Seat], ModelReader]
Exact = Mapping[str, Callable[[Pair, MakeReader], MakeReader]]
_USUAL: Exact = {"tokens": lambda pair, make: make}


class Accord(Protocol):
    """What several processes that share a model decide alike, in one run."""

    stop: threading.Event

    def figure(self, own: float) -> float:
        """The first process's measurement in place of one's ``own``."""

    def between_layers(self, report: Progress | None) -> Progress:
        """``report``, and a chance to stop with every layer of the prompt."""

    def sampler(self, sampling: Sampling, processors: LogitsProcessorList | None) -> Sampler:
        """Draws for all."""

    def planner(self, own: Any) -> Any:
        """Chooses lengths for all."""


Choose = Callable[
    [Speculation, Level | None, Reader | None, Reader, Sampler, Recorder, Any, Accord | None],
    tuple[Level, Any],
]
"""Called as (speculation, guesser, middle, top, sampler, recorder, costs, accord).

Makes the topmost level where lengths are chosen, whose ``plan`` is the last choice, with the costs
that an earlier run learned; and gives the costs as this run learns them.
"""


class KeptPrompts(Protocol):
    """Prompts that were read once, for runs that begin with the same caches."""

    def read(self, readers: Iterable[ModelReader], prompt: Sequence[int], link: KVLink) -> None:
        """Have every reader's caches hold ``prompt``: take up what is kept, read the rest."""


@dataclass(frozen=True)
class Hooks:
    """What is plugged into a run.

    Attributes:
        kernels: of attention, by what a cache layer shows.
        show: another way to show packed layers.
        restore: another way to turn codes into values on the device.
        products: what a model's linear layers multiply by in a run, as the weights are now.
        copy_bytes: bytes of what `products` keeps of the given models.
        head: a head of the draft that scores as many tokens as told; of a prompt.
        head_bytes: bytes of one that scores as many tokens of a model.
        choose: the topmost level where lengths are chosen.
        lend: lends caches, and what reads over them.
        exact: who makes tier 2's reader, by `RunConfig.exact`; of the pair and a run's own maker.
        spare: host and device bytes of caches that no run has, which the next may use or get back.
        forget: lets go of all that this process has captured, before processes part.
        accord: with other processes; of what cancels the run in this one.
        step: seconds of a target step with all KV on the device; scales an ``origin`` link.
    """

    kernels: Kernels = field(default_factory=dict)
    show: ShowWith | None = None
    restore: Restore | None = None
    products: Callable[[PreTrainedModel], Products] = lambda model: {}
    copy_bytes: Callable[[Iterable[PreTrainedModel]], int] = lambda models: 0
    head: Callable[[PreTrainedModel, Sequence[int], int], Head] | None = None
    head_bytes: Callable[[PreTrainedModel, int], int] = lambda model, tokens: 0
    choose: Choose | None = None
    lend: Lend | None = None
    exact: Exact = field(default_factory=lambda: _USUAL)
    spare: Callable[[Engine], tuple[int, int]] = lambda engine: (0, 0)
    forget: Callable[[], None] = lambda: None
    accord: Callable[[threading.Event | None], Accord] | None = None
    step: Callable[[Engine, Pair], float] | None = None


@dataclass(eq=False)
class Engine:
    """What decoding with one pair plugs in, and what it remembers; none of it changes a text.

    Attributes:
        hooks: what is plugged in.
        step_seconds: one target step with all KV on the device, once it has been measured.
        pass_costs: what passes of earlier runs took, by settings; chosen lengths begin with it.
        spare: caches and graphs of the last run, for another like it; no run that goes on has them.
            An acceleration's own, with a ``give_back`` that frees its memory.
        lock: held while one of these is changed or measured.
    """

    hooks: Hooks = field(default_factory=Hooks)
    step_seconds: float | None = None
    pass_costs: dict[object, Any] = field(default_factory=dict)
    spare: Any = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def give_back(self) -> None:
        """Let go of the spare caches and graphs."""
        with self.lock:
            kept, self.spare = self.spare, None
        if kept is not None:
            kept.give_back()
