"""What a tier's passes take on a GPU, kernel by kernel: read off torch's own trace.

A kernel belongs to the pass whose span the host launched it in, alone or by a graph. So a pass's
time falls into three: kernels, by name; gaps between them; and what goes by before the first.
"""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch.profiler import ProfilerActivity, profile

from mspeckv.record import record_spans

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
KINDS = {
    "sums over GPUs": ("nccl",),
    "products": ("gemm", "gemv", "cutlass", "nvjet", "splitk", "cublas"),
    "attention": ("attend", "attention", "flash", "fmha", "softmax", "combine", "join_kernel"),
}
"""Kinds of kernels, and what their names hold; all others are small ones."""


@dataclass(frozen=True)
class PassTime:
    """One pass, in milliseconds.

    Attributes:
        whole: from when the host began it, to the end of its last kernel.
        late: until its first kernel began.
        kernels: how many ran.
        busy: in them, by kind.
        names: in them, by name.
        gaps: between the first and the last, outside of all.
    """

    whole: float
    late: float
    kernels: int
    busy: dict[str, float]
    names: dict[str, float]
    gaps: float


def traced(run: Callable[[], Any], spans: Sequence[str]) -> dict[str, list[PassTime]]:
    """The passes of every name, such as ``tier2/verify``, while ``run`` runs."""
    record_spans(True)
    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            run()
    finally:
        record_spans(False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        found.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return {span: list(passes(events, span)) for span in spans}


def passes(events: Sequence[dict[str, Any]], span: str) -> Iterator[PassTime]:
    """Take a trace's events apart."""
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"] == span
    )
    begins = [begin for begin, _ in spans]
    owner = {}
    for event in events:
        if event.get("cat") in LAUNCHES and "correlation" in event.get("args", {}):
            place = bisect_right(begins, event["ts"]) - 1
            if place >= 0 and event["ts"] <= spans[place][1]:
                owner[event["args"]["correlation"]] = place
    of: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") in ON_DEVICE:
            place = owner.get(event["args"].get("correlation"), -1)
            if place >= 0:
                of[place].append(event)
    for place, kernels in sorted(of.items()):
        yield _pass(begins[place], sorted(kernels, key=lambda event: event["ts"]))


def _pass(begun: float, kernels: list[dict[str, Any]]) -> PassTime:
    busy: dict[str, float] = defaultdict(float)
    names: dict[str, float] = defaultdict(float)
    end, gaps = kernels[0]["ts"], 0.0
    for one in kernels:
        gaps += max(0.0, one["ts"] - end)
        end = max(end, one["ts"] + one["dur"])
        busy[kind_of(one["name"])] += one["dur"] / 1e3
        names[one["name"]] += one["dur"] / 1e3
    late = kernels[0]["ts"] - begun
    whole = end - begun
    return PassTime(whole / 1e3, late / 1e3, len(kernels), dict(busy), dict(names), gaps / 1e3)


def kind_of(name: str) -> str:
    """The kind of a kernel, by its name."""
    low = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in low for p in parts)), "small")


def summary(found: Sequence[PassTime], names: int = 12) -> dict[str, Any]:
    """Medians over passes: what a row of a table holds."""
    if not found:
        return {"passes": 0}
    kinds = sorted({kind for one in found for kind in one.busy})
    every = {name: median(one.names.get(name, 0.0) for one in found)
             for name in {name for one in found for name in one.names}}  # fmt: skip
    longest = sorted(every, key=lambda name: (-every[name], name))[:names]
    return {
        "passes": len(found),
        "whole_ms": [round(one.whole, 3) for one in found],
        "late_ms": median(one.late for one in found),
        "gaps_ms": median(one.gaps for one in found),
        "kernels": median(one.kernels for one in found),
        "busy_ms": {kind: median(one.busy.get(kind, 0.0) for one in found) for kind in kinds},
        "longest_ms": {name: round(every[name], 4) for name in longest},
    }
