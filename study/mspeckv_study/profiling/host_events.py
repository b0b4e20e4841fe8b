"""What torch's profiler saw on the host, read from its tracer and not by way of its own events.

torch makes of each event an object of some forty fields, with strides, stacks and the allocations
within; a profile reads seven. Without those objects the events of 16 tokens are read in 0.8 s and
not in 12.5 (benchmarks/results/profile-2-cores.txt). On a GPU, where kernels belong to the operator
that launched them, torch's own are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch.autograd.profiler_util import Interval
from torch.profiler import DeviceType

# what torch leaves out of its events
_LEFT_OUT = {"[memory]", "[OutOfMemory]", "aten::is_leaf", "aten::output_nr", "aten::_version"} | {
    f"profiler::_record_function_{end}" for end in ("enter", "enter_new", "exit")
}


@dataclass(slots=True)
class HostEvent:
    """A range or an operator; names, units and meanings are those of torch's `FunctionEvent`."""

    raw: Any
    name: str
    time_range: Interval
    self_cpu_time_total: float = 0.0
    self_device_time_total: float = 0.0
    device_type: DeviceType = DeviceType.CPU

    @property
    def input_shapes(self) -> list[list[int]]:
        """Of an operator's arguments."""
        shapes: list[list[int]] = self.raw.shapes()
        return shapes

    @property
    def flops(self) -> int:
        """By torch's formulas, 0 without one."""
        return int(self.raw.flops())


def host_events(results: Any) -> list[HostEvent]:
    """Events of a tracer's raw results, in order of their start, but for those on two threads."""
    begun = results.trace_start_ns()
    threads: dict[int, list[HostEvent]] = defaultdict(list)
    for raw in results.events():
        name, thread = raw.name(), raw.start_thread_id()
        if name in _LEFT_OUT or raw.is_async() or thread != raw.end_thread_id():
            continue
        place = Interval((raw.start_ns() - begun) / 1e3, (raw.end_ns() - begun) / 1e3)
        threads[thread].append(HostEvent(raw, name, place))
    return sorted(chain.from_iterable(map(_nested, threads.values())), key=_order)


def _order(event: HostEvent) -> tuple[float, float]:
    return event.time_range.start, -event.time_range.end


def _within(inner: Interval, outer: Interval) -> bool:
    return bool(inner.start < outer.end and inner.end <= outer.end)


def _nested(events: list[HostEvent]) -> Iterator[HostEvent]:
    """One thread's events, each with the time that is in none of those within it.

    An operator that does nothing but call one of its own name is one event with it.
    """
    events.sort(key=_order)
    lengths = [event.time_range.elapsed_us() for event in events]
    parents, inside, children = [-1] * len(events), [0.0] * len(events), [0] * len(events)
    open_: list[int] = []
    for place, event in enumerate(events):
        while open_ and not _within(event.time_range, events[open_[-1]].time_range):
            open_.pop()
        if open_:
            parents[place] = open_[-1]
            inside[open_[-1]] += lengths[place]
            children[open_[-1]] += 1
        open_.append(place)
    # those within come after, so that they are done before
    for place in reversed(range(len(events))):
        event, parent = events[place], parents[place]
        if parent >= 0 and children[parent] == 1 and events[parent].name == event.name:
            inside[parent], children[parent] = inside[place], children[place]
            continue
        event.self_cpu_time_total = lengths[place] - inside[place]
        yield event
