"""What if: a lower bound, what stands above it, and how far a formula is off."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mspeckv.whatif import HARDWARE
from mspeckv.whatif.origin import cells, errors
from mspeckv_widgets.course.answers import as_number, near, same_function
from mspeckv_widgets.course.exercise import Exercise, Verdict

MACHINE = "h100"


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


@cache
def median_error() -> float:
    """Of the cells that count, in percent."""
    return 100 * float(np.median(errors(cells())))


def check_median(answer: Any) -> Verdict:
    """The median absolute error over cells that were not fitted, in percent."""
    number = as_number(answer)
    if number is not None and abs(100 * number / median_error() - 1) < 0.01:
        return Verdict(False, "in percent, please")
    every = 100 * float(np.median([abs(cell.error) for cell in cells()]))
    if number is not None and abs(number / every - 1) < 0.005:
        return Verdict(False, "these are all cells: leave out what was fitted and what is no test")
    return near(answer, median_error(), 0.01, "of cells whose time the model was never shown.")


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
        "how far off, fairly counted",
        check_median,
        "Some cells are no test: those that the machine was fitted on, and the method that is "
        "mostly one streamed pass. Misses have signs.",
        "Take abs(cell.error) of the cells with cell.counts; the answer is wanted in percent.",
    ),
}
