"""Static passes as CUDA graphs: captured once, replayed in one launch per piece.

A pass is one graph, or several where the host has work in the middle of it: at every layer that is
brought over the link or unpacked, capture ends, the host's work is noted, and capture of the next
piece begins. A replay launches the pieces and does that work in between, so that streaming goes on
with the sizes of the moment while everything else is fixed.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from weakref import WeakSet

import torch

from mspeckv.accelerate.static_passes import Cut

Body = Callable[[Cut], torch.Tensor]
"""A static pass: runs its kernels, calls its argument where the host has work, returns logits."""


_RARE = 400
"""Times that a pass must come until what it saves over a wider one pays for its capture: on an H100
0.1 ms of 5 (a pass of eight tokens of a small target, not of 32), and 45."""


_live: WeakSet[Graphs] = WeakSet()
capturing = threading.Lock()
"""Held while a pass is captured: CUDA lets no thread wait for the whole device meanwhile, or give
memory back. Code outside of the engine that does so beside a run had better run without graphs."""


def forget_all() -> None:
    """Let go of every pass that this process has captured.

    A graph that holds a collective keeps its group alive: no process can leave one before.
    """
    with capturing:
        for graphs in list(_live):
            graphs.forget()
        gc.collect()
        torch.cuda.synchronize()


def run_now(action: Callable[[], None]) -> None:
    """The cut of a pass that is not captured."""
    action()


class Direct:
    """Runs static passes as they are: on a CPU, or where capture does not work."""

    def rare(self, key: Hashable) -> bool:
        """No pass is captured, so none is too rare."""
        return False

    def ready(self, key: Hashable) -> bool:
        """Nothing is built for a pass."""
        return True

    def run(self, key: Hashable, body: Body) -> torch.Tensor:
        """The pass's logits."""
        return body(run_now)


@dataclass
class _Captured:
    """A pass's pieces in order, each with the host's work after it."""

    pieces: list[tuple[torch.cuda.CUDAGraph, Callable[[], None] | None]] = field(
        default_factory=list
    )
    out: torch.Tensor | None = None

    def replay(self) -> torch.Tensor:
        for graph, action in self.pieces:
            graph.replay()
            if action is not None:
                action()
        assert self.out is not None
        return self.out


class Graphs:
    """Captures a pass when it comes for the second time, and replays it from then on.

    The first time it runs as it is, which builds what kernels build lazily and captures nothing
    that comes but once. Where capture fails, the pass stays as it is, with a warning.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[Hashable] = set()
        self._captured: dict[Hashable, _Captured | None] = {}
        self._wanted: dict[Hashable, int] = defaultdict(int)
        _live.add(self)

    @property
    def captured(self) -> int:
        """Passes captured."""
        return sum(found is not None for found in self._captured.values())

    def rare(self, key: Hashable) -> bool:
        """Whether ``key``, wanted once more, still comes too seldom to be captured.

        A capture takes as long as ten replays and more, and a wide pass hardly longer than a
        narrow one: where lengths change, rare ones had better go by the graph of a wider one.
        """
        if key in self._captured:
            return False
        self._wanted[key] += 1
        return self._wanted[key] <= _RARE

    def ready(self, key: Hashable) -> bool:
        """Whether running ``key`` builds nothing any more, so that its time says what it takes."""
        return key in self._captured

    def run(self, key: Hashable, body: Body) -> torch.Tensor:
        """The logits of the pass called ``key``; overwritten when it is run again."""
        if key not in self._seen:
            self._seen.add(key)
            return body(run_now)
        if key not in self._captured:
            self._captured[key] = self._capture(body)
        found = self._captured[key]
        return body(run_now) if found is None else found.replay()

    def forget(self) -> None:
        """Let go of every captured pass; each runs as it is from now on."""
        self._captured = dict.fromkeys(self._captured)

    def _capture(self, body: Body) -> _Captured | None:
        """Record a pass without running it; one thread at a time."""
        with capturing:
            return self._record(body)

    def _record(self, body: Body) -> _Captured | None:
        out = _Captured()
        torch.cuda.synchronize()
        self._stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()

        def begin() -> None:
            nonlocal graph
            graph = torch.cuda.CUDAGraph()
            # the link and other threads may go on using CUDA meanwhile
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

        def cut(action: Callable[[], None]) -> None:
            graph.capture_end()
            out.pieces.append((graph, action))
            begin()

        try:
            with torch.cuda.stream(self._stream):
                begin()
                try:
                    out.out = body(cut)
                finally:
                    graph.capture_end()
                out.pieces.append((graph, None))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"a pass is run without a CUDA graph: {reason}", stacklevel=2)
            torch.cuda.synchronize()
            return None
        torch.cuda.current_stream().wait_stream(self._stream)
        return out
