"""The shapes of a moving round as SVG.

The page's own script draws what moves in the same shapes; `backdrop` is all that does not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mspeckv.settings import Placement
from mspeckv_widgets.charts.theme import LIGHT, PLACES, TIERS
from mspeckv_widgets.panels.moving.parts import Chip, Script
from mspeckv_widgets.panels.moving.pose import Pose
from mspeckv_widgets.panels.moving.stage import LETTER, Box, Piece, Point, Stage, cut, spot
from mspeckv_widgets.panels.moving.style import variable

_HATCH = {"resident": ("rotate(45)", 5), "offloaded": ("", 4)}


def backdrop(
    stage: Stage, places: Sequence[Placement], key: str, lit: frozenset[int] = frozenset()
) -> str:
    """Lanes, boxes, tiles where they lie, the link; ``key`` makes the patterns' names unique."""
    return "".join(
        [
            _patterns(key),
            *(_lane(stage, tier, tier in lit) for tier in stage.lanes),
            _text_box(stage),
            *_boxes(stage, places, key),
            *_clock(stage),
        ]
    )


def _patterns(key: str) -> str:
    """The places' second signs, as in the bar of layers."""
    made = [
        f'<pattern id="{key}-{place}" width="{width}" height="{width}" '
        f'patternUnits="userSpaceOnUse" patternTransform="{turn}"><rect width="{width}" '
        f'height="{width}" fill="{PLACES[place].colour}"/>'  # type: ignore[index]
        f'<rect width="1.5" height="{width}" fill="#0004"/></pattern>'
        for place, (turn, width) in _HATCH.items()
    ]
    return f"<defs>{''.join(made)}</defs>"


def words(x: float, y: float, text: str, kind: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def rect(box: Box, kind: str, round_by: float = 4, more: str = "") -> str:
    """A rectangle of a class of the style sheet."""
    return (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{round_by}" class="{kind}" {more}/>'
    )


def _lane(stage: Stage, tier: int, lit: bool) -> str:
    """A tier's lane, unlit and, above it, lit; its key and its name."""
    band, style = stage.bands[tier], TIERS[tier]
    light = rect(band, "lit", 4, f'data-lane="{tier}"' + ' style="opacity:.5"' * lit)
    key = rect(Box(10, band.y + (8 if stage.wide else 4), 12, 12), "", 2)
    if stage.wide:
        name = words(28, band.y + 18, style.name, "strong")
        name += words(10, band.y + 33, style.role, "faint")
    else:
        name = words(28, band.y + 14, f"{style.name}: {style.role}", "strong")
    return f'{rect(band, "band")}<g class="t{tier}">{light}{key}</g>{name}'


def _text_box(stage: Stage) -> str:
    box = stage.text
    name = (
        words(10, box.y + 20, "settled text", "strong")
        if stage.wide
        else words(6, box.y - 6, "settled text", "strong")
    )
    return name + rect(box, "band")


def tile(box: Box, layer: int, place: Placement, key: str) -> str:
    """A layer's tile: its place's colour and pattern, and its number where there is room."""
    fill = f"url(#{key}-{place})" if place in _HATCH else PLACES[place].colour
    back = rect(box, "", 2, f'fill="{fill}"')
    number = words(box.x + box.width / 2, box.y + box.height / 2 + 4, str(layer), "mid")
    return (
        f'<g class="tile" data-layer="{layer}" data-place="{place}">'
        f"{back}{number if box.width >= 14 else ''}</g>"
    )


def _boxes(stage: Stage, places: Sequence[Placement], key: str) -> list[str]:
    host, device, pipe, size = stage.host, stage.device, stage.pipe, stage.tile
    counts = {place: places.count(place) for place in PLACES if place in places}
    held = [f"{n} {place}" for place, n in counts.items() if place != "offloaded"]
    small = "faint" if stage.wide else "faint small"
    out = f"{counts.get('offloaded', 0)} offloaded"
    made = [
        rect(host, "box", 6), rect(device, "box", 6), rect(pipe, "pipe", 3),
        words(host.x + 8, host.y + 16, "host memory" if stage.wide else "host", "strong"),
        words(device.x + 8, device.y + 16, "device", "strong"),
        words(host.x + 8, host.y + host.height - 24, out, "faint"),
        words(device.x + 8, device.y + device.height - 24,
              ", ".join(held) or "no layer's KV lies here", small),
        words(pipe.x + pipe.width / 2, pipe.y - 8, "link", "mid strong"),
    ]  # fmt: skip
    for layer, place in enumerate(places):
        offset = stage.spots[layer]
        here = [Box(box.x + offset.x, box.y + offset.y, *size) for box in (host, device)]
        made.append(tile(here[place != "offloaded"], layer, place, key))
        if place == "offloaded":
            made.append(rect(here[1], "empty", 2))
    return made


def _clock(stage: Stage) -> list[str]:
    clock, rows = stage.clock, stage.rows
    high = clock.height / len(rows)
    made = [
        words(clock.x - 6, clock.y + high * (row + 1) - 2.5, name, "faint end")
        for row, name in enumerate(rows)
    ]
    return [*made, rect(clock, "band", 0)]


def clock_bars(stage: Stage, script: Script) -> str:
    """The round's passes and transfers on its clock; of transfers, what they are drawn for."""
    clock, rows = stage.clock, stage.rows
    high = clock.height / len(rows)

    def bar(row: str, at: float, until: float, kind: str) -> str:
        x = clock.x + clock.width * at / script.ms
        width = max(clock.width * (until - at) / script.ms, 0.75)
        y = clock.y + high * rows.index(row) + 2.5
        return rect(Box(x, y, width, high - 5), kind, 0)

    passes = [bar(f"tier {tier}", at, until, f"p{tier}") for tier, at, until in script.passes]
    moved = [bar("link", c.at, c.arrived, "cross") for c in script.crossings]
    end = words(
        clock.x + clock.width, clock.y + clock.height + 14, f"{script.ms:.0f} ms", "faint end"
    )
    return "".join(
        [*passes, *moved, words(clock.x, clock.y + clock.height + 14, "0", "faint"), end]
    )


def chip_svg(stage: Stage, text: str, tier: int, where: Pose) -> str:
    """A chip as it is seen."""
    half = Point(stage.chip.x / 2, stage.chip.y / 2)
    box = rect(Box(-half.x, -half.y, *stage.chip), "", 5)
    label = words(0, 4.5, cut(text, stage.fit), "mono mid")
    return (
        f'<g class="chip t{tier}" opacity="{where.opacity:.2f}" transform="translate('
        f"{where.middle.x:.1f} {where.middle.y:.1f}) rotate({where.turn:.1f}) "
        f'scale({where.scale:.2f})">{box}{label}</g>'
    )


def ghost_svg(stage: Stage, middle: Point, text: str, chip: Chip, where: Pose) -> str:
    """What is left of a chip that was rejected, struck through, or dropped."""
    kind = chip.moves[-1].kind
    y = middle.y + 4.5
    return (
        f'<text x="{middle.x:.1f}" y="{y:.1f}" class="mono mid {kind}" opacity="{where.ghost:.2f}">'
        f"{escape(cut(text, stage.fit))}</text>"
    )


def piece_svg(stage: Stage, piece: Piece, opacity: float) -> str:
    """A token of the text, with its tier's tint and underline."""
    at, wide = spot(stage, piece), LETTER * piece.columns
    under = f'<line x1="{at.x:.1f}" x2="{at.x + wide:.1f}" y1="{at.y + 19}" y2="{at.y + 19}"/>'
    fill = f"fill:{variable(f'tint-{piece.tier}', LIGHT.tints[piece.tier])};stroke:none"
    back = rect(Box(at.x, at.y + 1, wide, 18), "", 0, f'style="{fill}" ')
    letters = (
        f'<text x="{at.x:.1f}" y="{at.y + 14}" class="mono" textLength="{wide:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(piece.text)}</text>'
    )
    return f'<g class="t{piece.tier}" opacity="{opacity:.2f}">{back}{letters}{under}</g>'
