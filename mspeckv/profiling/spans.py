"""The engine's named ranges, from a profiler in memory or from an exported trace."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspeckv.config import refuse

_OURS = re.compile(r"round|record|sample|tier[012]/\w+|kv/\w+|retrieval/\w+")


@dataclass(frozen=True)
class Span:
    """One named range on the host.

    Attributes:
        name: such as ``tier2/verify``.
        start: microseconds on the profiler's clock.
        end: likewise.
        depth: ranges that it lies in.
        tier: of the innermost tier range that it is or lies in; outside, 2 for what is done to
            tier 2's store, and None for the rest.
        self_us: microseconds that are in no range inside it.
    """

    name: str
    start: float
    end: float
    depth: int
    tier: int | None
    self_us: float

    @property
    def total_us(self) -> float:
        """Microseconds from start to end."""
        return self.end - self.start


def nest(ranges: Iterable[tuple[str, float, float]]) -> tuple[Span, ...]:
    """Ranges of one thread as spans, in order of their start.

    Args:
        ranges: name, start and end in microseconds, in any order; each lies in or beside others.
    """
    ordered = sorted(ranges, key=lambda one: (one[1], -one[2]))
    inner = [0.0] * len(ordered)
    depths = [0] * len(ordered)
    tiers: list[int | None] = [None] * len(ordered)
    open_: list[int] = []
    for place, (name, start, end) in enumerate(ordered):
        while open_ and ordered[open_[-1]][2] <= start:
            open_.pop()
        if open_:
            inner[open_[-1]] += end - start
            tiers[place] = tiers[open_[-1]]
        depths[place] = len(open_)
        if name.startswith("tier"):
            tiers[place] = int(name[4])
        elif name.startswith("kv/") and tiers[place] is None:
            tiers[place] = 2
        open_.append(place)
    return tuple(
        Span(name, start, end, depths[place], tiers[place], end - start - inner[place])
        for place, (name, start, end) in enumerate(ordered)
    )


def spans_of(events: Iterable[Any]) -> tuple[Span, ...]:
    """Our ranges among a profiler's `FunctionEvent`s; those on the host."""
    return nest(
        (event.name, event.time_range.start, event.time_range.end)
        for event in events
        if _OURS.fullmatch(event.name) and event.device_type.name == "CPU"
    )


def read_trace(path: str | Path) -> tuple[Span, ...]:
    """Our ranges in an exported Chrome trace (``.json``, or ``.json.gz``).

    Raises:
        ValueError: not such a file.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            events: Sequence[dict[str, Any]] = json.load(file)["traceEvents"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise refuse("trace", str(path), f"use an exported Chrome trace ({error})") from error
    return nest(
        (event["name"], float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in events
        if event.get("ph") == "X"
        and event.get("cat") == "user_annotation"
        and _OURS.fullmatch(str(event["name"]))
    )


def tier_totals(spans: Iterable[Span]) -> dict[int, float]:
    """Milliseconds in each tier's passes."""
    out: dict[int, float] = {}
    for span in spans:
        if span.name.startswith("tier"):
            tier = int(span.name[4])
            out[tier] = out.get(tier, 0.0) + span.total_us / 1e3
    return out
