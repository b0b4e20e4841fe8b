"""What a page is told of a moving round: its stages and rounds as plain lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mspeckv.settings import Placement
from mspeckv_widgets.panels.moving.drawing import backdrop
from mspeckv_widgets.panels.moving.parts import Script
from mspeckv_widgets.panels.moving.stage import LETTER, LINE, Piece, Stage

DRAWN = (
    "A token appears when the pass that guessed it ends, and is sorted when its verifier's pass "
    "ends. Passes and transfers last as long as their events say; a short transfer is drawn for a "
    "fiftieth of the round, if none follows meanwhile. Moves of tokens take no measured time: the "
    "last ones follow the round's end. Events tell transfers by layer and passes by tier, not "
    "which layer is being computed: a layer is framed on the device only while compute stood still "
    "for its KV. A copy that has arrived fades: events do not tell when its buffer is used again."
)


def caption_of(kind: str | None) -> str:
    """Units, and what was measured; ``kind`` is the link's, None where it is not known."""
    crossed = {
        "emulated": "times of an emulated link: bytes were copied, then held back",
        "memory": "copies within memory: no slow link is emulated",
        "pcie": "transfers over PCIe",
    }
    link = crossed.get(kind or "", "transfers by the same clock")
    return f"Time: ms since the round began, measured; {link}. Bytes: counted. Tile: a layer's KV."


def stage_data(stage: Stage, places: Sequence[Placement], key: str) -> dict[str, Any]:
    """A stage for the page, with all that does not move."""
    return {
        "width": stage.width, "height": stage.height, "key": key,
        "backdrop": backdrop(stage, places, key),
        "lanes": {str(tier): y for tier, y in stage.lanes.items()},
        "cells": [list(cell) for cell in stage.cells],
        "chip": list(stage.chip), "fit": stage.fit,
        "text": [*stage.text], "line": LINE, "letter": LETTER,
        "host": [*stage.host], "device": [*stage.device], "pipe": [*stage.pipe],
        "tile": [*stage.tile], "spots": [list(one) for one in stage.spots],
        "clock": [*stage.clock], "rows": list(stage.rows),
        "tally": [*stage.tally],
    }  # fmt: skip


def round_data(
    script: Script, name: Callable[[int], str], stages: Sequence[tuple[Stage, Sequence[Piece]]]
) -> dict[str, Any]:
    """A round for the page; with each stage comes the text as it is written there."""
    return {
        "ms": _short(script.ms), "end": _short(script.end), "poster": _short(script.poster),
        "title": script.title,
        "chips": [
            [name(chip.token), chip.tier, chip.place,
             [[m.kind, _short(m.at), _short(m.until), m.lane, m.beat] for m in chip.moves]]
            for chip in script.chips
        ],
        "crossings": [
            [c.layer, c.direction == "to_host", _short(c.at), _short(c.arrived),
             _short(c.until), round(c.head, 3), [_short(edge) for edge in c.wait or ()]]
            for c in script.crossings
        ],
        "passes": [[tier, _short(at), _short(until)] for tier, at, until in script.passes],
        "slots": [[s.lane, s.first, s.count, _short(s.at), _short(s.until)] for s in script.slots],
        **{
            kind: [[_short(beat.at), beat.words] for beat in beats]
            for kind, beats in (
                ("beats", script.beats), ("states", script.states), ("crossed", script.crossed),
            )
        },
        "written": [[list(piece) for piece in pieces] for _, pieces in stages],
    }  # fmt: skip


def _short(ms: float) -> float:
    return round(ms, 3)
