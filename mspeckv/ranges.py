"""Named ranges for the profiler; they cost next to nothing while none is running."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch.profiler import record_function

_NOTHING: AbstractContextManager[None] = nullcontext()
_active = False


def switch(on: bool) -> None:
    """Record ranges, or stop recording them."""
    global _active  # noqa: PLW0603  # one profiler at a time, as torch has it
    _active = on


def active() -> bool:
    """Whether ranges are recorded."""
    return _active


def span(name: str) -> AbstractContextManager[object]:
    """A range called ``name``, such as ``kv/flush``; nothing without a profiler.

    Args:
        name: what the profile's tables call it.
    """
    return record_function(name) if _active else _NOTHING
