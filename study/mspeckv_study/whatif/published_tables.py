"""The original project's figures, as its tables give them (``data/published/*.csv``)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mspeckv.settings import METHODS, check_choice

TABLES = {
    "A1": ("A1_context_scaling", "A1_accepted", "A1_speedup_seed1"),
    "A2": ("A2_resident_layers",),
    "B1": ("B1_on_chip_layers",),
    "B2": ("B2_output_length",),
}
"""Files of each experiment; the first has the throughputs."""


@dataclass(frozen=True)
class MeanStd:
    """A mean and the sample standard deviation (divisor n - 1; None where n is 1)."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        """Of at least one value."""
        data = np.asarray(values, dtype=np.float64)
        return cls(float(data.mean()), float(data.std(ddof=1)) if len(data) > 1 else None)

    def scaled(self, factor: float) -> MeanStd:
        """The same in another unit."""
        return MeanStd(self.mean * factor, None if self.std is None else self.std * factor)

    def text(self, digits: int = 2) -> str:
        """``12.42 ± 4.40``, or the mean alone."""
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


@dataclass(frozen=True)
class Published:
    """One experiment's published figures.

    Attributes:
        axis: what `values` are, in the file's word.
        speeds: tokens per second, by value and method.
        accepted: guesses kept per round (of gamma 8), by value and method.
        speedups: by value, method and reference. A1's are of one run, the others means of the
            ratios of three.
        notes: the files' own remarks.
    """

    experiment: str
    axis: str
    values: tuple[int, ...]
    speeds: Mapping[tuple[int, str], MeanStd]
    accepted: Mapping[tuple[int, str], MeanStd]
    speedups: Mapping[tuple[int, str, str], MeanStd]
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with a throughput, slowest expected first."""
        there = {method for _, method in self.speeds}
        return tuple(method for method in METHODS if method in there)

    def kept(self, method: str, at: ArrayLike) -> NDArray[np.float64]:
        """Guesses kept per round ``at`` places on the axis, along straight lines between values."""
        found = [self.accepted[value, method].mean for value in self.values]
        return np.asarray(np.interp(np.asarray(at, dtype=float), self.values, found))


@cache
def published(experiment: str) -> Published:
    """The figures of ``A1``, ``A2``, ``B1`` or ``B2``.

    Raises:
        ValueError: another experiment.
    """
    check_choice("experiment", experiment, tuple(TABLES))
    speeds: dict[tuple[int, str], MeanStd] = {}
    accepted: dict[tuple[int, str], MeanStd] = {}
    speedups: dict[tuple[int, str, str], MeanStd] = {}
    tables = {name: read_table(name) for name in TABLES[experiment]}
    main = next(iter(tables.values()))[1]
    axis = next(iter(main[0]))
    for name, (_, rows) in tables.items():
        by_method = accepted if name == "A1_accepted" else speeds
        for row in rows:
            place = int(row[axis])
            for column, mean in row.items():
                found = MeanStd(mean, row.get(f"{column}_std"))
                if column in METHODS:
                    by_method[place, column] = found
                elif "_vs_" in column:
                    method, reference = column.split("_vs_")
                    speedups[place, method, reference] = found
                elif column == "speedup":
                    speedups[place, "mspeckv", "triforce"] = found
                elif column.endswith("_accepted"):
                    accepted[place, column.removesuffix("_accepted")] = found
    values = tuple(int(row[axis]) for row in main)
    notes = tuple(remark for remark, _ in tables.values())
    return Published(experiment, axis, values, speeds, accepted, speedups, notes)


def read_table(name: str) -> tuple[str, list[dict[str, float]]]:
    """A file's remark and its rows, the axis being the first column."""
    table = files("mspeckv_study") / "data" / "published" / f"{name}.csv"
    text = table.read_text(encoding="utf-8")
    remark, *lines = text.splitlines()
    rows = [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]
    return remark.lstrip("# "), rows
