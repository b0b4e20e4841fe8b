"""The original project's figures, as its tables give them (``mspeckv/data/published/*.csv``)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mspeckv.config import refuse
from mspeckv.experiments.statistics import Spread

TABLES = {
    "A1": ("A1_context_scaling", "A1_accepted", "A1_speedup_seed1"),
    "A2": ("A2_resident_layers",),
    "B1": ("B1_on_chip_layers",),
    "B2": ("B2_output_length",),
}
"""Files of each experiment; the first has the throughputs."""
METHODS = ("autoregressive", "vanilla", "triforce", "mspeckv")


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
    speeds: Mapping[tuple[int, str], Spread]
    accepted: Mapping[tuple[int, str], Spread]
    speedups: Mapping[tuple[int, str, str], Spread]
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with a throughput, slowest expected first."""
        there = {method for _, method in self.speeds}
        return tuple(method for method in METHODS if method in there)


@cache
def published(experiment: str) -> Published:
    """The figures of ``A1``, ``A2``, ``B1`` or ``B2``.

    Raises:
        ValueError: another experiment.
    """
    if experiment not in TABLES:
        raise refuse("experiment", experiment, f"use one of {', '.join(TABLES)}")
    speeds: dict[tuple[int, str], Spread] = {}
    accepted: dict[tuple[int, str], Spread] = {}
    speedups: dict[tuple[int, str, str], Spread] = {}
    notes: list[str] = []
    axis, values = "", tuple[int, ...]()
    for name in TABLES[experiment]:
        note, rows = read_table(name)
        notes.append(note)
        axis = axis or next(iter(rows[0]))
        values = values or tuple(int(row[axis]) for row in rows)
        main = accepted if name == "A1_accepted" else speeds
        for row in rows:
            place = int(row[axis])
            for column in row:
                found = _spread(row, column)
                if column in METHODS:
                    main[place, column] = found
                elif "_vs_" in column:
                    method, reference = column.split("_vs_")
                    speedups[place, method, reference] = found
                elif column == "speedup":
                    speedups[place, "mspeckv", "triforce"] = found
                elif column.endswith("_accepted"):
                    accepted[place, column.removesuffix("_accepted")] = found
    return Published(experiment, axis, values, speeds, accepted, speedups, tuple(notes))


def read_table(name: str) -> tuple[str, list[dict[str, float]]]:
    """A file's remark and its rows, the axis being the first column."""
    text = (files("mspeckv") / "data" / "published" / f"{name}.csv").read_text(encoding="utf-8")
    remark, *lines = text.splitlines()
    rows = [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]
    return remark.lstrip("# "), rows


def _spread(row: Mapping[str, float], column: str) -> Spread:
    return Spread(row[column], row.get(f"{column}_std"))
