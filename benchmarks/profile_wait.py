"""How long a profile is waited for after its run: with torch's own events, and without.

    python -m benchmarks.profile_wait

The default pair is profiled on a CPU, and what the tracer kept of a run is read twice: as torch
does it, and as `mspeckv_study.profiling.host_events` does. Both give the same tables
(``tests/test_profiling.py``).
"""

from __future__ import annotations

import time
from statistics import median

import torch
from torch import profiler

from benchmarks.report import Rows, machine, table
from mspeckv import KVPolicy, Pair, RunConfig, Sampling, documents, load_pair, record, stream
from mspeckv_study.profiling.host_events import host_events

TOKENS, TURNS, PROMPT = (8, 16, 32), 3, 1024


def main() -> None:
    """Print the table."""
    print(f"{machine(torch.device('cpu'))}\n")
    pair, rows = load_pair(weights="float"), Rows()
    for tokens in TOKENS:
        turns = [waits(pair, tokens) for _ in range(TURNS)]
        events, by_torch, straight = (median(column) for column in zip(*turns, strict=True))
        rows.append((tokens, int(events), by_torch, straight, by_torch / straight))
    print(
        f"Prompt of {PROMPT} tokens, int8 10 + 10 of 30 layers, medians of {TURNS} turns (measured)"
    )
    print(table(("new tokens", "events", "torch's, s", "straight, s", "torch's / straight"), rows))


def waits(pair: Pair, tokens: int) -> tuple[int, float, float]:
    """Events of a run, and the seconds in which each way reads them."""
    prompt = documents.load_document("python-reference", pair.tokenizer, PROMPT)
    greedy = Sampling(temperature=0, stop_at_eos=False)
    config = RunConfig.build(
        new_tokens=tokens, policy=KVPolicy(8, on_chip=10, resident=10), sampling=greedy
    )
    events = stream(pair, prompt, config)
    next(events)
    record.record_spans(on=True)
    with profiler.profile(profile_memory=True, with_flops=True) as taken:
        list(events)
    record.record_spans(on=False)
    assert taken.profiler is not None
    begun = time.perf_counter()
    found = host_events(taken.profiler.kineto_results)
    between = time.perf_counter()
    taken.events()
    return len(found), time.perf_counter() - between, between - begun


if __name__ == "__main__":
    main()
