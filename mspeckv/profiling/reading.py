"""What a profiler's events say: our ranges, operators by tier, operations, memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from mspeckv.accelerate.ordered_weights import PRODUCT
from mspeckv.profiling.result import OpRow
from mspeckv.profiling.spans import Span, spans_of


def read_events(
    events: Iterable[Any],
) -> tuple[tuple[Span, ...], tuple[OpRow, ...], dict[tuple[int | None, str], float]]:
    """Spans, operators by tier, and 1e9 operations by tier and step, of a profiler's events."""
    listed = list(events)
    spans = spans_of(listed)
    starts = [span.start for span in spans]
    ops: dict[tuple[int | None, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    gflop: dict[tuple[int | None, str], float] = defaultdict(float)
    for event in listed:
        if not event.name.startswith(("aten::", "mkldnn::")):
            continue
        inside = _innermost(spans, starts, event.time_range.start)
        tier = inside.tier if inside is not None else None
        found = ops[tier, event.name]
        found[0] += 1
        found[1] += event.self_cpu_time_total / 1e3
        found[2] += event.self_device_time_total / 1e3
        if inside is not None:
            gflop[tier, inside.name] += operations(event) / 1e9
    rows = tuple(
        OpRow(tier, name, int(calls), own, device)
        for (tier, name), (calls, own, device) in ops.items()
    )
    return spans, rows, dict(gflop)


def operations(event: Any) -> float:
    """Multiplications and additions of one operator, of those that are counted."""
    if event.name == PRODUCT:
        # the profiler has a formula for torch's own products only
        rows, weight = event.input_shapes[:2]
        return 2.0 * float(prod(rows) * weight[0])
    return float(event.flops or 0)


def _innermost(spans: Sequence[Span], starts: Sequence[float], moment: float) -> Span | None:
    """The deepest span that ``moment`` lies in."""
    place = bisect_right(starts, moment) - 1
    while place >= 0:
        if spans[place].end > moment:
            return spans[place]
        if spans[place].depth == 0:
            return None
        place -= 1
    return None


def memory_of(results: Any, zero: float) -> tuple[tuple[float, int], ...]:
    """Bytes allocated since ``zero`` (microseconds), after each allocation or release.

    Args:
        results: the profiler's raw ones: its events count what is released inside an operator
            against what is taken there.
    """
    begun = results.trace_start_ns()
    records = [
        ((event.start_ns() - begun) / 1e3, event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    held, out = 0, []
    for moment, change in sorted(records):
        held += change
        out.append(((moment - zero) / 1e3, held))
    return tuple(out)
