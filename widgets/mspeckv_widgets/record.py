"""One run as the panel remembers it: its setting, its events, and the lines drawn from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mspeckv import Event, Prefill, Profile, Round, RunConfig, RunSummary, Transfer
from mspeckv.events import Pass
from mspeckv_widgets.charts.theme import TIERS

MEGA = 1e6
Axis = Literal["tokens", "seconds"]
"""What runs along x: tokens settled, or seconds since the run began."""
PREFILL_ROOM = 0.06
"""Where tokens run along x, the prefill has this share of them left of 0."""


@dataclass(frozen=True)
class Setting:
    """Everything the panel's controls say: the prompt and the run's configuration."""

    document: str
    prefill: int
    config: RunConfig


@dataclass(frozen=True)
class Line:
    """Points of a chart."""

    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()


@dataclass
class RunRecord:
    """A run's events so far. One thread adds, others read a `snapshot`.

    Attributes:
        steps: passes and transfers since the last event.
        read: share of the prompt's layers that have been read.
        pieces: stands in for a tokenizer, of a run that was recorded elsewhere.
        profiled: a profiler was looking on, which costs time.
    """

    number: int
    setting: Setting
    prefill: Prefill | None = None
    rounds: list[Round] = field(default_factory=list)
    summary: RunSummary | None = None
    profile: Profile | None = None
    steps: list[Pass | Transfer] = field(default_factory=list)
    read: float = 0.0
    pieces: Any = None
    profiled: bool = False

    @property
    def label(self) -> str:
        """Number and setting: ``#3 mspeckv, int8, on-chip 15, resident 0, gamma 8, link live``."""
        config = self.setting.config
        policy, link = config.policy, config.link
        width = "float" if policy.bits == "full" else f"int{policy.bits}"
        speed = link.preset or (f"{link.gbps} GB/s" if link.gbps else "of its own")
        guesses = "" if config.method == "autoregressive" else f", gamma {config.speculation.gamma}"
        return (
            f"#{self.number} {config.method}, {width}, on-chip {policy.on_chip}, resident "
            f"{policy.resident}{guesses}, link {speed}"
        )

    def add(self, event: Event) -> None:
        """Remember one event; it has what its steps told before."""
        if isinstance(event, Prefill):
            self.prefill = event
        elif isinstance(event, Round):
            self.rounds.append(event)
        else:
            self.summary = event
        self.steps.clear()

    def snapshot(self) -> RunRecord:
        """A copy that later events do not change."""
        return replace(self, rounds=list(self.rounds), steps=list(self.steps))

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.summary is not None and not self.summary.cancelled and bool(self.rounds)

    @property
    def timed(self) -> bool:
        """Whether its times are those of this machine, undisturbed, and may be compared."""
        return self.finished and not self.profiled and self.pieces is None

    @property
    def waits_are_emulated(self) -> bool:
        """Whether a throttled copy stood in for the link; known at the run's end."""
        return self.summary is not None and self.summary.link.kind == "emulated"

    @property
    def tokens(self) -> list[int]:
        """Settled token ids so far."""
        return [token for one in self.rounds for token in one.tokens]

    @property
    def settled_by(self) -> list[int]:
        """For each token, the tier whose guess it was."""
        return [tier for one in self.rounds for tier in one.settled_by]

    @property
    def decode_transfers(self) -> list[Transfer]:
        """Copies over the link after the prefill."""
        return [transfer for one in self.rounds for transfer in one.transfers]

    @property
    def newest(self) -> tuple[list[Pass], list[Transfer]]:
        """Passes and transfers of the round at work."""
        if self.prefill is None:
            return [], []
        passes = [one for one in self.steps if isinstance(one, Pass)]
        return passes, [one for one in self.steps if isinstance(one, Transfer)]


def traffic_line(record: RunRecord, axis: Axis) -> Line:
    """MB over the link, both directions, summed up: of decode by tokens, of all by seconds."""
    if axis == "tokens":
        _, moving = record.newest
        steps = [one.link_bytes() for one in record.rounds]
        return _by_tokens(record, steps, sum(one.bytes for one in moving), 1 / MEGA)
    moved: list[Transfer] = []
    if record.prefill is not None:
        moved += record.prefill.transfers
    moved += record.decode_transfers
    moved += [one for one in record.steps if isinstance(one, Transfer)]
    moved.sort(key=lambda one: one.start + one.ms / 1e3)
    total, xs, ys = 0.0, [0.0], [0.0]
    for one in moved:
        total += one.bytes / MEGA
        xs.append(one.start + one.ms / 1e3)
        ys.append(total)
    end = _now(record)
    return Line((*xs, max(end, xs[-1])), (*ys, total))


def time_line(record: RunRecord, axis: Axis) -> Line:
    """Milliseconds of decode by tokens; tokens settled by seconds."""
    if axis == "tokens":
        passes, moving = record.newest
        steps: list[Pass | Transfer] = [*passes, *moving]
        ends = [one.start + one.ms / 1e3 for one in steps]
        begun = min((one.start for one in passes), default=0.0)
        tip = 1e3 * (max(ends) - begun) if passes else 0.0
        return _by_tokens(record, [one.ms for one in record.rounds], max(tip, 0.0), 1.0)
    xs, ys = [0.0], [0.0]
    for one in record.rounds:
        xs += [one.start, one.start + one.ms / 1e3]
        ys += [ys[-1], ys[-1] + len(one.tokens)]
    return Line((*xs, max(_now(record), xs[-1])), (*ys, ys[-1]))


def acceptance_lines(record: RunRecord, axis: Axis) -> dict[int, Line]:
    """Percent of each proposing tier's tokens that the tier above kept, over the run so far.

    The running share is drawn because single rounds propose too few tokens to read.
    """
    lines: dict[int, Line] = {}
    for tier in TIERS:
        proposed = accepted = settled = 0
        xs: list[float] = []
        ys: list[float] = []
        for one in record.rounds:
            settled += len(one.tokens)
            for count in one.tiers:
                if count.tier == tier:
                    proposed += count.proposed
                    accepted += count.accepted
            if proposed:
                xs.append(settled if axis == "tokens" else one.start + one.ms / 1e3)
                ys.append(100.0 * accepted / proposed)
        if xs:
            lines[tier] = Line(tuple(xs), tuple(ys))
    return lines


def _by_tokens(record: RunRecord, steps: Iterable[float], tip: float, scale: float) -> Line:
    """Running sum of ``steps``, one a round, over tokens settled; ``tip`` is the round at work.

    The prefill comes in from the left.
    """
    wanted = record.setting.config.new_tokens
    read = 1.0 if record.prefill is not None else record.read
    xs = [-PREFILL_ROOM * wanted, -PREFILL_ROOM * wanted * (1 - read)]
    ys = [0.0, 0.0]
    for one, step in zip(record.rounds, steps, strict=True):
        xs.append(xs[-1] + len(one.tokens))
        ys.append(ys[-1] + step * scale)
    if tip:
        xs.append(xs[-1])
        ys.append(ys[-1] + tip * scale)
    return Line(tuple(xs), tuple(ys))


def _now(record: RunRecord) -> float:
    """Seconds from the run's beginning to its last step."""
    known = [one.start + one.ms / 1e3 for one in record.rounds[-1:]]
    known += [one.start + one.ms / 1e3 for one in record.steps[-1:]]
    if record.prefill is not None:
        known.append(record.prefill.seconds)
    return max(known, default=0.0)
