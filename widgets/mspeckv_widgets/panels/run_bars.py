"""Three headline numbers, and one bar per setting: where a token's time went."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mspeckv_widgets.charts.run_styles import signed
from mspeckv_widgets.charts.table import short_bytes
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.charts.words import explained
from mspeckv_widgets.compared import Compared, Split, Spread
from mspeckv_widgets.panels.prediction import Predicted

_WAIT, _REST = "#E69F00", "#808080"
_PATTERNS = {
    0: "none",
    1: "repeating-linear-gradient(45deg,#fff5 0 2px,#0000 2px 7px)",
    2: "repeating-linear-gradient(90deg,#fff5 0 2px,#0000 2px 7px)",
}
_WAIT_PATTERN = "repeating-linear-gradient(135deg,#0005 0 2px,#0000 2px 5px)"


def tiles_html(
    compared: Compared | None,
    predicted: Predicted | None,
    why: str = "",
    empty: str = "not run yet",
) -> str:
    """KV over the link, time, and KV on the device, of the setting in the controls.

    Args:
        compared: its runs that can be compared; None where there is none.
        predicted: what the model says.
        why: there is no prediction.
        empty: said in place of what such a run would tell.
    """
    moved = spent = held = None
    if compared is not None:
        moved, spent, held = compared.link_bytes.middle, compared.ms, compared.device_bytes
    waits = "waits emulated" if compared and compared.emulated else ""
    model = predicted
    tiles = [
        _tile(
            empty, "KV over the link per token", "counted", _bytes(moved),
            _bytes(model.link_bytes) if model else why,
            _off(moved, model.link_bytes if model else None),
        ),
        _tile(
            empty, "Time per token, measured", _range(spent, waits),
            f"{spent.middle:.0f} ms" if spent else "",
            f"{model.ms:.0f} ms" if model else why,
            _off(spent.middle if spent else None, model.ms if model else None),
        ),
        _tile(
            empty, "KV on the device, at its end", "modelled", _bytes(held),
            f"{_bytes(model.device_bytes)}, from sizes" if model else why, "",
        ),
    ]  # fmt: skip
    return f'<div class="mskv-tiles">{"".join(tiles)}</div>'


def _tile(empty: str, what: str, kind: str, value: str, modelled: str, off: str) -> str:
    return (
        f'<div class="mskv-tile"><div class="mskv-small">{explained(what)}</div>'
        f'<div class="mskv-headline">{value or empty}'
        f'<span class="mskv-small"> {explained(kind) if value else ""}</span></div>'
        f'<div class="mskv-small mskv-model">{explained("modelled")} {html.escape(modelled)}{off}'
        "</div></div>"
    )


def _bytes(count: float | None) -> str:
    return "" if count is None else short_bytes(count)


def _range(spread: Spread | None, waits: str) -> str:
    """What else there is to say of a time: the range of a few runs, and what is emulated in it."""
    if spread is None or spread.count == 1:
        return waits
    return f"{spread.low:.0f} to {spread.high:.0f}" + (f", {waits}" if waits else "")


def _off(found: float | None, said: float | None) -> str:
    """How far the model was from what was found."""
    if found is None or said is None:
        return ""
    if abs(said - found) <= 0.005 * found:
        return ", as found"
    if not found:
        return ", where there is none"
    return f", {abs(said / found - 1):.0%} too {'high' if said > found else 'low'}"


def bars_html(
    compared: Sequence[Compared], names: Sequence[str], predicted: Predicted | None, name: str = ""
) -> str:
    """One stacked bar a setting, and a dotted one for what the model says of ``name``."""
    rows = [
        (signed(one.slot, html.escape(label)), one.split, one.ms, one.emulated)
        for one, label in zip(compared, names, strict=True)
    ]
    longest = max((spread.high for _, _, spread, _ in rows), default=0.0)
    if predicted is not None:
        longest = max(longest, predicted.ms)
    if not longest:
        return ""
    lines = [
        _row(label, split, spread, longest, emulated) for label, split, spread, emulated in rows
    ]
    splits = [split for _, split, _, _ in rows]
    if predicted is not None:
        model = Split(predicted.tiers, predicted.wait, predicted.rest)
        splits.append(model)
        exact = Spread(predicted.ms, predicted.ms, predicted.ms, 1)
        label = f"modelled{f': {html.escape(name)}' if name else ''}"
        lines.append(_row(label, model, exact, longest, False, "mskv-modelled-bar"))
    head = f"Where a token's time goes, ms: {_key(splits)}"
    if any(spread.count > 1 for _, _, spread, _ in rows):
        head += " (bar: median of the runs; line: their range)"
    return f'<div class="mskv-bars"><div class="mskv-small">{head}</div>{"".join(lines)}</div>'


def _key(splits: Sequence[Split]) -> str:
    """The signs of what occurs."""
    looks = [
        (style.name, _paint(style.colour, _PATTERNS[tier]), any(one.tiers[tier] for one in splits))
        for tier, style in TIERS.items()
    ]
    waits = any(one.wait for one in splits)
    looks.append(("wait for the link", _paint(_WAIT, _WAIT_PATTERN), waits))
    looks.append(("rest", _paint(_REST, "none"), any(one.rest for one in splits)))
    return " ".join(
        f'<span class="mskv-swatch" style="{look}"></span>{explained(name)}'
        for name, look, there in looks
        if there
    )


def _paint(colour: str, pattern: str) -> str:
    return f"background-color:{colour};background-image:{pattern}"


def _row(
    label: str, split: Split, spread: Spread, longest: float, emulated: bool, kind: str = ""
) -> str:
    parts = [
        (f"{TIERS[tier].name} {ms:.0f} ms", ms, TIERS[tier].colour, _PATTERNS[tier])
        for tier, ms in sorted(split.tiers.items())
    ]
    waits = f"wait for the {'emulated ' if emulated else ''}link {split.wait:.0f} ms"
    parts.append((waits, split.wait, _WAIT, _WAIT_PATTERN))
    parts.append((f"rest {split.rest:.0f} ms", split.rest, _REST, "none"))
    said = "; ".join(words for words, ms, _, _ in parts if ms > 0)
    bars = "".join(
        f'<span title="{words}" style="width:{100 * ms / longest:.2f}%;{_paint(colour, pattern)}">'
        "</span>"
        for words, ms, colour, pattern in parts
        if ms > 0
    )
    whisker = ""
    if spread.count > 1:
        left, width = 100 * spread.low / longest, 100 * spread.width / longest
        whisker = f'<i class="mskv-whisker" style="left:{left:.2f}%;width:{width:.2f}%"></i>'
    value = f"{spread.middle:.0f} ms" + (f", {spread.count} runs" if spread.count > 1 else "")
    return (
        f'<div class="mskv-bar-row {kind}"><span class="mskv-bar-name">{label}</span>'
        f'<span class="mskv-track" role="img" aria-label="{html.escape(said)}">{bars}{whisker}'
        f'</span><span class="mskv-bar-value">{value}</span></div>'
    )
