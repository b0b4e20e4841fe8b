"""What a rank of `tests.test_leaving` does: ``torchrun -m tests.leaving_ranks FOLDER DEVICE END``.

It decodes, with passes captured where the device has graphs, and comes to an end in one of four
ways: ``done``, ``cancelled``, ``failed`` (rank 1 raises), ``lost`` (rank 1 is killed).
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from mspeckv import Pair, Round, RunConfig, Sampling, load_pair, stream
from mspeckv.parallel import Ranks, join, leave
from tests.random_models import random_prompt


def decode(pair: Pair, ranks: Ranks, end: str) -> None:
    """One run, whose end comes after ten rounds unless it is ``done``."""
    cancel = threading.Event()
    for event in stream(
        pair,
        random_prompt(100),
        RunConfig.build(method="autoregressive", new_tokens=40, sampling=Sampling(temperature=0)),
        cancel=cancel,
    ):
        if not isinstance(event, Round) or event.index < 10 or ranks.first:
            continue
        if end == "cancelled":
            cancel.set()
        if end == "failed":
            raise RuntimeError("on purpose")
        if end == "lost":
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run under torchrun."""
    folder, device, end = sys.argv[1:]
    ranks = join()
    assert ranks is not None
    pair = load_pair(folder, "none", device=device, ranks=ranks)
    decode(pair, ranks, "done")
    decode(pair, ranks, end)
    leave(ranks)
    print("left", flush=True)
    # as `mspeckv.parallel.end` does, and why
    os._exit(0)


if __name__ == "__main__":
    main()
