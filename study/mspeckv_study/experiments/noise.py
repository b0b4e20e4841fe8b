"""How far a configuration differs from itself: what a difference must exceed to show anything.

Some cells of different experiments, or of one experiment's different values, are one configuration:
the run was told the same. Whatever lies between their medians came from the machine and the hour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mspeckv_study.experiments.rows import Row
from mspeckv_study.experiments.statistics import outcome

Place = tuple[str, int, str]
"""A cell: experiment, value, variant."""


@dataclass(frozen=True)
class Noise:
    """The noise floor.

    Attributes:
        groups: cells that are one configuration, two at least in each.
        factor: the largest ratio between the medians of two cells of a group; 1 without groups.
    """

    groups: tuple[tuple[Place, ...], ...] = ()
    factor: float = 1.0

    def text(self) -> str:
        """The floor in words; where its cells are is left to the reader to find."""
        if not self.groups:
            return "no two cells are one configuration, so the noise floor is not known"
        cells = sum(map(len, self.groups))
        return (
            f"{cells} cells are in truth {len(self.groups)} configurations, and two medians of one "
            f"configuration differ by up to {self.factor - 1:.0%}: the noise floor"
        )


def configuration(row: Row) -> str:
    """What the run was told, whatever its cell is called; but for the seed."""
    assert row.result is not None
    config = row.result["config"]
    draw = {name: one for name, one in config["sampling"].items() if name != "seed"}
    told = {**config, "sampling": draw, "gbps": row.result["link"]["gbps"]}
    return json.dumps([told, row.hardware, row.versions], sort_keys=True)


def noise_floor(rows: Iterable[Row]) -> Noise:
    """Of all cells that are one configuration, in every experiment given."""
    found: dict[str, dict[Place, list[Row]]] = {}
    for row in rows:
        if row.ok and row.result is not None:
            cells = found.setdefault(configuration(row), {})
            cells.setdefault((row.experiment, row.value, row.variant), []).append(row)
    groups = {tuple(sorted(cells)): cells for cells in found.values() if len(cells) > 1}
    factors = [1.0]
    for cells in groups.values():
        speeds = [outcome(*place[1:], own).speed for place, own in cells.items()]
        medians = [one.centre for one in speeds if one is not None]
        if len(medians) > 1:
            factors.append(max(medians) / min(medians))
    return Noise(tuple(sorted(groups)), max(factors))
