"""The link on CUDA: the PCIe bus, driven by a copy stream.

Both directions share one stream, so copies arrive in the order they were asked for. Neither the
host nor the compute stream ever waits but where `wait` says so, and there only the compute stream
does, on the device.
"""

from __future__ import annotations

from collections import deque

import torch

from mspeckv.kv.link import KVLink, Ticket
from mspeckv.record import CudaClock, Ledger


class CudaLink(KVLink):
    """`mspeckv.kv.link.CopyEngine` for a GPU: pinned host memory on one side, DMA in between."""

    def __init__(self, ledger: Ledger, device: torch.device) -> None:
        super().__init__(ledger, "pcie")
        assert isinstance(ledger.clock, CudaClock)
        self.clock, self.device = ledger.clock, device
        self.stream = torch.cuda.Stream(device)
        self._under_way: deque[Ticket] = deque()

    def __exit__(self, *_: object) -> None:
        self.stream.synchronize()

    def begin(self, ticket: Ticket) -> None:
        """Enqueue a copy, with pinned memory on one side.

        It starts after what the compute stream has been given so far: by then a new record has
        been packed, and a slot's last contents have been read.
        """
        ready = torch.cuda.current_stream(self.device).record_event()
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(ready)
            ticket.begun = self.clock.mark()
            ticket.target.copy_(ticket.source, non_blocking=True)
            ticket.done = self.clock.mark()
        # Holding the ticket holds its tensors: their memory is not reused while the copy runs.
        self._under_way.append(ticket)

    def wait(self, ticket: Ticket) -> None:
        """Let the compute stream, not the host, wait for a copy."""
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
            if not ticket.bytes:
                continue
            start, end = self.clock.seconds(ticket.begun), self.clock.seconds(ticket.done)
            ticket.note(self.ledger, start, (end - start) * 1e3)
            if ticket.met is not None:
                self.ledger.set_wait(ticket.place, ticket.asked.elapsed_time(ticket.met))

    def drain(self) -> None:
        """Block until every copy has arrived, and note them all."""
        self.stream.synchronize()
        torch.cuda.current_stream(self.device).synchronize()
        self.collect()
