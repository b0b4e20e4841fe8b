"""What an experiment shows, in sentences made from its intervals and the published figures.

A verdict is of an interval, and of the noise floor: never of a mean alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mspeckv_study.experiments.ablations import ALL_FLOAT, EQUAL_MEMORY, axis_words
from mspeckv_study.experiments.intervals import CONFIDENCE, Ratio, Verdict, together
from mspeckv_study.experiments.matching import Match
from mspeckv_study.experiments.statistics import Table, cliff

OPPOSITE: dict[Verdict, Verdict] = {
    "shown": "contradicted", "contradicted": "shown", "not shown": "not shown",
}  # fmt: skip
_SAME_POLICY = "mspeckv", EQUAL_MEMORY


@dataclass(frozen=True)
class Finding:
    """One thing that the numbers say; ``verdict`` is None where nothing is claimed."""

    topic: str
    text: str
    verdict: Verdict | None = None


def findings(match: Match) -> tuple[Finding, ...]:
    """Everything that can be said of one experiment's table, failures first."""
    parts: list[Iterator[Finding]] = [_failures(match.table), _order(match)]
    parts += [_targets(match, reference) for reference in match.references]
    parts += [part(match) for part in (*_OWN[match.table.experiment], _controls, _noise)]
    return tuple(finding for part in parts for finding in part)


def _failures(table: Table) -> Iterator[Finding]:
    failed = table.failed
    if failed:
        named = "; ".join(
            f"{variant} at {axis_words(table.axis)} {value}, seed {seed}: {error}"
            for value, variant, seed, error in failed
        )
        yield Finding("failed trials", f"{len(failed)} failed and count nowhere: {named}.")
    missing = [
        f"{variant} at {value}"
        for value in table.values
        for variant in table.variants
        if (value, variant) not in table.cells
    ]
    if missing:
        yield Finding("not run", f"No trial yet of {', '.join(missing)}.")


def _order(match: Match) -> Iterator[Finding]:
    """Whether neighbours in the published order stand so here, at every value."""
    found: dict[tuple[str, str], dict[int, Ratio]] = {}
    for value in match.table.values:
        ranked = sorted(
            (speed.mean, name)
            for name in match.paper.methods
            if (speed := match.speed(value, name)) and match.table.speed(value, name)
        )
        for (_, slow), (_, fast) in pairwise(ranked):
            ratio = match.table.compare(value, fast, slow)
            if ratio is not None:
                found.setdefault((fast, slow), {})[value] = ratio
    judged = {pair: _judged(match, ratios) for pair, ratios in found.items()}
    if judged:
        words = "; ".join(f"{a} over {b} {told}" for (a, b), (told, _) in judged.items())
        text = f"Do methods stand in the published order of speed? {words}."
        yield Finding("order", text, together(verdict for _, verdict in judged.values()))


def _judged(
    match: Match, ratios: Mapping[int, Ratio], claimed: Mapping[int, float] | None = None
) -> tuple[str, Verdict]:
    """Where the ratios are shown to be more than 1, or than claimed; and the verdict of all."""
    least = claimed or dict.fromkeys(ratios, 1.0)
    verdicts = {at: one.verdict(least[at], match.noise.factor) for at, one in ratios.items()}
    parts = []
    for verdict in dict.fromkeys(verdicts.values()):
        places = [at for at, one in verdicts.items() if one == verdict]
        sizes = _span([ratios[at].centre for at in places])
        told = ratios[places[0]].text() if len(places) == 1 else sizes
        paper = f"; published {_span([claimed[at] for at in places])}" if claimed else ""
        parts.append(f"{verdict} at {', '.join(map(str, places))} ({told}{paper})")
    return "; ".join(parts), together(verdicts.values())


def _span(sizes: Sequence[float]) -> str:
    """``1.94x to 4.55x``."""
    ends = dict.fromkeys(f"{one:.2f}x" for one in (min(sizes), max(sizes)))
    return " to ".join(ends)


def _dear(match: Match) -> str:
    """Why a published speed-up may not be reached: what a pass over guesses takes here."""
    cells = [match.table.cells.get((match.table.values[-1], one)) for one in _SAME_POLICY]
    times = [one.tier_ms(2, per_pass=True) for one in cells if one is not None]
    longer = times[0].over(times[1]) if len(times) == 2 and times[0] and times[1] else None
    return "" if longer is None else (
        f" Here a pass of tier 2 over a round's guesses takes {longer.text()} as long as one over "
        f"a single token ({match.table.clock}): arithmetic, which nothing kept or packed makes "
        "less, is a part of it."
    )  # fmt: skip


def _targets(match: Match, reference: str) -> Iterator[Finding]:
    """Whether mspeckv's speed-up over a reference is larger than the published one."""
    papers = {at: match.speedup(at, "mspeckv", reference) for at in match.table.values}
    known = {at: paper.mean for at, paper in papers.items() if paper is not None}
    along = match.table.along("mspeckv", reference)
    ratios = {at: one for at, one in along.items() if at in known}
    if ratios:
        words, verdict = _judged(match, ratios, known)
        text = f"mspeckv over {reference}, more than published? By {axis_words(match.table.axis)}"
        less = any(one.sure and one.centre < known[at] for at, one in ratios.items())
        why = _dear(match) if less else ""
        yield Finding(f"speed-up over {reference}", f"{text}: {words}.{why}", verdict)


def _effect(
    match: Match, topic: str, claim: str, variant: str, reference: str
) -> Iterator[Finding]:
    """Whether a variant is faster than another one, value by value."""
    ratios = match.table.along(variant, reference)
    if ratios:
        words, verdict = _judged(match, ratios)
        yield Finding(topic, f"{claim}? {variant} over {reference}: {words}.", verdict)


def _square(match: Match) -> Iterator[Finding]:
    """A1: guessing, keeping and packing, each alone."""
    for asked in (
        ("packing, plain", "Does int8 pay without guesses", "plain-int8-streamed",
         "autoregressive"),
        ("packing, guessing", "Does int8 pay with guesses", "mspeckv-streamed", "triforce"),
        ("keeping, plain", "Does keeping layers pay without guesses", EQUAL_MEMORY,
         "plain-int8-streamed"),
        ("keeping, guessing", "Does keeping layers pay with guesses", "mspeckv",
         "mspeckv-streamed"),
        ("guessing, streamed", "Does guessing pay while int8 is streamed", "mspeckv-streamed",
         "plain-int8-streamed"),
    ):  # fmt: skip
        yield from _effect(match, *asked)


def _growth(match: Match) -> Iterator[Finding]:
    """A1: the speed-up grows with the context."""
    pair = "mspeckv", "autoregressive"
    ends = [*match.table.along(*pair).items()]
    grown = ends[-1][1].over(ends[0][1]) if ends[1:] else None
    if grown is not None:
        papers = [one for at in (ends[0][0], ends[-1][0]) if (one := match.speedup(at, *pair))]
        told = f" (published {papers[1].mean / papers[0].mean:.1f}x)" if papers[1:] else ""
        text = f"From {ends[0][0]} to {ends[-1][0]} prompt tokens the speed-up over autoregressive "
        text += f"becomes {grown.text()} as large{told}: does it grow with the context?"
        yield Finding("context", text, grown.verdict(noise=match.noise.factor))


def _quantization(match: Match) -> Iterator[Finding]:
    """A2: what int8 does where no layer is resident, what residency adds, and which is more."""
    table, noise, last = match.table, match.noise.factor, match.table.values[-1]
    alone = table.compare(0, "mspeckv", "triforce")
    if alone is not None:
        paper = match.speedup(0, "mspeckv", "triforce")
        text = f"With no layer resident, quantization alone gives {alone.text()} over triforce"
        told = "" if paper is None else f" (published {paper.text()}x)"
        yield Finding("quantization alone", f"{text}{told}: a gain?", alone.verdict(noise=noise))
    none, full = (table.speed(at, "mspeckv") for at in (0, last))
    added = full.over(none) if full is not None and none is not None and last else None
    if added is not None:
        papers = [one for at in (0, last) if (one := match.speed(at, "mspeckv"))]
        told = f" (published {papers[1].mean / papers[0].mean:.2f}x)" if papers[1:] else ""
        text = f"{last} resident layers make mspeckv {added.text()} as fast as none{told}"
        yield Finding("residency", f"{text}: a gain?", added.verdict(noise=noise))
    more = added.over(alone) if added is not None and alone is not None else None
    if more is not None:
        verdict = more.verdict(noise=noise)
        text = f"Published, residency gave more than quantization. Here {more.text()} as much"
        if verdict != "shown":
            text += (
                ": a float has four bytes here and two there, so int8 takes away three quarters of "
                "what moves, not half, and leaves residency less to save"
            )
        yield Finding("residency or quantization", f"{text}.", verdict)
    yield from _effect(match, "fixed places", "Better than LRU's", "mspeckv", "mspeckv-lru")


def _cliff(match: Match) -> Iterator[Finding]:
    """B1: where speed jumps, under fixed places and under LRU, here and in the published table.

    Looked for in tier 2's own time, since that is the tier that reads the full KV: where guesses
    are dear, as on a CPU, they hide part of it in the time of all tiers.
    """
    table = match.table
    for variant, policy in (("mspeckv", "fixed places"), ("mspeckv-lru", "LRU")):
        steps = table.steps(variant)
        if not steps:
            continue
        ends, verdict = cliff(steps)
        fixed = variant == "mspeckv"
        hit = [table.cells[at, variant].hit_rate for at in table.values]
        hits = ", ".join("none packed" if rate is None else f"{rate:.0%}" for rate in hit)
        text = (
            f"{'No cliff' if fixed else 'A cliff'} under {policy}? Tier 2's steepest step is from "
            f"{ends[0]} to {ends[1]} on-chip layers, {steps[ends].text()} as fast "
            f"({table.clock}). Packed layers found on the device at "
            f"{', '.join(map(str, table.values))}: {hits} (counted)."
        )
        yield Finding(f"cliff, {policy}", text, OPPOSITE[verdict] if fixed else verdict)
    speeds = [(at, match.paper.speeds[at, "mspeckv"].mean) for at in match.paper.values]
    jump, low, high = max((b / a, one, two) for (one, a), (two, b) in pairwise(speeds))
    text = f"The published mspeckv, which keeps layers by LRU, jumps by {jump:.2f}x"
    yield Finding("cliff, published", f"{text} between {low} and {high}.")


def _length(match: Match) -> Iterator[Finding]:
    """B2: whether there is a speed-up at every length, and whether it changes."""
    yield from _effect(match, "output length", "A gain at every length", "mspeckv", "triforce")
    ends = [*match.table.along("mspeckv", "triforce").items()]
    change = ends[-1][1].over(ends[0][1]) if ends[1:] else None
    if change is not None:
        text = f"From {ends[0][0]} to {ends[-1][0]} new tokens the speed-up becomes {change.text()}"
        verdict = change.verdict(noise=match.noise.factor)
        moved = {"shown": "shown", "contradicted": "shown, a fall", "not shown": "not shown"}
        yield Finding("change", f"{text} as large: a change is {moved[verdict]}.")


def _controls(match: Match) -> Iterator[Finding]:
    """What guessing gives over the same policy, and over everything on the device."""
    table = match.table
    ask = "Does guessing pay at equal memory, under the same policy"
    for one in _effect(match, "equal memory", ask, "mspeckv", EQUAL_MEMORY):
        yield Finding(one.topic, one.text + (one.verdict != "shown") * _dear(match), one.verdict)
    ask = "And with lengths chosen while it runs"
    yield from _effect(match, "equal memory, auto", ask, "mspeckv-auto", EQUAL_MEMORY)
    ask = "Faster than plain decoding with all KV on the device as floats"
    for one in _effect(match, "all on device, float", ask, "mspeckv", ALL_FLOAT):
        cells = [table.cells.get((table.values[-1], name)) for name in ("mspeckv", ALL_FLOAT)]
        held = [size for cell in cells if cell is not None and (size := cell.device_kv_bytes)]
        more = f" That takes {held[1] / held[0]:.2f} times the KV memory (modelled)."
        yield Finding(one.topic, one.text + (more if held[1:] else ""), one.verdict)


def _noise(match: Match) -> Iterator[Finding]:
    """How many repeats there are, and what a difference must exceed."""
    samples = [one.speed for one in match.table.cells.values() if one.speed is not None]
    if not samples:
        return
    fewest = min(samples, key=lambda one: len(one.by_seed))
    count = len(fewest.by_seed)
    if fewest.sure:
        held = f"an interval holds the median in {fewest.coverage:.1%}"
    else:
        held = f"too few for an interval of {CONFIDENCE:.0%}: only ranges are given"
    text = f"{count} repeats of a cell at least, {held}. Of all rows loaded, {match.noise.text()}."
    yield Finding("noise", f"{text} Only what lies beyond it is called shown or contradicted.")


_OWN: dict[str, tuple[Callable[[Match], Iterator[Finding]], ...]] = {
    "A1": (_growth, _square),
    "A2": (_quantization,),
    "B1": (_cliff,),
    "B2": (_length,),
}
