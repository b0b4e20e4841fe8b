"""The script of a moving round: what moves, when, from where, to where. Events in, data out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mspeckv import Pass, Round, Transfer
from mspeckv_widgets.panels.moving import sentences as say
from mspeckv_widgets.panels.moving.parts import (
    LEAST,
    TAIL,
    Beat,
    Chip,
    Crossing,
    Move,
    Script,
    Span,
)
from mspeckv_widgets.panels.moving.sorting import Draft, settle, sort_guesses


def script_of(one: Round, name: Callable[[int], str]) -> Script:
    """The round as moves; ``name`` gives a token's text."""
    ms = max(one.ms, 1e-3)
    passes = tuple((p.tier, *_within(one, p, ms)) for p in one.passes)
    crossings = _crossings(one, ms)
    draft = Draft()
    draft.beat(0.0, say.begins(one))
    standing = sort_guesses(one, draft, passes, ms, name)
    for crossing in crossings:
        middle = (crossing.at + crossing.arrived) / 2
        draft.beat(middle, say.crosses(crossing, crossing.head == 1.0))
    settle(one, draft, standing, ms, name)
    order = sorted(range(len(draft.beats)), key=lambda number: (draft.beats[number][0], number))
    number = {old: new for new, old in enumerate(order)}
    chips = tuple(
        Chip(word.place, word.tier, word.token, tuple(Move(*m[:4], number[m[4]]) for m in moves))
        for word, moves in draft.chips
    )
    return Script(
        one.index, ms, ms * (1 + TAIL), _poster(passes, crossings, ms), say.title(one), chips,
        crossings, passes, tuple(draft.slots), tuple(Beat(*draft.beats[old]) for old in order),
        tuple(_states(passes, crossings, ms)), tuple(_crossed(crossings)),
    )  # fmt: skip


def _within(one: Round, what: Pass | Transfer, ms: float) -> Span:
    """A pass or transfer on the round's clock, cut to the round."""
    start = (what.start - one.start) * 1e3
    at = min(max(start, 0.0), ms)
    return at, min(max(start + what.ms, at), ms)


def _crossings(one: Round, ms: float) -> tuple[Crossing, ...]:
    """The round's transfers; a short one is drawn for `LEAST`, if none follows meanwhile."""
    moved = [(*_within(one, t, ms), t) for t in one.transfers]
    starts, found = sorted(at for at, _, _ in moved), []
    for at, arrived, transfer in moved:
        follows = next((start for start in starts if start > at), ms * (1 + TAIL))
        before = (one.start - transfer.start) * 1e3
        head = min(max(before / transfer.ms, 0.0), 1.0) if transfer.ms > 0 else float(before > 0)
        wait = max(0.0, arrived - transfer.wait_ms), arrived
        found.append(
            Crossing(
                transfer.layer,
                transfer.direction,
                transfer.purpose,
                transfer.bytes,
                at,
                arrived,
                max(arrived, min(at + LEAST * ms, follows)),
                head,
                wait if wait[1] - wait[0] > say.LEAST_WAIT else None,
            )
        )
    return tuple(found)


def _poster(
    passes: Sequence[tuple[int, float, float]], crossings: Sequence[Crossing], ms: float
) -> float:
    """Half-way through a transfer in the middle of the top tier's last pass, or of that pass."""
    if not passes:
        return ms / 2
    _, at, until = max(passes, key=lambda one: (one[0], one[2]))
    seen = [(c.at + c.arrived) / 2 for c in crossings if at <= (c.at + c.arrived) / 2 <= until]
    return seen[len(seen) // 2] if seen else (at + until) / 2


def _states(
    passes: Sequence[tuple[int, float, float]], crossings: Sequence[Crossing], ms: float
) -> list[Beat]:
    """What the device does, from each moment on at which that changes."""
    waits = [(*c.wait, c.layer) for c in crossings if c.wait is not None]
    edges = {0.0, *(edge for p in passes for edge in p[1:]), *(e for w in waits for e in w[:2])}
    states: list[Beat] = []
    for at in sorted(edges):
        waiting = [layer for begin, end, layer in waits if begin <= at < end]
        busy = [tier for tier, begin, end in passes if begin <= at < end]
        words = say.state(busy[-1] if busy else None, waiting[0] if waiting else None)
        if not states or states[-1].words != words:
            states.append(Beat(at, words))
    return [*states, Beat(ms, "the round is over")]


def _crossed(crossings: Sequence[Crossing]) -> list[Beat]:
    """How many bytes have crossed, from each arrival on."""
    total, so_far = sum(c.bytes for c in crossings), 0
    found = [Beat(0.0, say.crossed(0, total))]
    for crossing in sorted(crossings, key=lambda c: c.arrived):
        so_far += crossing.bytes
        found.append(Beat(crossing.arrived, say.crossed(so_far, total)))
    return found
