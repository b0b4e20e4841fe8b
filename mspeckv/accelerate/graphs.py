"""Static passes as CUDA graphs: captured once, replayed in one launch per piece.

What `mspeckv.accelerate.workspace` saves, it saves by these.

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
from weakref import WeakSet

import torch

from mspeckv.record import span

Cut = Callable[[Callable[[], None]], None]
"""Called with what the host must do at this point of a pass, each time it is run."""
Body = Callable[[Cut], torch.Tensor]
"""A static pass: runs its kernels, calls its argument where the host has work, returns logits."""

_RARE = 400
"""Where lengths are chosen, a shape that is wanted at most so often runs in a wider one's graph. On
an H100 a capture took 45 ms, and a replay of eight tokens of a small target saved 0.1 ms of the 5
that one of 32 takes."""

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
            # each pass runs as it is from now on
            graphs._captured = dict.fromkeys(graphs._captured)
        gc.collect()
        torch.cuda.synchronize()


def run_now(action: Callable[[], None]) -> None:
    """The cut of a pass that is not captured."""
    action()


class StaticInputs:
    """What a pass over ``width`` tokens reads, in buffers that stay where they are.

    Padding is the last token once more, at its own position and slot: it writes there what that
    token writes, so that it needs no room of its own.

    Args:
        width: rows of the pass.
        ring: give a token the row that its position leaves when divided by ``width``, whatever else
            is read; else the first rows.

    Attributes:
        ids: ``[1, width]`` token ids.
        positions: ``[1, width]``.
        slots: ``[width]`` where new keys go, and what each query sees: slots up to its own.
        tail: ``[width]`` the same in the float tail of packed layers.
        watched: ``[width]`` the same in tier 1's cache, for a pass of tier 2.
        real: ``[width]`` 1 for a token, 0 for padding.
        stands: ``[width]`` the row itself for a token, for padding that of the last token.
        turn: row of the first token.
    """

    def __init__(self, width: int, device: torch.device, ring: bool = False) -> None:
        self.width, self.ring, self.turn = width, ring, 0
        self._on_host = torch.zeros(7, width, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._on_device = torch.zeros(7, width, dtype=torch.int64, device=device)
        self.ids, self.positions = self._on_device[:1], self._on_device[1:2]
        self.slots, self.tail, self.watched, self.real, self.stands = self._on_device[2:].unbind(0)
        self._sent: torch.cuda.Event | None = None

    def fill(self, tokens: list[int], position: int, slot: int, tail: int, watched: int) -> None:
        """Send the pass's tokens, and where the first of them belongs."""
        if self._sent is not None:
            with span("wait"):
                self._sent.synchronize()
        count, width = len(tokens), self.width
        self.turn = position % width if self.ring else 0
        order = [(row - self.turn) % width for row in range(width)]
        places = [min(place, count - 1) for place in order]
        rows = [[tokens[place] for place in places]]
        rows += [[at + place for place in places] for at in (position, slot, tail, watched)]
        rows.append([int(place < count) for place in order])
        rows.append([(place + self.turn) % width for place in places])
        self._on_host.copy_(torch.tensor(rows))
        self._on_device.copy_(self._on_host, non_blocking=True)
        if self._on_device.is_cuda:
            self._sent = torch.cuda.current_stream(self._on_device.device).record_event()

    def last(self, logits: torch.Tensor, count: int, rows: int) -> torch.Tensor:
        """The last ``rows`` of ``count`` tokens' logits, in order, of a pass's ``[width, V]``."""
        start = (self.turn + count - rows) % self.width
        over = max(0, start + rows - self.width)
        found = logits[start : start + rows]
        return torch.cat([found, logits[:over]]) if over else found


class Direct:
    """Runs static passes as they are, such as on a CPU.

    Attributes:
        inputs: what the passes read, by width.
    """

    def __init__(self) -> None:
        self.inputs: dict[int, StaticInputs] = {}

    def rare(self, key: Hashable) -> bool:
        """Whether ``key``, wanted once more, had better go by the graph of a wider pass."""
        return False

    def run(self, key: Hashable, body: Body) -> tuple[torch.Tensor, bool]:
        """The logits of the pass called ``key``; overwritten when it is run again.

        And whether something was built, so that its time does not say what it takes.
        """
        return body(run_now), False


class Graphs(Direct):
    """Captures a pass when it comes for the second time, and replays it from then on.

    The first time it runs as it is, which builds what kernels build lazily and captures nothing
    that comes but once. Where capture fails, the pass stays as it is, with a warning.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[Hashable] = set()
        self._captured: dict[Hashable, Callable[[], torch.Tensor] | None] = {}
        self._wanted: dict[Hashable, int] = defaultdict(int)
        _live.add(self)

    def rare(self, key: Hashable) -> bool:
        """Whether ``key``, wanted once more, still comes too seldom to be captured."""
        if key in self._captured:
            return False
        self._wanted[key] += 1
        return self._wanted[key] <= _RARE

    def run(self, key: Hashable, body: Body) -> tuple[torch.Tensor, bool]:
        """Capture it the second time, replay it then."""
        if key not in self._seen:
            self._seen.add(key)
            return body(run_now), True
        builds = key not in self._captured
        if builds:
            self._captured[key] = self._capture(body)
        found = self._captured[key]
        return body(run_now) if found is None else found(), builds

    def _capture(self, body: Body) -> Callable[[], torch.Tensor] | None:
        """Record a pass without running it; what replays it, None where that fails."""
        # in order, each with the host's work after it
        pieces: list[tuple[torch.cuda.CUDAGraph, Callable[[], None] | None]] = []
        graph = torch.cuda.CUDAGraph()

        def begin() -> None:
            nonlocal graph
            graph = torch.cuda.CUDAGraph()
            # the link and other threads may go on using CUDA meanwhile
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

        def cut(action: Callable[[], None]) -> None:
            graph.capture_end()
            pieces.append((graph, action))
            begin()

        with capturing:
            torch.cuda.synchronize()
            self._stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(self._stream):
                    begin()
                    try:
                        out = body(cut)
                    finally:
                        graph.capture_end()
                    pieces.append((graph, None))
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"a pass is run without a CUDA graph: {reason}", stacklevel=2)
                torch.cuda.synchronize()
                return None
            torch.cuda.current_stream().wait_stream(self._stream)

        def replay() -> torch.Tensor:
            for piece, action in pieces:
                piece.replay()
                if action is not None:
                    action()
            return out

        return replay
