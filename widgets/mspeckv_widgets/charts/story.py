"""The text as it appears, each token marked with the tier that settled it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from mspeckv_widgets.charts.theme import TIERS

# Tokens of context decoded before a new one: some tokenizers drop a text's first space.
_CONTEXT = 8
_PARTIAL = "\ufffd"
_FRAME = ";outline:2px solid var(--mskv-focus)"


def split_text(tokenizer: Any, tokens: Sequence[int]) -> list[tuple[int, str]]:
    """``(index of the last token, characters)`` pieces whose texts join to the whole text.

    A character that spans several tokens comes with the token that completes it; characters never
    completed come last, as the tokenizer's replacement mark.
    """
    pieces: list[tuple[int, str]] = []
    start = 0
    for index in range(len(tokens)):
        before = tokens[max(0, start - _CONTEXT) : start]
        base = _decode(tokenizer, before)
        piece = _decode(tokenizer, [*before, *tokens[start : index + 1]])[len(base) :]
        last = index == len(tokens) - 1
        if piece.endswith(_PARTIAL) and not last:
            continue
        pieces.append((index, piece))
        start = index + 1
    return pieces


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Text of tokens; their ids where there is no tokenizer."""
    if tokenizer is None:
        return "".join(f"{token} " for token in tokens)
    return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


def tier_style(tier: int) -> str:
    """Inline CSS of a token settled by ``tier``."""
    style = TIERS[tier]
    return (
        f"background:{style.tint};border-bottom-style:{style.underline};"
        f"border-bottom-color:{style.colour}"
    )


def legend_html() -> str:
    """The legend, in words as well as colour."""
    keys = [
        f'<span class="mskv-key" style="{tier_style(tier)}">{style.name}</span> '
        f"{style.role}: {style.underline_words}"
        for tier, style in TIERS.items()
    ]
    return (
        '<div class="mskv-small">Marked by the tier whose guess was settled. '
        + " &nbsp; ".join(keys)
        + "</div>"
    )


def keys_html() -> str:
    """The legend in one line."""
    keys = [
        f'<span class="mskv-key" style="{tier_style(tier)}" title="{style.role}: '
        f'{style.underline_words}">{style.name}</span>'
        for tier, style in TIERS.items()
    ]
    return f'<div class="mskv-small">Whose guess was settled: {"".join(keys)}</div>'


def story_html(
    tokenizer: Any, tokens: Sequence[int], settled_by: Sequence[int], now: int | None = None
) -> str:
    """The generated text as HTML, one span per token; token ``now`` is framed."""
    frame = ' aria-current="true"'
    spans = [
        f'<span class="mskv-token" data-tier="{settled_by[index]}" '
        f'title="token {index + 1}: settled by tier {settled_by[index]}"'
        f"{frame if index == now else ''} "
        f'style="{tier_style(settled_by[index])}{_FRAME if index == now else ""}">'
        f"{html.escape(text)}</span>"
        for index, text in split_text(tokenizer, tokens)
    ]
    body = "".join(spans) or '<em class="mskv-small">The text appears here.</em>'
    return (
        f'<div class="mskv-story" role="log" tabindex="0" aria-label="Generated text">{body}</div>'
    )
