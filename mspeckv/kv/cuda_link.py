"""The link on CUDA: the PCIe bus, driven by a copy stream.

Both directions share one stream, so copies arrive in the order they were asked for. Neither the
host nor the compute stream ever waits but where `wait` says so, and there only the compute stream
does, on the device.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from mspeckv.events import Direction, Purpose
from mspeckv.kv.link import Ticket
from mspeckv.record import CudaClock, Ledger, Mark


@dataclass
class CudaTicket(Ticket):
    """A copy in the stream, with the marks around it and around the wait for it."""

    begun: Mark = None
    done: Mark = None
    asked: Mark = None
    met: Mark = None


class CudaLink:
    """`mspeckv.kv.link.CopyEngine` for a GPU: pinned host memory on one side, DMA in between.

    Args:
        ledger: where finished copies are noted; its clock is a `CudaClock`.
        device: the GPU.
    """

    kind = "pcie"
    gbps: float | None = None

    def __init__(self, ledger: Ledger, device: torch.device) -> None:
        assert isinstance(ledger.clock, CudaClock)
        self.ledger, self.clock, self.device = ledger, ledger.clock, device
        self.stream = torch.cuda.Stream(device)
        self._under_way: deque[CudaTicket] = deque()

    def __enter__(self) -> CudaLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.synchronize()

    def copy(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        direction: Direction,
        purpose: Purpose,
        layer: int,
        tier: int = 2,
    ) -> CudaTicket:
        """Enqueue a copy of ``source`` into ``target``, one of them pinned.

        It starts after what the compute stream has been given so far: by then a new record has
        been packed, and a slot's last contents have been read.
        """
        ticket = CudaTicket(source, target, direction, purpose, layer, tier)
        ready = torch.cuda.current_stream(self.device).record_event()
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(ready)
            ticket.begun = self.clock.mark()
            target.copy_(source, non_blocking=True)
            ticket.done = self.clock.mark()
        # Holding the ticket holds its tensors: their memory is not reused while the copy runs.
        self._under_way.append(ticket)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        """Let the compute stream, not the host, wait for a copy."""
        assert isinstance(ticket, CudaTicket)
        ticket.asked = self.clock.mark()
        torch.cuda.current_stream(self.device).wait_event(ticket.done)
        ticket.met = self.clock.mark()

    def collect(self) -> None:
        """Note in the ledger what has arrived; waits for nothing."""
        while self._under_way and self._under_way[0].done.query():
            ticket = self._under_way[0]
            if ticket.met is not None and not ticket.met.query():
                return
            self._under_way.popleft()
            if ticket.bytes:
                self._note(ticket)

    def drain(self) -> None:
        """Block until every copy has arrived, and note them all."""
        self.stream.synchronize()
        torch.cuda.current_stream(self.device).synchronize()
        self.collect()

    def _note(self, ticket: CudaTicket) -> None:
        start, end = self.clock.seconds(ticket.begun), self.clock.seconds(ticket.done)
        ticket.note(self.ledger, start, (end - start) * 1e3)
        if ticket.met is not None:
            self.ledger.set_wait(ticket.place, ticket.asked.elapsed_time(ticket.met))
