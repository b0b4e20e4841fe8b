"""The sentences of a moving round: for the line under the picture, and for screen readers."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from mspeckv import Guess, Round
from mspeckv_widgets.charts.table import readable_bytes
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.panels.moving.parts import Crossing

LEAST_WAIT = 0.1
"""Shorter waits, in ms, are a call's own time and not told."""
_SHOWN = {"\n": "⏎", "\r": "⏎", "\t": "⇥"}
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"


def printable(text: str) -> str:
    """``text`` on one line, without what XML cannot hold or what turns the writing round."""
    shown = []
    for letter in text:
        if letter in _TURNS:
            continue
        kind = unicodedata.category(letter)
        bad = kind in ("Cc", "Cs", "Cn", "Zl", "Zp")
        shown.append(_SHOWN.get(letter, "\ufffd" if bad else letter))
    return "".join(shown)


def columns(text: str) -> int:
    """How many columns of a typewriter's page a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(bool(unicodedata.combining(letter)) for letter in text)


def naming(tokenizer: Any) -> Callable[[int], str]:
    """A token's text by its id, spaces around it made visible; its id without a tokenizer."""

    def name(token: int) -> str:
        if tokenizer is None:
            return str(token)
        text = printable(str(tokenizer.decode([token], clean_up_tokenization_spaces=False)))
        return text.strip() or "␣" * len(text) or "∅"

    return name


def size(count: int) -> str:
    """Bytes as people read them."""
    return " ".join(readable_bytes(count))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _name(tier: int) -> str:
    """A tier at a sentence's beginning."""
    return TIERS[tier].name.capitalize()


def title(one: Round) -> str:
    """The round in one line."""
    moved = sum(t.bytes for t in one.transfers)
    return (
        f"Round {one.index + 1}: {_count(len(one.tokens), 'token')} settled in {one.ms:.0f} ms, "
        f"{size(moved)} over the link"
    )


def begins(one: Round) -> str:
    """At its start."""
    if not one.guesses:
        return f"Round {one.index + 1} begins: {TIERS[one.plan.path[-1]].name} decodes alone."
    return f"Round {one.index + 1} begins: the tiers guess, from the bottom up."


def guesses(tier: int, token: str) -> str:
    """A tier guesses a token."""
    return f"{_name(tier)} guesses “{token}”."


def decodes(tier: int, token: str) -> str:
    """A tier that tests nothing decodes a token."""
    return f"{_name(tier)} says “{token}”."


def tests(guess: Guess) -> str:
    """A verifier's pass begins."""
    name = _name(guess.verifier)
    if not guess.tokens:
        return f"{name} has no guess to test: its pass decodes one token."
    many = f"{len(guess.tokens)} guesses at once" if len(guess.tokens) > 1 else "one guess"
    return f"{name} tests {many}, in one pass."


def verdict(guess: Guess, name: Callable[[int], str]) -> str:
    """A verifier's pass has ended."""
    who, own = _name(guess.verifier), f"“{name(guess.reply)}”"
    if not guess.tokens:
        return f"{who} says {own}."
    if not guess.rejected:
        kept = f"all {len(guess.tokens)}" if len(guess.tokens) > 1 else "the guess"
        return f"{who} keeps {kept} and adds {own}."
    wrong = name(guess.rejected[0])
    kept = f"{guess.accepted} of {len(guess.tokens)}" if guess.accepted else "no guess"
    return f"{who} keeps {kept}, rejects “{wrong}”, says {own} itself."


def crosses(crossing: Crossing, before: bool) -> str:
    """A transfer is under way."""
    moved, layer = size(crossing.bytes), f"layer {crossing.layer}"
    if crossing.purpose == "flush":
        words = f"A finished block of {layer} leaves for the host: {moved}"
    else:
        where = "the device" if crossing.direction == "to_device" else "the host"
        verb = "has crossed" if before else "crosses"
        words = f"{layer.capitalize()} {verb} the link to {where}: {moved}"
    if before:
        words += ", before the round began"
    if crossing.purpose not in ("verify", "flush"):
        words += f" ({printable(crossing.purpose)})"
    if crossing.wait is not None:
        words += f"; compute stands still for it for {crossing.wait[1] - crossing.wait[0]:.1f} ms"
    return f"{words}."


def settles(one: Round, name: Callable[[int], str]) -> str:
    """The round's tokens join the text."""
    counts = Counter(one.settled_by)
    whose = ", ".join(f"{counts[tier]} by {TIERS[tier].name}" for tier in sorted(counts))
    told = " ".join(name(token) for token in one.tokens)
    return f"{_count(len(one.tokens), 'token')} settled ({whose}): {told}"


def state(tier: int | None, waits_for: int | None) -> str:
    """What the device does."""
    if waits_for is not None:
        return f"stands still, waits for layer {waits_for}"
    return "between passes" if tier is None else f"{TIERS[tier].name} computes"


def crossed(so_far: int, total: int) -> str:
    """How much has crossed the link."""
    return f"{size(so_far)} of {size(total)}" if total else "nothing crosses"
