"""`MovingRound`: one round of the tiers as a moving picture, from recorded or live events."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import traitlets

from mspeckv import Event, KVPolicy, Pair, Prefill, Round, RunSummary
from mspeckv.settings import Placement, check_kind, refuse
from mspeckv_widgets.charts.story import split_text
from mspeckv_widgets.page_widget import PageWidget, module
from mspeckv_widgets.panel import HasPanel, panel
from mspeckv_widgets.panels.moving.page import DRAWN, caption_of, round_data, stage_data
from mspeckv_widgets.panels.moving.parts import Script
from mspeckv_widgets.panels.moving.script import script_of
from mspeckv_widgets.panels.moving.sentences import naming
from mspeckv_widgets.panels.moving.stage import (
    LINE,
    WIDTHS,
    Piece,
    Stage,
    lay_out,
    lines_needed,
    write,
)
from mspeckv_widgets.panels.moving.still import still
from mspeckv_widgets.panels.moving.style import PAGE_STYLE, SVG_STYLE

_CONTEXT = 8
"""Tokens decoded before a round's own, for tokenizers that drop a text's first space."""
_BEFORE = 70
"""Tokens of earlier rounds that are still seen in the text, at most."""
_numbers = itertools.count()
MODULE = tuple(Path(__file__).with_name(name) for name in ("scene.js", "moving_round.js"))
"""The page's module: what draws a scene, and what plays it."""


class Picture(PageWidget):
    """The page's part: it moves what the scripts say, and asks for nothing but missing rounds.

    A round that is added is sent by itself; `rounds` holds it for whoever looks later.
    """

    _esm = module(*MODULE)
    _css = SVG_STYLE + PAGE_STYLE
    stages: Any = traitlets.List().tag(sync=True)
    rounds: Any = traitlets.List().tag(sync=True)
    count = traitlets.Int(0).tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)
    over = traitlets.Bool(default_value=True).tag(sync=True)
    caption = traitlets.Unicode("").tag(sync=True)
    drawn = traitlets.Unicode(DRAWN).tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.on_msg(lambda _, asked, __: self.send_state("rounds") if asked == "rounds" else None)


class MovingRound(HasPanel):
    """Play, step or slide through a run, round by round: who guesses, who checks, what crosses.

    Args:
        events: what `mspeckv.stream` yielded, as a list; or rounds; or nothing, for a run whose
            events will be added.
        pair: the pair that decoded, for its tokenizer and its number of layers; or a tokenizer
            alone, where a summary says where layers lie.
        policy: where layers lie, or each layer's place; without, the run's summary among
            ``events`` says it.

    Raises:
        ValueError: neither ``policy`` nor a summary says where layers lie, something among
            ``events`` is none, or ``pair`` is neither a pair nor a tokenizer.
    """

    def __init__(
        self,
        events: Iterable[Event],
        pair: Pair | Any,
        policy: KVPolicy | Sequence[Placement] | None = None,
    ) -> None:
        check_kind("events", events, Iterable, "what mspeckv.stream yields")
        seen = list(events)
        layers = pair.layers if isinstance(pair, Pair) else None
        self._tokenizer = pair.tokenizer if isinstance(pair, Pair) else pair
        if not isinstance(pair, Pair) and not hasattr(pair, "decode"):
            raise refuse("pair", type(pair).__name__, "use a Pair or its tokenizer")
        self._name = naming(self._tokenizer)
        self._places = _places(seen, layers, policy)
        self._lock = threading.RLock()
        self._rounds: list[Round] = []
        self._scripts: list[Script] = []
        self._texts: list[tuple[str, int]] = []
        self._starts: list[int] = []
        self._stages: tuple[Stage, ...] = ()
        self._needs: tuple[int, tuple[int, ...], tuple[int, ...]] = (0, (), ())
        self._key = f"mskv{next(_numbers)}"
        self.picture = Picture()
        self.picture.caption = caption_of(None)
        for event in seen:
            self._take(event)
        self._renew()
        self.picture.over = bool(seen)
        self.panel = panel("Moving round", [self.picture])

    def add(self, event: Event) -> None:
        """Take in one more event of a live run; from any thread.

        Raises:
            ValueError: it is none.
        """
        _check(event)
        with self._lock:
            self.picture.over = isinstance(event, RunSummary)
            before = self._needs
            if not self._take(event):
                return
            if self._needs != before:
                self._renew()
                return
            made = self._data(len(self._rounds) - 1)
            # In place: a further view finds it there, and only this one round is sent now.
            self.picture.rounds.append(made)
            self.picture.send({"at": len(self._rounds) - 1, "round": made})
            self.picture.count = len(self._rounds)

    def show(self, round: int) -> None:  # noqa: A002  # as the events call it
        """Go to a round, by its index, and hold it there.

        Raises:
            ValueError: there is no such round.
        """
        most = len(self._rounds) - 1
        known = isinstance(round, int) and not isinstance(round, bool)
        if not known or not 0 <= round <= most:
            raise refuse("round", round, f"use a whole number from 0 to {most}")
        self.picture.shown = -1  # so that the same one may be shown again
        self.picture.shown = round

    def still(self) -> str:
        """The first round as a picture that stands by itself: SVG and its caption, as HTML."""
        with self._lock:
            if not self._scripts:
                return f"<p>{escape('No round yet.')}</p>"
            stage = self._stages[-1]
            written = self._written(0, stage)
            texts = [self._name(chip.token) for chip in self._scripts[0].chips]
            drawn = still(stage, self._places, self._scripts[0], texts, written, f"{self._key}s")
            note = f"{self._scripts[0].title}. {self.picture.caption} {DRAWN}"
        return f"<figure>{drawn}<figcaption><small>{escape(note)}</small></figcaption></figure>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)
        data = made[0] if isinstance(made, tuple) else made
        if data is not None:
            data["text/html"] = self.still()
        return made

    def _take(self, event: Event) -> bool:
        """Remember an event; whether it is a round."""
        if isinstance(event, RunSummary):
            self.picture.caption = caption_of(event.link.kind)
        if not isinstance(event, Round):
            return False
        script = script_of(event, self._name)
        before = [token for one in self._rounds[-_CONTEXT:] for token in one.tokens][-_CONTEXT:]
        found = dict(split_text(self._tokenizer, [*before, *event.tokens]))
        self._starts.append(len(self._texts))
        self._texts += [
            (found.get(len(before) + place, ""), event.settled_by[place])
            for place in range(len(event.tokens))
        ]
        self._rounds.append(event)
        self._scripts.append(script)
        places = max((slots.first + slots.count for slots in script.slots), default=1)
        places = max([places, *(chip.place + 1 for chip in script.chips)])
        tiers = {*event.plan.path, *(chip.tier for chip in script.chips)}
        tiers |= {tier for tier, _, _ in script.passes}
        self._grow(places, tiers, self._lines(len(self._rounds) - 1))
        return True

    def _grow(self, places: int, tiers: set[int], lines: Sequence[int]) -> None:
        """A round may need a larger stage than those before it."""
        old_places, old_tiers, old_lines = self._needs
        most = [max(both) for both in zip(lines, old_lines or lines, strict=True)]
        self._needs = max(places, old_places), tuple(sorted({*old_tiers, *tiers})), tuple(most)

    def _lines(self, index: int) -> list[int]:
        """Lines that a round's tokens take, on each stage."""
        needed = []
        for width in WIDTHS:
            stage = lay_out(width, 1, 1, (0, 1, 2))
            start = self._starts[index]
            own = self._texts[start : start + len(self._rounds[index].tokens)]
            written = write(own, len(own), stage.letters, len(own))
            needed.append(max(lines_needed(written) + 1, 3 if width == WIDTHS[0] else 2))
        return needed

    def _renew(self) -> None:
        """Lay out the stages anew, and write every round's text on them."""
        places, tiers, lines = self._needs
        self._stages = tuple(
            lay_out(width, len(self._places), places or 4, tiers or (0, 1, 2), count)
            for width, count in zip(WIDTHS, lines or (3, 2, 2), strict=True)
        )
        self.picture.stages = [stage_data(one, self._places, self._key) for one in self._stages]
        self.picture.rounds = [self._data(index) for index in range(len(self._rounds))]
        self.picture.count = len(self._rounds)

    def _written(self, index: int, stage: Stage) -> tuple[Piece, ...]:
        """The text up to and with a round, on a stage."""
        own = len(self._rounds[index].tokens)
        end = self._starts[index] + own
        pieces = self._texts[max(0, end - own - _BEFORE) : end]
        return write(pieces, own, stage.letters, round(stage.text.height // LINE))

    def _data(self, index: int) -> dict[str, Any]:
        """A round for the page."""
        stages = [(stage, self._written(index, stage)) for stage in self._stages]
        return round_data(self._scripts[index], self._name, stages)


def _places(
    seen: Sequence[Event], layers: int | None, policy: KVPolicy | Sequence[Placement] | None
) -> tuple[Placement, ...]:
    """Where each layer lies: the policy's word, or the run's summary's."""
    for event in seen:
        _check(event)
    if policy is not None and not isinstance(policy, KVPolicy):
        return tuple(policy)
    if policy is not None and layers is not None:
        return policy.placement(layers)
    told = [event.config["placement"] for event in seen if isinstance(event, RunSummary)]
    if not told:
        allowed = "use a Pair and the run's KVPolicy, or events with their RunSummary"
        raise refuse("policy", policy, allowed)
    return tuple(told[-1])


def _check(event: object) -> None:
    if not isinstance(event, (Prefill, Round, RunSummary)):
        raise refuse("event", event, "use what mspeckv.stream yields")
