"""What an experiment shows, in sentences made from its numbers and the published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mspeckv.experiments.ablations import axis_words
from mspeckv.experiments.matching import Match
from mspeckv.experiments.statistics import Table, cliff, largest_step, tier2_rates
from mspeckv.whatif.published_tables import Published


@dataclass(frozen=True)
class Finding:
    """One thing that the numbers say.

    Attributes:
        topic: what it is about, in a word or two.
        text: one or two sentences.
        holds: whether what was expected (the published claim, a target) is so here; None where
            nothing was.
    """

    topic: str
    text: str
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or nothing."""
        return {True: "met", False: "missed", None: ""}[self.holds]


def findings(match: Match) -> tuple[Finding, ...]:
    """Everything that can be said of one experiment's table, failures first."""
    table, paper = match.table, match.paper
    parts: list[Iterator[Finding]] = [_failures(table), _order(match)]
    parts += [_targets(match, reference) for reference in match.references]
    parts += [part(match) for part in _OWN[table.experiment]]
    parts += [_control(table), _spread(table, paper)]
    return tuple(finding for part in parts for finding in part)


def _failures(table: Table) -> Iterator[Finding]:
    failed = table.failed
    if failed:
        named = "; ".join(
            f"{variant} at {axis_words(table.axis)} {value}, seed {seed}: {error}"
            for value, variant, seed, error in failed
        )
        yield Finding(
            "failed trials", f"{len(failed)} failed and stand in no mean: {named}.", False
        )
    missing = [
        f"{variant} at {value}"
        for value in table.values
        for variant in table.variants
        if (value, variant) not in table.cells
    ]
    if missing:
        yield Finding("not run", f"No trial yet of {', '.join(missing)}.")


def _order(match: Match) -> Iterator[Finding]:
    """Whether methods stand in the published order at every value."""
    kept, other = 0, []
    for value in match.table.values:
        paper = match.value(value)
        speeds = {name: match.table.speed(value, name) for name in match.paper.methods}
        ours = {name: speed for name, speed in speeds.items() if speed is not None}
        if paper is None or len(ours) < 2:
            continue
        theirs = {name: match.paper.speeds[paper, name].mean for name in ours}
        by_speed = [sorted(one, key=lambda name: -one[name]) for one in (ours, theirs)]
        if by_speed[0] == by_speed[1]:
            kept += 1
        else:
            mine, published = (" > ".join(names) for names in by_speed)
            other.append(f"at {value} it is {mine}, published {published}")
    if told := kept + len(other):
        words = f"The published order of methods by speed holds at {kept} of {told} values"
        yield Finding("order", f"{words}{': ' if other else ''}{'; '.join(other)}.", not other)


def _targets(match: Match, reference: str) -> Iterator[Finding]:
    """Mspeckv's speed-up over a reference beside the published one."""
    found = [
        (one, match.speedup(one.value, "mspeckv", reference))
        for one in match.table.along("mspeckv", reference)
    ]
    known = [(one, paper.mean) for one, paper in found if paper is not None]
    if known:
        parts = [
            f"{one.value}: {one.text()}, published {paper:.2f}x"
            f"{'' if one.speedup.mean >= paper else ' (less)'}"
            for one, paper in known
        ]
        words = f"mspeckv over {reference} by {axis_words(match.table.axis)}: {'; '.join(parts)}."
        met = all(one.speedup.mean >= paper for one, paper in known)
        yield Finding(f"speed-up over {reference}", words, met)


def _growth(match: Match) -> Iterator[Finding]:
    """A1: the speed-up grows with the context."""
    along = match.table.along("mspeckv", "autoregressive")
    if len(along) < 2:
        return
    first, last = along[0], along[-1]
    ours = last.speedup.mean / first.speedup.mean
    papers = [match.speedup(one.value, "mspeckv", "autoregressive") for one in (first, last)]
    text = (
        f"From {first.value} to {last.value} prompt tokens the speed-up over autoregressive "
        f"becomes {ours:.1f} times as large"
    )
    if papers[0] is not None and papers[1] is not None:
        text += f" (published {papers[1].mean / papers[0].mean:.1f})"
    yield Finding("context", f"{text}: the longer the context, the more KV has to move.", ours > 1)


def _quantization(match: Match) -> Iterator[Finding]:
    """A2: what int8 does where no layer is resident, and what residency adds."""
    along = match.table.along("mspeckv", "triforce")
    alone = next((one for one in along if one.value == 0), None)
    if alone is not None:
        paper = match.speedup(0, "mspeckv", "triforce")
        told = "" if paper is None else f"; published {paper.text()}x"
        text = f"With no layer resident, quantization alone gives {alone.text()}{told}"
        if alone.interval is not None:
            within = alone.interval[0] <= 1 <= alone.interval[1]
            text += ". The interval " + ("holds 1: no gain is shown" if within else "leaves 1 out")
        yield Finding("quantization alone", f"{text}.")
    if alone is not None and along[-1] is not alone:
        full = along[-1]
        share = full.speedup.mean / alone.speedup.mean
        text = f"{full.value} resident layers make that {full.text()}, {share:.2f} times as much"
        yield Finding("residency", f"{text}: what no longer moves is what pays.", share > 1)
    lru = match.table.along("mspeckv-lru", "mspeckv")
    if lru:
        parts = [f"{one.value}: {one.text()}" for one in lru]
        yield Finding("LRU", f"The LRU policy over fixed places: {'; '.join(parts)}.")


def _one_column(match: Match) -> Iterator[Finding]:
    """A2: triforce ignores resident layers, so its column is one configuration read repeatedly."""
    speeds = match.table.speeds("triforce")
    if len(speeds) < 2:
        return
    low, high = min(speeds.values()), max(speeds.values())
    paper = [match.paper.speeds[value, "triforce"].mean for value in match.paper.values]
    text = (
        f"triforce has nothing quantized to keep resident, so its {len(speeds)} cells are one "
        f"configuration: they differ by {high / low - 1:.0%} (published "
        f"{max(paper) / min(paper) - 1:.0%}), which is noise of measuring and nothing else"
    )
    yield Finding("one configuration", f"{text}.")


def _cliff(match: Match) -> Iterator[Finding]:
    """B1: where speed jumps, under fixed places and under LRU, here and in the published table.

    Looked for in tier 2's own time, since that is the tier that reads the full KV: where guesses
    are dear, as on a CPU, they hide part of it in the time of all tiers.
    """
    expected = {"mspeckv": False, "mspeckv-lru": True}
    for variant, wanted in expected.items():
        rates, speeds = tier2_rates(match.table, variant), match.table.speeds(variant)
        if len(rates) < 2:
            continue
        found = cliff(rates)
        low, high, most = found or largest_step(rates)
        which = "a cliff: at this" if found else "no cliff: at the largest"
        both = speeds[high] / speeds[low]
        text = (
            f"{variant} has {which} step, from {low} to {high}, tier 2 becomes {most:.2f} times "
            f"as fast, and all tiers together {both:.2f} times ({match.table.clock})"
        )
        hit = [match.table.cells[value, variant].hit_rate for value in rates]
        hits = ", ".join("none packed" if rate is None else f"{rate:.0%}" for rate in hit)
        policy = "fixed places" if variant == "mspeckv" else "LRU"
        yield Finding(
            f"cliff, {policy}",
            f"{text}. Packed layers found on the device at {', '.join(map(str, rates))}: {hits} "
            "(counted).",
            (found is not None) == wanted,
        )
    speeds = {value: match.paper.speeds[value, "mspeckv"].mean for value in match.paper.values}
    paper = cliff(speeds)
    if paper is not None:
        text = f"The published mspeckv, which keeps layers by LRU, has one of {paper[2]:.2f}x"
        yield Finding("cliff, published", f"{text} between {paper[0]} and {paper[1]}.")


def _length(match: Match) -> Iterator[Finding]:
    """B2: whether the speed-up depends on how much is written."""
    along = match.table.along("mspeckv", "triforce")
    if len(along) < 2:
        return
    gains = [one.speedup.mean for one in along]
    papers = [match.speedup(one.value, "mspeckv", "triforce") for one in along]
    known = [paper.mean for paper in papers if paper is not None]
    text = (
        f"From {along[0].value} to {along[-1].value} new tokens the speed-up over triforce stays "
        f"between {min(gains):.2f}x and {max(gains):.2f}x"
    )
    if known:
        text += f" (published {min(known):.2f}x to {max(known):.2f}x)"
    yield Finding("output length", f"{text}.", min(gains) > 1)


def _control(table: Table) -> Iterator[Finding]:
    """What plain decoding does when it gets all its KV on the device."""
    along = table.along("mspeckv", "all-float")
    if not along:
        return
    parts = [f"{one.value}: {one.text()}" for one in along]
    sure = [one for one in along if one.interval is not None]
    ahead = sum(one.interval[0] > 1 for one in sure if one.interval)
    behind = sum(one.interval[1] < 1 for one in sure if one.interval)
    text = (
        "Against the control, autoregressive with all KV on the device and nothing to fetch, "
        f"mspeckv makes {'; '.join(parts)}"
    )
    if sure:
        text += f": surely faster at {ahead}, surely slower at {behind} of {len(sure)} values"
    last = along[-1].value
    ours, theirs = (table.cells[last, name].device_kv_bytes for name in ("mspeckv", "all-float"))
    if ours is not None and theirs:
        share = f"{ours / theirs:.0%}"
        text += f". Its KV of the full context takes {share} of the control's (modelled)"
    yield Finding("equal-memory control", f"{text}.")


def _spread(table: Table, paper: Published) -> Iterator[Finding]:
    """How far seeds differ, here and in the published table."""
    spreads = [
        (speed.std / speed.mean, cell.variant, cell.value)
        for cell in table.cells.values()
        if (speed := cell.speed) is not None and speed.std is not None
    ]
    known = [one.std / one.mean for one in paper.speeds.values() if one.std is not None]
    if not spreads:
        yield Finding("spread", "One seed each: how far seeds differ is not known.")
        return
    most, variant, value = max(spreads)
    yield Finding(
        "spread",
        f"Over {len(table.seeds)} seeds the standard deviation is at most {most:.0%} of the mean "
        f"({variant} at {value}); published, at most {max(known):.0%}.",
    )


_OWN: dict[str, tuple[Callable[[Match], Iterator[Finding]], ...]] = {
    "A1": (_growth,),
    "A2": (_quantization, _one_column),
    "B1": (_cliff,),
    "B2": (_length,),
}
