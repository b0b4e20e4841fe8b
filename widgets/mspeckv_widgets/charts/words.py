"""What the panels' words mean, for whoever points at one."""

from __future__ import annotations

import html
import re

MEANINGS = {
    "KV": "Keys and values: what attention keeps of every earlier token, in every layer",
    "counted": "Counted, byte by byte: the same in every run of a setting, unless its lengths are "
    "automatic and follow measured times",
    "measured": "Taken by a clock in this run: another run will differ a little",
    "emulated": "A clock's time, of a link that was slowed on purpose to be like another machine's",
    "modelled": "What sizes and the cost model say, without running anything",
    "tier 0": "The small draft model: it guesses tokens, cheaply",
    "tier 1": "The target model with a few chosen KV of the prompt: it checks tier 0's guesses",
    "tier 2": "The target model with all of its KV: it checks tier 1, and has the last word",
    "wait for the link": "Time in which tier 2 stands still until a layer's KV has arrived",
    "rest": "Drawing tokens, choosing what tier 1 may look at, taking notes",
    "on-chip": "Layers whose KV stays on the device as floats (in its memory, not in its caches)",
    "resident": "Layers whose KV stays on the device in few bits",
    "offloaded": "Layers whose KV lies in the host's memory and crosses the link in every pass of "
    "tier 2",
}
_KNOWN = re.compile(r"\b(" + "|".join(sorted(MEANINGS, key=len, reverse=True)) + r")\b")


def explained(words: str) -> str:
    """``words``, already escaped and without tags, each known one with its meaning as a tip."""
    return _KNOWN.sub(
        lambda found: (
            f'<abbr class="mskv-word" title="{html.escape(MEANINGS[found[0]])}">{found[0]}</abbr>'
        ),
        words,
    )
