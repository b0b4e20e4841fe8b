"""Running something under torch's profiler, and what its events say."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from math import prod
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, Unpack

from torch import profiler
from transformers import PreTrainedModel

from mspeckv import record
from mspeckv.accelerate.ordered_weights import PRODUCT
from mspeckv.accelerate.packed_weights import PRODUCT as PACKED_PRODUCT
from mspeckv.api import stream
from mspeckv.events import Event, Round, RunSummary
from mspeckv.models.pair import Pair, own_part
from mspeckv.models.text import Prompt
from mspeckv.record import Progress
from mspeckv.settings import RunConfig, Settings, check_count, check_kind, refuse
from mspeckv_study.profiling.host_events import host_events
from mspeckv_study.profiling.result import TRACE, OpRow, Profile
from mspeckv_study.profiling.spans import Span, spans_of

MOST_TOKENS, MOST_WITH_STACKS = 512, 64
"""Tokens that are profiled without being asked for by a number of rounds."""

EMPTY, EMPTIES = "empty", 50
"""Name and number of the ranges by which a range's own cost is measured."""

_one_at_a_time = threading.Lock()


class NothingProfiled(RuntimeError):
    """The run was cancelled before its first round."""


def profile(
    pair: Pair,
    prompt: Prompt,
    config: RunConfig | None = None,
    *,
    rounds: int | None = None,
    stacks: bool = False,
    memory: bool = True,
    overhead: bool = True,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Profile:
    """Decode under torch's profiler and read the result by tier and step.

    Prefill is not profiled. What ranges are called: ``docs/profiling.md``. On a GPU a range is what
    the host did, ``wait`` is its waiting for the device, and ``device_ms`` what a range took there;
    operators show both sides.

    Args:
        config: the run's settings; or give them one by one.
        rounds: profile so many rounds, then run on without; default: all of a short run.
        stacks: keep Python stacks, in the trace: large.
        memory: keep allocations.
        overhead: first run the same without a profiler, to say what profiling costs.
        on_event: told of the profiled run's events as they come.
        cancel: as for `mspeckv.stream`, and so ``on_progress``.
        settings: as for `mspeckv.generate`, instead of ``config``.

    Raises:
        ValueError: a setting that is not allowed; a long run without ``rounds``.
        RuntimeError: a profile is being taken already: torch has one profiler per process; or,
            `NothingProfiled`, the run was cancelled before its first round.
    """
    if rounds is not None:
        check_count("rounds", rounds, 1)
    most = MOST_WITH_STACKS if stacks else MOST_TOKENS
    if config is not None and settings:
        raise refuse("settings", sorted(settings), "use either a config or single settings")
    config = config or RunConfig.build(**settings)
    check_kind("config", config, RunConfig)
    check_kind("pair", pair, Pair)
    if rounds is None and config.new_tokens > most:
        allowed = f"a trace of {config.new_tokens} tokens is large: say how many rounds to profile"
        raise refuse("rounds", None, allowed)
    if not _one_at_a_time.acquire(blocking=False):
        raise RuntimeError("a profile is being taken already; there can be one at a time")
    try:
        begin = partial(stream, pair, prompt, config, cancel=cancel, on_progress=on_progress)
        plain = _plain_ms(pair, begin) if overhead else None
        return _take(pair, begin, rounds, stacks, memory, plain, on_event)
    finally:
        _one_at_a_time.release()


def _plain_ms(pair: Pair, begin: Callable[[], Iterator[Event]]) -> float | None:
    """Milliseconds per token of the run without a profiler.

    On a GPU a first run also builds kernels and captures graphs, so there the second one counts.
    """
    for _ in range(2 if pair.device.type == "cuda" else 1):
        *_, last = begin()
    assert isinstance(last, RunSummary)
    return last.ms_per_token or None


def _take(
    pair: Pair,
    begin: Callable[[], Iterator[Event]],
    rounds: int | None,
    stacks: bool,
    memory: bool,
    plain: float | None,
    on_event: Callable[[Event], None] | None,
) -> Profile:
    on_gpu = [profiler.ProfilerActivity.CUDA] if pair.device.type == "cuda" else []
    # torch's tracer writes lines about itself, unless told not to before its first trace
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    taken = profiler.profile(
        activities=[profiler.ProfilerActivity.CPU, *on_gpu],
        profile_memory=memory,
        with_stack=stacks,
        with_flops=True,
    )
    events = begin()
    done: list[Round] = []
    summary: RunSummary | None = None
    told = on_event or (lambda event: None)
    prefill = next(events)
    if isinstance(prefill, RunSummary):
        raise NothingProfiled("the run was cancelled before its first round")
    told(prefill)
    with ExitStack() as profiled:
        record.record_spans(on=True)
        taken.start()
        profiled.callback(taken.stop)
        profiled.callback(record.record_spans, on=False)
        begun = time.perf_counter()
        for _ in range(EMPTIES):
            with record.span(EMPTY):
                pass
        start = end = time.perf_counter()
        for event in events:
            if isinstance(event, RunSummary):
                summary = event
            elif isinstance(event, Round) and (rounds is None or len(done) < rounds):
                done.append(event)
                end = time.perf_counter()
                if len(done) == rounds:
                    profiled.close()
            told(event)
    assert summary is not None
    assert taken.profiler is not None
    raw = taken.profiler.kineto_results
    found = taken.events() if on_gpu else host_events(raw)
    spans, ops, gflop = _read_events(found)
    # in all an empty range takes more than its own time, which is in the profile
    empty_us = (start - begun) / EMPTIES * 1e6
    within = [one.time_range.elapsed_us() for one in found if one.name == EMPTY]
    folder = TemporaryDirectory(prefix="mspeckv-")
    taken.export_chrome_trace(str(Path(folder.name) / TRACE))
    tokens = sum(len(one.tokens) for one in done)
    wall = (end - start) * 1e3
    return Profile(
        spans=spans,
        range_us=max(empty_us - mean(within), 0.0),
        rounds=tuple(done),
        summary=summary,
        wall_ms=wall,
        overhead=wall / tokens / plain - 1 if plain and tokens else None,
        ops=ops,
        memory=_memory_of(raw, spans[0].start) if memory and spans else (),
        gflop=gflop,
        weights=(_weights_read(pair.draft), _weights_read(pair.target)),
        trace_folder=folder,
    )


def _weights_read(model: PreTrainedModel | None) -> int:
    """Bytes of weights that a pass reads: of an embedding that is not the head too, only rows."""
    if model is None:
        return 0
    rows, head = model.get_input_embeddings(), model.get_output_embeddings()
    read = {*model.parameters()} - {rows.weight} | {head.weight}
    return sum(own_part(weight).nbytes for weight in read)


def _read_events(
    events: Sequence[Any],
) -> tuple[tuple[Span, ...], tuple[OpRow, ...], dict[tuple[int | None, str], float]]:
    """Spans, operators by tier, and 1e9 operations by tier and step, of a profiler's events."""
    spans = spans_of(events)
    starts = [span.start for span in spans]
    ops: dict[tuple[int | None, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    gflop: dict[tuple[int | None, str], float] = defaultdict(float)
    for event in events:
        if not event.name.startswith(("aten::", "mkldnn::", PACKED_PRODUCT)):
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
    if event.name in (PRODUCT, PACKED_PRODUCT):
        # the profiler has a formula for torch's own products only
        rows, *weights = event.input_shapes[: 2 if event.name == PRODUCT else None]
        return 2.0 * float(prod(rows[:-1]) * sum(map(prod, weights)))
    return float(event.flops or 0)


def _innermost(spans: Sequence[Span], starts: Sequence[float], moment: float) -> Span | None:
    """The deepest span that ``moment`` lies in."""
    for place in range(bisect_right(starts, moment) - 1, -1, -1):
        if spans[place].end > moment:
            return spans[place]
        if spans[place].depth == 0:
            break
    return None


def _memory_of(results: Any, zero: float) -> tuple[tuple[float, int], ...]:
    """Bytes allocated since ``zero`` (microseconds), after each allocation or release.

    ``results`` are raw: events count what an operator releases against what it takes.
    """
    begun = results.trace_start_ns()
    changes = sorted(
        (((event.start_ns() - begun) / 1e3 - zero) / 1e3, event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    )
    held = accumulate(change for _, change in changes)
    return tuple((moment, size) for (moment, _), size in zip(changes, held, strict=True))
