"""The engine's named ranges, from a profiler in memory or from an exported trace."""

from __future__ import annotations

import gzip
import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse

_OURS = re.compile(r"round|plan|settle|record|wait|sample|tier[012]/\w+|kv/\w+|retrieval/\w+")


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
        device_us: on a GPU, microseconds from its first kernel to its last one's end; else 0.
        done: when the device was through with it; on a CPU, its end.
    """

    name: str
    start: float
    end: float
    depth: int
    tier: int | None
    self_us: float
    device_us: float
    done: float

    @property
    def total_us(self) -> float:
        """Microseconds from start to end, on the host."""
        return self.end - self.start


Range = tuple[str, float, float]
"""Name, start and end in microseconds."""


def nest(
    ranges: Iterable[Range], device: Mapping[int, Sequence[Range]] | None = None
) -> tuple[Span, ...]:
    """Ranges of one thread as spans, in order of their start.

    Args:
        ranges: in any order; each lies in or beside others.
        device: by stream of a GPU, from a range's first kernel to its last.
    """
    ordered = sorted(ranges, key=lambda one: (one[1], -one[2]))
    inner, depths = [0.0] * len(ordered), [0] * len(ordered)
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
    there = _on_device(ordered, device or {})
    return tuple(
        Span(
            name, start, end, depths[place], tiers[place], end - start - inner[place],
            there[place][1] - there[place][0], max(end, there[place][1]),
        )
        for place, (name, start, end) in enumerate(ordered)
    )  # fmt: skip


def _on_device(
    ordered: Sequence[Range], device: Mapping[int, Sequence[Range]]
) -> list[tuple[float, float]]:
    """For each range on the host its start and end on the device; (0, 0) where it did nothing.

    Copies over the link have a stream of their own, beside the pass that waits for them: of a
    range whose kernels ran in several streams, the one of most time counts.
    """
    busiest: dict[str, list[Range]] = {}
    for ranges in device.values():
        named: dict[str, list[Range]] = defaultdict(list)
        for one in sorted(ranges, key=lambda one: one[1]):
            named[one[0]].append(one)
        for name, found in named.items():
            if _length(found) > _length(busiest.get(name, ())):
                busiest[name] = found
    out = [(0.0, 0.0)] * len(ordered)
    for name, found in busiest.items():
        places = [place for place, one in enumerate(ordered) if one[0] == name]
        begun = [ordered[place][1] for place in places]
        for count, (_, start, end) in enumerate(found):
            # a range without a kernel leaves a gap: then the last one that had begun is meant
            last = count if len(found) == len(places) else bisect_right(begun, start) - 1
            out[places[max(last, 0)]] = start, end
    return out


def _length(ranges: Sequence[Range]) -> float:
    return sum(end - start for _, start, end in ranges)


def spans_of(events: Iterable[Any]) -> tuple[Span, ...]:
    """Our ranges among a profiler's `FunctionEvent`s."""
    host: list[Range] = []
    device: dict[int, list[Range]] = defaultdict(list)
    for event in events:
        if _OURS.fullmatch(event.name):
            on_host = event.device_type.name == "CPU"
            (host if on_host else device[event.device_resource_id]).append(
                (event.name, event.time_range.start, event.time_range.end)
            )
    return nest(host, device)


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
    host: list[Range] = []
    device: dict[int, list[Range]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and _OURS.fullmatch(str(event["name"])):
            start = float(event["ts"])
            found = event["name"], start, start + float(event["dur"])
            if event.get("cat") == "user_annotation":
                host.append(found)
            elif event.get("cat") == "gpu_user_annotation":
                device[event["tid"]].append(found)
    return nest(host, device)


def tier_totals(spans: Iterable[Span]) -> dict[int, float]:
    """Milliseconds in each tier's passes: until the device is through with each."""
    out: dict[int, float] = defaultdict(float)
    for span in spans:
        if span.name.startswith("tier"):
            out[int(span.name[4])] += (span.done - span.start) / 1e3
    return dict(out)
