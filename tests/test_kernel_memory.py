"""A kernel that runs again and again does not grow."""

from __future__ import annotations

import gc
import os
import sys

import psutil
import pytest

from benchmarks.kernel_memory import mapped
from mspeckv import Pair, load_pair
from mspeckv_widgets import LiveLab

# The panel keeps six runs for comparison: from then on nothing may be added.
RUNS, WARM = 12, 8
# Allocators keep pages back for a while. A run's KV is 12 MB: keeping it would show as 144 MB.
MOST_GROWTH = 60e6


@pytest.mark.slow
def test_memory_stays_flat_over_twelve_runs_of_the_panel(pair: Pair) -> None:
    lab = LiveLab(pair)
    lab.controls.set(prefill=256, new_tokens=8, link="off", budget=96)
    process = psutil.Process(os.getpid())
    seen = []
    for _ in range(WARM + RUNS):
        lab.run()
        assert lab.wait(60)
        assert lab.state == "done", lab.error
        gc.collect()
        seen.append(process.memory_full_info().uss)
    warm, end = seen[WARM - 1], seen[-1]
    assert end - warm < MOST_GROWTH, [round(one / 1e6) for one in seen]


@pytest.mark.skipif(sys.platform != "linux", reason="maps are told apart by Linux's names")
def test_weights_are_mapped_and_told_apart_from_code_and_the_rest() -> None:
    process = psutil.Process(os.getpid())
    before = mapped(process)
    packed = load_pair(weights="int4")
    after = mapped(process)
    assert sum(after) == pytest.approx(process.memory_info().rss / 1e6, rel=0.02)
    # the trial pass has read them all, but for some of the embedding
    assert 0.6 < (after[1] - before[1]) / (packed.weight_bytes / 1e6) <= 1
    assert after[0] > 50
