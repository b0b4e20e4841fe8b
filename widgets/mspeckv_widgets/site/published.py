"""The published tables for a page: their points, and the cost model's lines beside them."""

from __future__ import annotations

from typing import Any

from mspeckv.settings import RESIDENCIES
from mspeckv_study.experiments import experiment
from mspeckv_study.whatif.origin import curve
from mspeckv_study.whatif.published_tables import TABLES, published

_WORDS = {
    "A1": "prompt tokens", "A2": "resident layers", "B1": "layers on-chip", "B2": "new tokens"
}  # fmt: skip
_POINTS = 32


def tables() -> list[dict[str, Any]]:
    """A1 to B2: points as ``[value, tokens per second, deviation]``, lines by residency."""
    return [_table(name) for name in TABLES]


def _table(name: str) -> dict[str, Any]:
    found = published(name)
    low, high = found.values[0], found.values[-1]
    step = max((high - low) // _POINTS, 1)
    along = [*range(low, high, step), high]
    methods = {}
    for method in found.methods:
        speeds = [(value, found.speeds[value, method]) for value in found.values]
        curves = {
            residency: curve(name, method, along, residency=residency) for residency in RESIDENCIES
        }
        methods[method] = {
            "points": [[value, speed.mean, speed.std] for value, speed in speeds],
            "curves": {one: [round(float(x), 4) for x in line] for one, line in curves.items()},
        }
    return {
        "name": name, "title": experiment(name).title, "axis": _WORDS[name],
        "values": found.values, "along": along, "methods": methods,
    }  # fmt: skip
