"""What every benchmark prints: the machine, versions, and plain tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import psutil
import torch

from mspeckv.models.kept import processor
from mspeckv_study.text_table import aligned

Turn = TypeVar("Turn")
PACKAGES = ("mspeckv", "torch", "transformers", "optimum-quanto", "hqq")


def machine(device: torch.device) -> str:
    """One paragraph: processor or GPU, memory, threads, versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor()}, {os.cpu_count()} logical cores, {torch.get_num_threads()} threads"
    memory = psutil.virtual_memory().total / 1e9
    versions = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    return f"{name}, {memory:.0f} GB RAM, Python {platform.python_version()}, {versions}"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned: text to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    rule = ["-" * max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numbers = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(headers))]
    words = [place for place, number in enumerate(numbers) if not number]
    return "\n".join(aligned([headers, rule, *cells], left=words))


class Rows(list[tuple[object, ...]]):
    """A table's rows, each put on stderr as it is added: a cancelled run loses none."""

    def append(self, row: tuple[object, ...]) -> None:
        """Add a row."""
        super().append(row)
        print("  ".join(map(_cell, row)), file=sys.stderr, flush=True)


def median_turn(found: Iterable[Turn], rate: Callable[[Turn], float]) -> Turn:
    """The turn whose rate is the median of an odd number of them."""
    turns = sorted(found, key=rate)
    return turns[len(turns) // 2]


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call in milliseconds, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        wait()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


def wait() -> None:
    """Until a GPU has done what it was given, where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
