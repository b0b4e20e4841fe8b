"""Which published figure stands beside which of ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mspeckv_study.experiments.ablations import VARIANTS, Experiment, experiment
from mspeckv_study.experiments.noise import Noise, noise_floor
from mspeckv_study.experiments.rows import Row
from mspeckv_study.experiments.statistics import Table, summarise
from mspeckv_study.whatif.origin import curve
from mspeckv_study.whatif.published_tables import MeanStd, Published, published


@dataclass(frozen=True)
class Match:
    """A table and the published figures beside it.

    Values stand for one another by their place: the first of the experiment's values is the first
    of the published table's, whatever they are scaled by.

    Attributes:
        noise: of every row that was loaded, of whatever experiment.
    """

    table: Table
    paper: Published
    experiment: Experiment
    noise: Noise

    @property
    def references(self) -> tuple[str, ...]:
        """What the published speed-ups are over."""
        return tuple(dict.fromkeys((self.experiment.reference, "triforce")))

    def value(self, value: int) -> int | None:
        """The published value that ours stands for; None where it stands for none."""
        return dict(zip(self.experiment.values, self.paper.values, strict=False)).get(value)

    def speed(self, value: int, method: str) -> MeanStd | None:
        """Published tokens per second."""
        place = self.value(value)
        return None if place is None else self.paper.speeds.get((place, method))

    def accepted(self, value: int, method: str) -> MeanStd | None:
        """Published guesses kept per round."""
        place = self.value(value)
        return None if place is None else self.paper.accepted.get((place, method))

    def speedup(self, value: int, method: str, reference: str) -> MeanStd | None:
        """Published speed-up."""
        place = self.value(value)
        return None if place is None else self.paper.speedups.get((place, method, reference))

    def modelled_speed(self, value: int, variant: str) -> MeanStd | None:
        """The cost model's tokens per second for the published machine, at the published value.

        Each variant is modelled under its own policy: `mspeckv` with fixed places, where the
        published one kept layers by LRU. None for what was not published in any form.
        """
        place, known = self.value(value), VARIANTS.get(variant)
        if place is None or known is None or known.method not in self.paper.methods:
            return None
        if known.whole or known.adaptive or known.streamed or known.bits is not None:
            return None
        speed = curve(self.table.experiment, known.method, place, residency=known.residency)
        return MeanStd(float(speed))

    def modelled_speedup(self, value: int, variant: str, reference: str) -> MeanStd | None:
        """The same over a reference."""
        ours, theirs = (self.modelled_speed(value, name) for name in (variant, reference))
        return None if ours is None or theirs is None else ours.scaled(1 / theirs.mean)


def match_rows(rows: Iterable[Row]) -> tuple[Match, ...]:
    """Every experiment in ``rows``, summarised, beside what was published.

    Raises:
        ValueError: an experiment or preset that is not defined.
    """
    rows = list(rows)
    noise, found = noise_floor(rows), list[Match]()
    for table in summarise(rows):
        known = experiment(table.experiment, table.preset)
        found.append(Match(table, published(table.experiment), known, noise))
    return tuple(found)
