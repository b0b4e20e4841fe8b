"""What every chart of results shows: its lines as numbers, and how each variant looks.

Pages and panels only draw them. Colours are Okabe and Ito's, each with a dash and a marker of its
own, so that nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mspeckv_study.experiments.intervals import Sample
from mspeckv_study.experiments.matching import Match
from mspeckv_study.experiments.statistics import CellOutcome
from mspeckv_study.whatif.published_tables import MeanStd

INK = "#1f2328"
"""Text and axes, and what stands for plain decoding: panels repaint it where the page is dark."""
MEGA = 1e6
Numbers = tuple[float | None, ...]
Source = Literal["ours", "published", "modelled"]


@dataclass(frozen=True)
class VariantStyle:
    """Words and signs of one variant; dash and marker are plotly's names."""

    words: str
    colour: str
    dash: str
    marker: str


STYLES = {
    name: VariantStyle(*signs)
    for name, signs in {
        "autoregressive": ("plain decoding, KV as floats, streamed", INK, "solid", "circle"),
        "vanilla": ("tier 0 guesses, tier 2 checks; floats", "#E69F00", "dot", "triangle-up"),
        "triforce": ("three tiers, KV as floats, streamed", "#0072B2", "dash", "square"),
        "mspeckv": ("three tiers, int8, fixed places", "#D55E00", "solid", "diamond"),
        "mspeckv-streamed": ("three tiers, int8, streamed", "#D55E00", "dot", "diamond-wide"),
        "mspeckv-lru": ("three tiers, int8, LRU places", "#CC79A7", "dashdot", "cross"),
        "mspeckv-auto": (
            "as mspeckv, lengths chosen as it runs", "#56B4E9", "longdashdot", "triangle-down",
        ),
        "plain-int8": (
            "plain decoding, mspeckv's own policy: equal memory", "#009E73", "solid", "star",
        ),
        "plain-int8-streamed": (
            "plain decoding, int8, streamed", "#009E73", "dot", "star-diamond",
        ),
        "all-float": (
            "plain decoding, all on device, float: more memory", "#8A6D00", "longdash", "hexagon",
        ),
    }.items()
}  # fmt: skip


def style(variant: str) -> VariantStyle:
    """A variant's; grey for one that is not known here."""
    return STYLES.get(variant, VariantStyle(variant, "#6b7280", "longdashdot", "x"))


@dataclass(frozen=True)
class Line:
    """One variant in one chart, a point for each value of the table, or None.

    Attributes:
        source: who says so.
        means: the points: medians, of speed-ups geometric means, or published means.
        up, down: how far their bars go: to the ends of the interval, or a published deviation.
    """

    variant: str
    source: Source
    means: Numbers
    up: Numbers
    down: Numbers

    @property
    def name(self) -> str:
        """For legends."""
        return self.variant if self.source == "ours" else f"{self.variant} ({self.source})"

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(mean is None for mean in self.means)


def speed_lines(match: Match) -> list[Line]:
    """Tokens per second, ours."""
    return _ours(match, lambda one: one.speed)


def published_speed_lines(match: Match) -> list[Line]:
    """Tokens per second of the published machine: published, and modelled."""
    published = _lines(match, "published", match.speed)
    return [*published, *_lines(match, "modelled", match.modelled_speed)]


def speedup_lines(match: Match, reference: str) -> list[Line]:
    """Speed-ups over ``reference``: ours with intervals, the published and the modelled ones."""
    asked: dict[Source, Callable[..., MeanStd | Sample | None]] = {
        "ours": match.table.compare,
        "published": match.speedup,
        "modelled": match.modelled_speedup,
    }
    lines = [_lines(match, who, partial(ask, reference=reference)) for who, ask in asked.items()]
    return [line for found in lines for line in found if line.variant != reference]


def accepted_lines(match: Match) -> list[Line]:
    """Guesses kept per round, ours and the published ones."""
    theirs = _lines(match, "published", match.accepted)
    return [*_ours(match, lambda one: one.accepted), *theirs]


def tier_lines(match: Match, tier: int) -> list[Line]:
    """Milliseconds per token of one tier's passes, ours."""
    return _ours(match, lambda one: one.tier_ms(tier))


def traffic_lines(match: Match, tier: int | None) -> list[Line]:
    """MB of KV per token, ours: read by ``tier``, or over the link for None."""

    def size(one: CellOutcome) -> Sample | None:
        found = one.link if tier is None else one.kv_read(tier)
        return None if found is None else found.scaled(1 / MEGA)

    return _ours(match, size)


def axis_labels(match: Match) -> list[str]:
    """The table's values, each with the published one that it stands for."""
    labels = []
    for value in match.table.values:
        paper = match.value(value)
        labels.append(f"{value}" if paper in {None, value} else f"{value}<br>({paper})")
    return labels


def _ours(match: Match, what: Callable[[CellOutcome], Sample | None]) -> list[Line]:
    """Our lines of what each cell says."""

    def ask(value: int, variant: str) -> Sample | None:
        cell = match.table.cells.get((value, variant))
        return None if cell is None else what(cell)

    return _lines(match, "ours", ask)


def _lines(
    match: Match, source: Source, ask: Callable[[int, str], MeanStd | Sample | None]
) -> list[Line]:
    """A line per variant of what ``ask`` says of it at every value."""
    lines = []
    for variant in match.table.variants:
        points = [_point(ask(value, variant)) for value in match.table.values]
        means, up, down = zip(*points, strict=True)
        lines.append(Line(variant, source, means, up, down))
    return lines


def _point(found: MeanStd | Sample | None) -> Numbers:
    """A point, and its bar up and down."""
    if found is None:
        return None, None, None
    if isinstance(found, MeanStd):
        return found.mean, found.std, found.std
    low, high = found.interval
    return found.centre, max(0.0, high - found.centre), max(0.0, found.centre - low)
