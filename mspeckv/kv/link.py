"""The link between host and device memory, emulated on CPU by a copy thread.

A fetch really copies its bytes on its own thread, then keeps the buffer until
``bytes / bandwidth`` have passed since the link was free, so that copies queue behind one another
and overlap compute as DMA copies do on a GPU.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import torch

from mspeckv.events import Direction, Purpose, Transfer
from mspeckv.record import Ledger, Mark

# A naive 32-token run at 1 k context, 47 MB over the link a token, stays under 20 s on two cores.
LIVE_GBPS = 0.15
# Fit of the published autoregressive column: one layer's transfer takes 26.5 times one layer's
# compute at a 16 k context. Here the ratio is the same at 1 k, the classroom's context.
ORIGIN_TRANSFER_TO_COMPUTE = 26.5
ORIGIN_CONTEXT = 1024


def origin_gbps(step_seconds: float, layers: int, layer_bytes_per_token: int) -> float:
    """Bandwidth, in 1e9 bytes/s, of the preset ``"origin"``.

    Args:
        step_seconds: measured time of one target step with nothing to stream.
        layer_bytes_per_token: unquantized K and V bytes of one layer and token.
    """
    transfer_seconds = ORIGIN_TRANSFER_TO_COMPUTE * step_seconds / layers
    return ORIGIN_CONTEXT * layer_bytes_per_token / transfer_seconds / 1e9


@dataclass
class Ticket:
    """A copy under way, for `KVLink.wait`.

    Attributes:
        arrived: set by the copy thread.
        begun, done, asked, met: a GPU's marks around the copy, and around the wait for it.
        place: in the ledger, once it is noted.
    """

    source: torch.Tensor
    target: torch.Tensor
    direction: Direction
    purpose: Purpose
    layer: int
    tier: int = 2
    arrived: threading.Event = field(default_factory=threading.Event)
    begun: Mark = None
    done: Mark = None
    asked: Mark = None
    met: Mark = None
    place: int = -1

    @property
    def bytes(self) -> int:
        """Bytes of the tensor copied."""
        return self.source.numel() * self.source.element_size()

    def note(self, ledger: Ledger, start: float, ms: float) -> None:
        """Count the finished copy."""
        what = self.direction, self.purpose, self.layer, self.tier
        self.place = ledger.add(Transfer(*what, self.bytes, start, ms))


class KVLink:
    """What carries bytes between host and device: `CopyEngine`, or on CUDA the bus itself.

    Use as a context manager.

    Args:
        ledger: where finished copies are noted.
        kind: ``emulated``, ``memory`` or ``pcie``.
        gbps: as of `mspeckv.events.LinkSummary`.
    """

    def __init__(self, ledger: Ledger, kind: str, gbps: float | None = None) -> None:
        self.ledger, self.kind, self.gbps = ledger, kind, gbps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def copy(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        direction: Direction,
        purpose: Purpose,
        layer: int,
        tier: int = 2,
    ) -> Ticket:
        """Begin a copy of ``source`` (contiguous uint8) into ``target`` of the same shape."""
        ticket = Ticket(source, target, direction, purpose, layer, tier)
        self.begin(ticket)
        return ticket

    def begin(self, ticket: Ticket) -> None:
        """Begin a copy."""
        raise NotImplementedError

    def wait(self, ticket: Ticket) -> None:
        """Compute goes on only when this copy has arrived."""
        raise NotImplementedError

    def collect(self) -> None:
        """Note in the ledger what has arrived, if that is not noted at once."""

    def drain(self) -> None:
        """Block until every copy has arrived and is noted."""
        raise NotImplementedError


def open_link(ledger: Ledger, gbps: float | None, device: torch.device) -> KVLink:
    """The link to ``device``: PCIe on CUDA, else an emulated one of ``gbps``."""
    if device.type == "cuda":
        from mspeckv.kv.cuda_link import CudaLink

        return CudaLink(ledger, device)
    return CopyEngine(ledger, gbps)


class CopyEngine(KVLink):
    """One direction-agnostic copy queue over RAM, throttled to ``gbps`` where that is set.

    Leaving it drops queued copies and ends the thread.
    """

    def __init__(self, ledger: Ledger, gbps: float | None) -> None:
        super().__init__(ledger, "memory" if gbps is None else "emulated", gbps)
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._free_at = 0.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="mspeckv-link", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def begin(self, ticket: Ticket) -> None:
        """Queue a copy."""
        self._queue.put(ticket)

    def wait(self, ticket: Ticket) -> None:
        """Block until the copy has arrived, and note in the ledger for how long.

        Raises:
            RuntimeError: the copy thread failed.
        """
        start = time.perf_counter()
        ticket.arrived.wait()
        if self._failure is not None:
            raise RuntimeError("the link's copy thread failed") from self._failure
        if ticket.place >= 0:
            self.ledger.set_wait(ticket.place, (time.perf_counter() - start) * 1e3)

    def drain(self) -> None:
        """Block until every queued copy has arrived.

        Raises:
            RuntimeError: the copy thread failed.
        """
        nothing = torch.empty(0, dtype=torch.uint8)
        self.wait(self.copy(nothing, nothing, "to_host", "flush", -1))

    def _serve(self) -> None:
        while (ticket := self._queue.get()) is not None:
            if not self._closing.is_set():
                try:
                    self._carry(ticket)
                except BaseException as failure:  # shown to the waiting run, not lost on a thread
                    self._failure = failure
            ticket.arrived.set()

    def _carry(self, ticket: Ticket) -> None:
        if not ticket.bytes:
            return
        start = self.ledger.now()
        # NumPy copies on one core and without the interpreter lock, so compute keeps its threads.
        ticket.target.numpy()[...] = ticket.source.numpy()
        if self.gbps is not None:
            self._free_at = max(self._free_at, start) + ticket.bytes / (self.gbps * 1e9)
            self._closing.wait(max(0.0, self._free_at - self.ledger.now()))
        ticket.note(self.ledger, start, (self.ledger.now() - start) * 1e3)
