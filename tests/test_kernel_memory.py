"""A kernel that runs again and again does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# The panel keeps six runs for comparison: from then on nothing may be added.
RUNS, WARM = 12, 8
# Allocators keep pages back for a while. A run's KV is 12 MB: keeping it would show as 144 MB.
MOST_GROWTH = 60e6


PANEL = f"""
import gc, json, psutil
from mspeckv import load_pair
from mspeckv_widgets import LiveLab

lab, process, seen = LiveLab(load_pair()), psutil.Process(), []
lab.controls.set(prefill=256, new_tokens=8, link="off", budget=96)
for _ in range({WARM + RUNS}):
    lab.run()
    assert lab.wait(60)
    assert lab.state == "done", lab.error
    gc.collect()
    found = process.memory_info()
    # without pages of files: the system takes them away when it likes, and another process that
    # maps the same file makes them shared
    seen.append(found.rss - getattr(found, "shared", 0))
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_memory_stays_flat_over_twelve_runs_of_the_panel() -> None:
    """In a process of its own, as a kernel is one.

    Each run has a thread. Beside dozens of other threads, such as tests leave, glibc gives each
    next one another heap, and every heap keeps the 29 MB that its run has freed, until all have.
    """
    *_, seen = printed(PANEL)
    warm, end = seen[WARM - 1], seen[-1]
    assert end - warm < MOST_GROWTH, [round(one / 1e6) for one in seen]


def printed(script: str) -> list[Any]:
    """The lines of JSON that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    ((before, after, whole, weights),) = printed(MAPPED)
    assert sum(after) == pytest.approx(whole, rel=0.02)
    # the trial pass has read them all, but for some of the embedding
    assert before[1] == 0
    assert 0.6 < after[1] / weights <= 1
    assert after[0] > 50
