"""A kernel that runs again and again does not grow."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import psutil
import pytest

from mspeckv import Pair
from mspeckv_widgets import LiveLab

# The panel keeps six runs for comparison: from then on nothing may be added.
RUNS, WARM = 12, 8
# Allocators keep pages back for a while. A run's KV is 12 MB: keeping it would show as 144 MB.
MOST_GROWTH = 60e6


@pytest.mark.slow
def test_memory_stays_flat_over_twelve_runs_of_the_panel(pair: Pair) -> None:
    lab = LiveLab(pair)
    lab.controls.set(prefill=256, new_tokens=8, link="off", budget=96)
    seen = []
    for _ in range(WARM + RUNS):
        lab.run()
        assert lab.wait(60)
        assert lab.state == "done", lab.error
        gc.collect()
        seen.append(allocated())
    warm, end = seen[WARM - 1], seen[-1]
    assert end - warm < MOST_GROWTH, [round(one / 1e6) for one in seen]


def allocated() -> int:
    """Bytes in memory that this process has allocated.

    Pages of files are not among them, such as the weights': the system takes them away when it
    likes, and another process that maps the same file makes them shared.
    """
    found = psutil.Process().memory_info()
    return int(found.rss - getattr(found, "shared", 0))


MAPPED = """
import json, psutil
from benchmarks.kernel_memory import mapped
from mspeckv import load_pair
process = psutil.Process()
before = mapped(process)
packed = load_pair(weights="int4")
after = mapped(process)
print(json.dumps([before, after, process.memory_info().rss / 1e6, packed.weight_bytes / 1e6]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="maps are told apart by Linux's names")
@pytest.mark.usefixtures("pair")
def test_weights_are_mapped_and_told_apart_from_code_and_the_rest() -> None:
    """In a process of its own: here other weights are mapped, which the system may take away."""
    done = subprocess.run(
        [sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True
    )
    before, after, whole, weights = json.loads(done.stdout)
    assert sum(after) == pytest.approx(whole, rel=0.02)
    # the trial pass has read them all, but for some of the embedding
    assert before[1] == 0
    assert 0.6 < after[1] / weights <= 1
    assert after[0] > 50
