"""A kernel that runs again and again does not grow."""

from __future__ import annotations

import gc
import os

import psutil
import pytest

from mspeckv import Pair
from mspeckv_widgets import LiveLab

# The panel keeps six runs for comparison: from then on nothing may be added.
RUNS, WARM = 20, 8
# Allocators keep pages back for a while. A run's KV is 12 MB: keeping it would show as 240 MB.
MOST_GROWTH = 60e6


@pytest.mark.slow
def test_memory_stays_flat_over_20_runs_of_the_panel(pair: Pair) -> None:
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
