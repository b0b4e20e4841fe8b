"""Every pass and transfer can be watched as it happens, and they are those of the events."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import pytest

from mspeckv import KVPolicy, Link, Pass, Prefill, Round, RunConfig, RunSummary, Sampling, Transfer
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import stream
from mspeckv.events import Event
from mspeckv.record import CudaClock, Ledger, Recorder
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt

CONFIG = RunConfig(
    "mspeckv", 24, KVPolicy(8, 1, block=16, group=8), SMALL,
    Sampling(0, stop_at_eos=False), Link("custom", 0.05),
)  # fmt: skip


def steps_of(events: list[Event]) -> tuple[list[Pass], list[Transfer]]:
    """What the events tell."""
    told = [event for event in events if isinstance(event, Prefill | Round)]
    return (
        [one for event in told for one in event.passes],
        [one for event in told for one in event.transfers],
    )


@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
@pytest.mark.parametrize("kept", [False, True])
def test_steps_seen_are_those_of_the_events(method: str, kept: bool) -> None:
    prefills = Prefills() if kept else None
    for _ in range(2):
        seen: list[Pass | Transfer] = []
        config = replace(CONFIG, method=method)
        run = stream(tiny_pair(), tiny_prompt(), config, prefills=prefills, on_step=seen.append)
        events, counts = [], []
        for event in run:
            events.append(event)
            counts.append(len(seen))
        passes, transfers = steps_of(events)
        assert [one for one in seen if isinstance(one, Pass)] == passes
        moved = [one for one in seen if isinstance(one, Transfer)]
        # the wait is known once compute goes on
        assert moved == [replace(one, wait_ms=0.0) for one in transfers]
        last = events[-1]
        assert isinstance(last, RunSummary)
        by_way = Counter[str]()
        for one in moved:
            by_way[one.direction] += one.bytes
        assert by_way["to_device"] == last.link.to_device_bytes > 0
        assert by_way["to_host"] == last.link.to_host_bytes > 0
        # as they happen, not all at the end
        assert counts[0] > 0
        assert sorted(counts) == counts
        assert len(set(counts)) >= len(counts) - 1


def test_steps_are_told_before_their_event_and_on_their_own_thread() -> None:
    seen: list[tuple[str, str]] = []
    run = stream(
        tiny_pair(), tiny_prompt(), CONFIG,
        on_step=lambda one: seen.append((type(one).__name__, threading.current_thread().name)),
    )  # fmt: skip
    next(run)
    assert ("Pass", threading.current_thread().name) in seen
    assert ("Transfer", "mspeckv-link") in seen
    assert {name for _, name in seen} == {threading.current_thread().name, "mspeckv-link"}
    run.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Pass, Transfer])
def test_a_watcher_that_raises_loses_nothing(kind: type) -> None:
    (*_, alone) = stream(tiny_pair(), tiny_prompt(), CONFIG)
    calls = []

    def raises(one: Pass | Transfer) -> None:
        calls.append(one)
        if isinstance(one, kind):
            raise KeyError("a slip")

    with pytest.warns(UserWarning, match=r"on_step raised KeyError\('a slip'\)") as warned:
        events = list(stream(tiny_pair(), tiny_prompt(), CONFIG, on_step=raises))
    assert len(warned) == 1
    assert sum(isinstance(one, kind) for one in calls) == 1
    last = events[-1]
    assert isinstance(last, RunSummary)
    assert isinstance(alone, RunSummary)
    assert last.tokens == alone.tokens
    assert last.link.to_device_bytes == alone.link.to_device_bytes
    _, transfers = steps_of(events)
    assert sum(t.bytes for t in transfers if t.direction == "to_device") == (
        last.link.to_device_bytes
    )


def test_a_devices_passes_are_told_when_the_round_is_taken() -> None:
    class Late(CudaClock):
        """A device's clock without one."""

        def __init__(self) -> None:
            self.marks = 0

        def mark(self) -> float:
            self.marks += 1
            return self.marks

        def seconds(self, mark: float) -> float:
            return mark

        def now(self) -> float:
            return 0.0

    seen: list[Pass | Transfer] = []
    recorder = Recorder(Ledger(Late(), seen.append))
    for tier in (0, 1, 2):
        recorder.passed(Pass(tier, "verify", 1, 0, 0.0, 0.0), recorder.mark())
        assert not seen
    assert recorder.so_far()[0] == recorder.take().passes == tuple(seen)
    assert [one.tier for one in seen] == [0, 1, 2]
