"""Ranks that end together: each holds a line to rank 0, and one that goes dead ends it.

A process that is waiting in a collective for another that has died waits for ever on a GPU, and on
a CPU fails with a traceback that says nothing of why. A connection is closed by the system, however
its holder ended; so a thread listens to each of a rank's lines, says in one line what happened, and
ends the rank.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType

import torch.distributed as dist

_BYE = b"."
_PATIENCE = 0.5
"""Seconds that an error waits for a line that may have gone dead, and be its cause."""


class Lifeline:
    """Connections between rank 0 and the others; every rank makes one, at the same time."""

    def __init__(self) -> None:
        self._rank, self._left = dist.get_rank(), threading.Event()
        self._peers: dict[socket.socket, int] = {}
        server = socket.create_server(("", 0)) if self._rank == 0 else None
        told = [(server.getsockname()[1], secrets.token_bytes(16)) if server else (0, b"")]
        dist.broadcast_object_list(told)
        [(port, word)] = told
        if server is None:
            peer = socket.create_connection((os.environ["MASTER_ADDR"], port))
            peer.sendall(word + self._rank.to_bytes(4, "big"))
            self._peers[peer] = 0
        else:
            while len(self._peers) < dist.get_world_size() - 1:
                peer, _ = server.accept()
                said = peer.recv(len(word) + 4, socket.MSG_WAITALL)
                # a stranger's connection is none of ours
                if said.startswith(word):
                    self._peers[peer] = int.from_bytes(said[len(word) :], "big")
            server.close()
        for line in self._peers.items():
            threading.Thread(target=self._listen, args=line, name="lifeline", daemon=True).start()
        sys.excepthook = self._fail

    def let_go(self) -> None:
        """The ranks part: whoever ends from now on takes nobody along."""
        self._left.set()
        sys.excepthook = sys.__excepthook__
        for peer in self._peers:
            peer.sendall(_BYE)

    def _listen(self, peer: socket.socket, rank: int) -> None:
        said = b""
        with suppress(OSError):
            said = peer.recv(1)
        if said != _BYE and not self._left.is_set():
            self._end(f"rank {rank} has ended: rank {self._rank} ends too")

    def _fail(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """An error that nobody caught: without winding down, which may wait for the others."""
        time.sleep(_PATIENCE)
        sys.__excepthook__(kind, error, trace)
        self._end("")

    def _end(self, why: str) -> None:
        try:
            print(why, end="\n" if why else "", file=sys.stderr, flush=True)
            sys.stdout.flush()
        finally:
            # even where nobody listens to what is printed
            os._exit(1)
