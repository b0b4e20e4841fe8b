"""Work that is counted: how long it takes is the machine's matter, and that of what else runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def python_calls(work: Callable[[], object]) -> int:
    """Calls of Python functions that ``work`` makes in this thread.

    No garbage is collected meanwhile: what is told of a collection, and what falls with it,
    would be counted wherever it happens to come (Dask listens to collections, for one).
    """
    count = 0

    def one_more(frame: FrameType, event: str, detail: Any) -> None:
        nonlocal count
        count += event == "call"

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(one_more)
    try:
        work()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return count
