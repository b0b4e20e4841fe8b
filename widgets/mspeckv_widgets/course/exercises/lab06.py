"""What if: a lower bound, what stands above it, and how far a formula is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mspeckv_study.whatif import HARDWARE, MODELS, origin_machine
from mspeckv_study.whatif.machines import LAYER_KERNELS, PASS_KERNELS
from mspeckv_study.whatif.origin import cells, errors
from mspeckv_widgets.course.answers import as_number, call, near, same_function, short, tried
from mspeckv_widgets.course.exercise import Exercise, Score, StillOpen, Verdict, is_open

MACHINE = "h100"
LAUNCHES = 17 * LAYER_KERNELS + PASS_KERNELS
"""Of a pass that waits for its streamed layers: 17 layers of kernels, and those of the pass."""
MADE_UP = ((10.0, 20.0), (26.0, 11.5), (50.0, 3.0))
"""Machines that exercise 4 must find: microseconds of a launch, 1e9 bytes per second."""
STREAMED = np.array([2.2, 4.3, 6.5, 8.6]) * 1e9
_CLOSE = 0.01
_MISS = 0.05
"""By how much a fit may miss a latency that it was given."""


def bound_ms(weight_bytes: float, kv_bytes: float, gbps: float) -> float:
    """Least milliseconds of a pass that reads so many bytes."""
    return (weight_bytes + kv_bytes) / (gbps * 1e9) * 1e3


def check_bound(found: Any) -> Verdict:
    """A function: bytes over bandwidth, in milliseconds."""
    cases = [(1e9, 0.0, 1000.0), (13.2e9, 17.2e9, 2914.0), (0.0, 5e8, 11.6)]
    return same_function(found, bound_ms, cases, "a pass can be no faster, however it is written.")


def check_ridge(answer: Any) -> Verdict:
    """Tokens per pass from which on arithmetic lasts as long as reading the weights."""
    machine = HARDWARE[MACHINE]
    right = machine.matrix_gflops / machine.memory_gbps
    why = "so checking nine tokens takes no longer than producing one."
    found = as_number(answer)
    if found is not None and abs(found / (2 * right) - 1) < 0.05:
        return Verdict(False, "twice too many: a float16 weight has 2 bytes and takes 2 operations")
    return near(answer, right, 0.05, why)


def pass_ms(held: int, streamed: int, compute_ms: float, transfer_ms: float) -> float:
    """A pass whose streamed layers arrive while the one before is computed."""
    if streamed == 0:
        return held * compute_ms
    overlapped = (streamed - 1) * max(compute_ms, transfer_ms)
    return held * compute_ms + transfer_ms + overlapped + compute_ms


def check_pass(found: Any) -> Verdict:
    """A function: layers held, layers streamed, milliseconds of each; the first wait is exposed."""
    cases = [
        (16, 16, 1.2, 0.0),
        (2, 1, 1.0, 5.0),
        (16, 16, 1.2, 12.0),
        (4, 8, 3.0, 2.0),
        (32, 0, 1.2, 9.0),
    ]
    why = "the first transfer and the last layer stand alone; between them the longer one lasts."
    return same_function(found, pass_ms, cases, why)


def pass_times(launch_us: float, gbps: float, streamed: NDArray[np.float64]) -> Any:
    """Milliseconds of passes that take their launches and bring so many bytes."""
    return LAUNCHES * launch_us / 1e3 + streamed / gbps / 1e6


def published_passes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bytes over the link, and milliseconds, of A1's four passes of plain decoding (published)."""
    fitted = [cell for cell in cells() if cell.fitted and cell.table == "A1"]
    # of 32 layers 16 stream; on average half of the 256 new tokens are there
    token = 16 * MODELS["llama-2-7b"].kv(torch.float16).token_bytes
    streamed = np.array([token * (cell.value + 128) for cell in fitted], dtype=float)
    return streamed, np.array([1e3 / cell.published for cell in fitted])


def check_fit(found: Any) -> Verdict:
    """A function finds made-up machines, then one for the published latencies that predicts."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for machine in MADE_UP:
        case = STREAMED, pass_times(*machine, STREAMED)
        gave = call(found, *case)
        if is_open(gave):
            raise StillOpen
        made = _machine_of(gave)
        if made is None or not np.allclose(made, machine, rtol=_CLOSE):
            told = f"of a machine of {machine[0]:g} us a launch and {machine[1]:g} GB/s, whose "
            told += "latencies are exact, it finds another one"
            seen = tried(found, case, short(gave), short(machine))
            return Verdict(False, told, attempt=seen)
    return _fit_judged(found, published_passes())


def _machine_of(gave: Any) -> tuple[float, float] | None:
    """Two numbers above 0, or None."""
    if not isinstance(gave, Sequence | np.ndarray) or len(gave) != 2:
        return None
    launch_us, gbps = (as_number(one) for one in gave)
    if launch_us is None or gbps is None or not (0 < launch_us < 1e6 and 0 < gbps < 1e6):
        return None
    return launch_us, gbps


def _fit_judged(found: Any, case: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Verdict:
    """By the latencies that it was given, then by the cells that it was not."""
    made = _machine_of(call(found, *case))
    if made is None:
        return Verdict(False, "of the published latencies it makes no two numbers above 0")
    told = f"a launch of {made[0]:.1f} us, a link of {made[1]:.2f} GB/s"
    missed = float(np.abs(pass_times(*made, case[0]) / case[1] - 1).max())
    if missed > _MISS:
        return Verdict(False, f"{told}: a latency that it was given is missed by {missed:.0%}")
    there = replace(origin_machine(), launch_us=made[0], link_gbps=made[1])
    missing = errors(cells(there))
    middle = 100 * float(np.median(missing))
    return Verdict(
        True,
        f"{told}. Over {len(missing)} cells that it never saw, the median error is {middle:.1f} %, "
        f"the worst {100 * float(missing.max()):.0f} % (modelled).",
        Score(round(middle, 3), "% off in the median, over unseen cells", "modelled", True),
    )


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "bytes over bandwidth",
        check_bound,
        "Everything is read once. Mind the units: bytes per second on one side, milliseconds on "
        "the other.",
        "Add the bytes, then divide by gbps * 1e9: that is in seconds.",
    ),
    "e2": Exercise(
        "where the roofline bends",
        check_ridge,
        "Both times grow with the number of weights, so it drops out. Which of the two grows with "
        "the tokens of a pass?",
        "Per weight: 2 n operations over the card's operations per second, and 2 bytes over its "
        "bytes per second; set them equal.",
    ),
    "e3": Exercise(
        "a pass that streams",
        check_pass,
        "Draw it for two streamed layers, with transfers shorter and with transfers longer than a "
        "layer's arithmetic. What if none is streamed?",
        "Wait for the first, then compute it while the second arrives, then compute the second: "
        "of transfers and layers, the first of one and the last of the other stand alone.",
    ),
    "e4": Exercise(
        "fit a machine, and let it predict",
        check_fit,
        "Milliseconds against bytes lie on a straight line. What does its slope stand for, and "
        "what does its height at no bytes?",
        "slope, start = numpy.polyfit(streamed, ms, 1): ms for each byte, and ms that are there "
        "without any. The start is 810 launches; 1e-6 / slope is 1e9 bytes per second.",
    ),
}
