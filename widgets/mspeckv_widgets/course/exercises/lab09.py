"""A2, resident layers: quantization alone, what residency adds, and what is only noise."""

from __future__ import annotations

from typing import Any

from mspeckv_widgets.course.answers import near, same_function
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import load_results


def check_alone(found: Any) -> Verdict:
    """Mspeckv over triforce where no layer is resident."""
    pair = load_results("A2").table.compare(0, "mspeckv", "triforce")
    if pair is None:
        return Verdict(False, "these results have nothing at 0 resident layers")
    low, high = pair.interval or (pair.speedup.mean, pair.speedup.mean)
    told = f"the interval is {low:.2f} to {high:.2f}; published, 1.09 ± 0.10."
    return near(found, pair.speedup.mean, 0.02, told)


def offloaded_share(layers: int, on_chip: int, resident: int) -> float:
    """Share of the layers whose KV crosses the link."""
    return (layers - on_chip - resident) / layers


def check_share(found: Any) -> Verdict:
    """A function of a placement gives the share of layers that cross the link."""
    cases = [(30, 15, 0), (30, 15, 8), (30, 15, 15), (32, 16, 16), (32, 0, 0)]
    told = "bytes per pass fall with every layer that stays, whatever its width."
    return same_function(found, offloaded_share, cases, told)


def check_noise(found: Any) -> Verdict:
    """Fastest over slowest of triforce's cells, which are one configuration."""
    table = load_results("A2").table
    speeds = [speed for value in table.values if (speed := table.speed(value, "triforce"))]
    if len(speeds) < 2:
        return Verdict(False, "these results have fewer than two cells of triforce")
    told = "no difference between methods that is smaller than this means much. Published: 1.46."
    return near(found, max(speeds) / min(speeds), 0.02, told)


def check_device(found: Any) -> Verdict:
    """KV on the device, in MB, of mspeckv with every remaining layer resident."""
    table = load_results("A2").table
    rows = table.cells[table.values[-1], "mspeckv"].finished.values()
    memory = next(row.result["memory"] for row in rows if row.result is not None)
    size = (memory["on_chip_bytes"] + memory["resident_bytes"]) / 1e6
    return near(found, size, 0.02, "int8 beside float32: a resident layer takes about a quarter.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "what quantization alone gives",
        check_alone,
        "table.compare(0, 'mspeckv', 'triforce'): at 0 resident layers both stream as many layers.",
    ),
    "e2": Exercise(
        "the share of layers that cross the link",
        check_share,
        "Layers that are neither on-chip nor resident are offloaded.",
    ),
    "e3": Exercise(
        "how far one configuration differs from itself",
        check_noise,
        "table.speed(value, 'triforce') for each of table.values; the largest over the smallest.",
    ),
    "e4": Exercise(
        "what residency costs",
        check_device,
        "A row's result['memory'] has on_chip_bytes and resident_bytes, as modelled before the "
        "run. MB are 1e6 bytes.",
    ),
}
