"""How long a piece of work takes here."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

_REPEATS = 2


def milliseconds(work: Callable[[], None], warm: bool = True) -> float:
    """Median milliseconds of a few calls, after one that does not count if ``warm``."""
    if warm:
        work()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def wait_for(tensor: torch.Tensor) -> None:
    """Until the device has computed ``tensor``."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
