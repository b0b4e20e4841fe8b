"""What may be concluded from the runs on the screen: what is certain first, then what jitters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mspeckv_widgets.charts.table import short_bytes
from mspeckv_widgets.compared import ENOUGH, Compared, Spread, apart


def conclusion(compared: Sequence[Compared], names: Sequence[str]) -> list[str]:
    """Sentences about settings that have run, in the order in which they came.

    Bytes are counted, so any difference is one. Of times a difference is claimed only where
    `apart` says so.
    """
    if not compared:
        return ["Run a setting, change a control, run again: what may be concluded is said here."]
    if len(compared) == 1:
        return [_alone(compared[0])]
    return [_bytes(compared, names), *_times(compared, names)]


def _alone(one: Compared) -> str:
    ms = one.ms
    moved = short_bytes(one.link_bytes.middle)
    said = f"One setting so far, per token: {moved} over the link (counted), {ms.middle:.0f} ms"
    if ms.count > 1:
        said += f" (median of {ms.count} runs, {ms.low:.0f} to {ms.high:.0f})"
    return said + ". Change a control and run, to compare."


def _bytes(compared: Sequence[Compared], names: Sequence[str]) -> str:
    spreads = [one.link_bytes for one in compared]
    if any(one.width for one in spreads):
        return _varying_bytes(spreads, names)
    moved = [one.middle for one in spreads]
    listed = ", ".join(
        f"{name}: {short_bytes(count)}" for name, count in zip(names, moved, strict=True)
    )
    said = f"Certain (counted), per token over the link: {listed}."
    least = min(moved)
    fewest = [name for name, count in zip(names, moved, strict=True) if count == least]
    if len(fewest) == len(names):
        return said + " All move as many."
    return said + f" Fewest: {' and '.join(fewest)}."


def _varying_bytes(spreads: Sequence[Spread], names: Sequence[str]) -> str:
    """Lengths that follow measured times differ from run to run, and with them the bytes."""
    listed = ", ".join(
        f"{name}: {short_bytes(one.low)} to {short_bytes(one.high)}"
        for name, one in zip(names, spreads, strict=True)
    )
    said = f"Counted, per token over the link, different from run to run: {listed}."
    ranked = sorted(zip(spreads, names, strict=True), key=lambda pair: pair[0].high)
    first, *others = ranked
    if all(first[0].high < one.low for one, _ in others):
        return said + f" Fewest in every run: {first[1]}."
    return said + " The ranges overlap."


def _times(compared: Sequence[Compared], names: Sequence[str]) -> list[str]:
    few = [name for name, one in zip(names, compared, strict=True) if one.ms.count < ENOUGH]
    if few:
        return [
            f"Time: not to be compared before {ENOUGH} runs of each setting; press Run x{ENOUGH}."
        ]
    time = ordered("Time", [one.ms for one in compared], names)
    waits = [one.wait for one in compared]
    kind = "emulated link" if any(one.emulated for one in compared) else "link"
    wait = ordered(f"Wait for the {kind}", waits, names)
    if not time.claims and not wait.claims:
        return [time.words]
    # what the time consists of matters only where something of it differs
    compute = ordered("Compute alone", [one.compute for one in compared], names)
    return [time.words, wait.words, compute.words]


@dataclass(frozen=True)
class Ordered:
    """Spreads of several settings in words.

    Attributes:
        claims: differences beyond the runs' own spread.
    """

    words: str
    claims: tuple[str, ...]


def ordered(what: str, spreads: Sequence[Spread], names: Sequence[str]) -> Ordered:
    """Which are less than which, as far as that can be told."""
    ranked = sorted(zip(spreads, names, strict=True), key=lambda pair: pair[0].middle)
    claims = []
    for place, (less, name) in enumerate(ranked):
        beaten = [other for more, other in ranked[place + 1 :] if apart(less, more)]
        if beaten:
            claims.append(f"{name} less than {' and '.join(beaten)}")
    listed = ", ".join(
        f"{name}: {one.middle:.0f}" for one, name in zip(spreads, names, strict=True)
    )
    said = f"{what}, ms per token: {listed}"
    if claims:
        said += f"; beyond the runs' spread: {'; '.join(claims)}."
    else:
        said += "; no difference is beyond the runs' own spread."
    return Ordered(said, tuple(claims))
