"""A moment of a moving round as a picture that needs no kernel and no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mspeckv.settings import Placement
from mspeckv_widgets.panels.moving.drawing import (
    backdrop,
    chip_svg,
    clock_bars,
    ghost_svg,
    piece_svg,
    rect,
    tile,
    words,
)
from mspeckv_widgets.panels.moving.parts import Beat, Script
from mspeckv_widgets.panels.moving.pose import followed, in_lane, on_way, pose, settled_middle
from mspeckv_widgets.panels.moving.stage import Box, Piece, Stage
from mspeckv_widgets.panels.moving.style import SVG_STYLE


def still(
    stage: Stage,
    places: Sequence[Placement],
    script: Script,
    texts: Sequence[str],
    written: Sequence[Piece],
    key: str,
) -> str:
    """The script's poster on its stage, as one SVG element.

    Args:
        texts: what each of the script's chips says.
        written: the text with the round's own tokens.
        key: makes the names of patterns the picture's own.
    """
    now = script.poster
    homes = {p.fresh: settled_middle(stage, p) for p in written if p.fresh >= 0}
    lit = frozenset(tier for tier, at, until in script.passes if at <= now < until)
    drawn = [backdrop(stage, places, key, lit), clock_bars(stage, script)]
    drawn += [piece_svg(stage, p, 1.0) for p in written if p.fresh < 0]
    drawn += [
        rect(_cell(stage, slots.first + place, slots.lane), "slot", 5)
        for slots in script.slots
        if slots.at <= now < slots.until
        for place in range(slots.count)
        if slots.first + place < len(stage.cells)
    ]
    poses = [pose(stage, chip, homes.get(chip.place), now) for chip in script.chips]
    drawn += [
        ghost_svg(stage, in_lane(stage, chip.place, chip.moves[-1].lane), text, chip, where)
        for chip, text, where in zip(script.chips, texts, poses, strict=True)
        if where.ghost and not followed(script, chip, now)
    ]
    drawn += [
        chip_svg(stage, text, chip.tier, where)
        for chip, text, where in zip(script.chips, texts, poses, strict=True)
        if where.opacity
    ]
    for crossing in script.crossings:
        if not 0 <= crossing.layer < len(places):
            continue
        middle, seen = on_way(stage, crossing, script.ms, now)
        if seen:
            size = stage.tile
            box = Box(middle.x - size.x / 2, middle.y - size.y / 2, size.x, size.y)
            made = tile(box, crossing.layer, "offloaded", key)
            drawn.append(f'<g opacity="{seen:.2f}">{made}</g>')
    drawn += _hands(stage, script, now)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mskv-mr" role="img" '
        f'aria-label="{escape(script.title)}" viewBox="0 0 {stage.width:.0f} {stage.height:.0f}" '
        f'style="width:100%;max-width:{1.2 * stage.width:.0f}px;background:'
        f'var(--mskv-paper,#fff)"><style>{SVG_STYLE}</style>{"".join(drawn)}</svg>'
    )


def _cell(stage: Stage, place: int, lane: int) -> Box:
    cell = stage.cells[place]
    return Box(cell.x, stage.lanes[lane] + cell.y, *stage.chip)


def _hands(stage: Stage, script: Script, now: float) -> list[str]:
    """What the moment says in words, and where the clock stands."""
    device, clock = stage.device, stage.clock
    x = clock.x + clock.width * min(now / script.ms, 1.0)
    return [
        words(device.x + 8, device.y + device.height - 8, at(script.states, now), "strong"),
        words(*stage.tally, at(script.crossed, now), "mid"),
        words(
            clock.x + clock.width / 2, clock.y + clock.height + 14, f"now {now:.0f} ms", "faint mid"
        ),
        f'<line class="hand" x1="{x:.1f}" x2="{x:.1f}" y1="{clock.y - 3:.1f}" '
        f'y2="{clock.y + clock.height + 3:.1f}"/>',
    ]


def at(beats: Sequence[Beat], now: float) -> str:
    """What is said at a moment."""
    said = [beat.words for beat in beats if beat.at <= now]
    return said[-1] if said else ""
