"""`benchmarks.pass_kernels` takes a trace apart by the pass that launched a kernel."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.pass_kernels import kind_of, passes, summary


def span(start: float, length: float = 20, name: str = "tier2/verify") -> dict[str, Any]:
    return {"cat": "user_annotation", "name": name, "ts": start, "dur": length}


def launch(start: float, number: int) -> dict[str, Any]:
    return {"cat": "cuda_runtime", "ts": start, "dur": 1, "args": {"correlation": number}}


def kernel(name: str, start: float, length: float, number: int) -> dict[str, Any]:
    args = {"correlation": number}
    return {"cat": "kernel", "name": name, "ts": start, "dur": length, "args": args}


def test_a_kernel_is_of_the_pass_that_launched_it_however_late_it_runs() -> None:
    events = [
        span(10), span(100), span(40, name="tier1/verify"),
        launch(12, 1), launch(112, 2), launch(45, 3),
        # one graph's two, with a gap of 10 in between, the second after the next span began
        kernel("ncclDevKernel_AllReduce", 1030, 1000, 1), kernel("nvjet_hsh", 20, 1000, 1),
        kernel("add", 5000, 10, 2),
        # another tier's, and one that nothing was launched for
        kernel("mul", 9000, 10, 3), kernel("mul", 9100, 10, 4),
    ]  # fmt: skip
    first, second = passes(events, "tier2/verify")
    assert first.whole == pytest.approx(2.02)
    assert first.late == pytest.approx(0.01)
    assert first.gaps == pytest.approx(0.01)
    assert first.busy == {"products": 1.0, "sums over GPUs": 1.0}
    assert (first.kernels, second.kernels, second.busy) == (2, 1, {"small": 0.01})
    row = summary([first, second])
    assert row["passes"] == 2
    assert row["busy_ms"]["products"] == pytest.approx(0.5)
    assert list(row["longest_ms"])[:2] == ["ncclDevKernel_AllReduce", "nvjet_hsh"]


def test_kernels_have_a_kind_each() -> None:
    names = {
        "ncclDevKernel_AllReduce_Sum_f16": "sums over GPUs",
        "sm90_xmma_gemm_f16f16": "products",
        "_attend_codes": "attention",
        "vectorized_elementwise_kernel": "small",
    }
    assert {name: kind_of(name) for name in names} == names
