"""`TokenStory`: a finished run replayed token by token through the tiers."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import ipywidgets as ipw

from mspeckv import Event, Pair, Round
from mspeckv.events import PURPOSES
from mspeckv.settings import check_kind
from mspeckv_widgets.charts.story import legend_html, story_html
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.panel import HasPanel, panel
from mspeckv_widgets.panels.player import Player
from mspeckv_widgets.replay import Replay, Step, Word

_PAUSE_MS = 700
"""Between two tokens of a replay."""


class TokenStory(HasPanel):
    """Play, step or slide through a run: who guessed each token, who kept or corrected it.

    Args:
        pair: the pair that decoded, for its tokenizer.
        events: what `mspeckv.stream` yielded, as a list; or its rounds.

    Raises:
        ValueError: there is no settled token among the events.
    """

    def __init__(self, pair: Pair, events: Iterable[Event]) -> None:
        check_kind("pair", pair, Pair)
        self._tokenizer = pair.tokenizer
        self.replay = Replay.of(events)
        last = len(self.replay.steps)
        self.slider = ipw.IntSlider(
            value=1, min=1, max=last, description="Token",
            tooltip="Which token of the run is looked at",
            style={"description_width": "60px"}, layout={"width": "380px"},
        )  # fmt: skip
        self.player = Player(max=last, interval=_PAUSE_MS, hint="Play the run token by token")
        self._link = ipw.link((self.player, "value"), (self.slider, "value"))
        self.buttons = {
            "back": self._button("Back", "step-backward", "One token back", -1),
            "step": self._button("Step", "step-forward", "One token on", 1),
            "correction": self._button(
                "Next correction", "search", "On to the next guess that tier 2 put right", None
            ),
        }
        self._said = ipw.HTML()
        self._text, self._words, self._cost = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.slider.observe(lambda _: self._draw(), names="value")
        self.panel = self._assemble()
        self._draw()

    @property
    def step(self) -> Step:
        """The token that is looked at."""
        number: int = self.slider.value
        return self.replay.steps[number - 1]

    def _button(self, words: str, icon: str, tip: str, by: int | None) -> Any:
        button = ipw.Button(description=words, icon=icon, tooltip=tip, layout={"width": "auto"})
        button.on_click(lambda _: self._correct() if by is None else self._move(by))
        return button

    def _move(self, by: int) -> None:
        self.slider.value = min(max(self.slider.value + by, 1), self.slider.max)

    def _correct(self) -> None:
        found = self.replay.next_correction(self.step.index)
        if found is None:
            self._said.value = _note("No later guess of this run had to be put right by tier 2.")
        else:
            self.slider.value = found + 1

    def _assemble(self) -> Any:
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        half = {"flex": "1 1 380px", "min_width": "280px", "padding": "0 12px 0 0"}
        bar = ipw.HBox([self.player, self.slider, *self.buttons.values()], layout=wrap)
        left = ipw.VBox([ipw.HTML(legend_html()), self._text], layout=half)
        right = ipw.VBox([self._words, self._cost], layout=half)
        both = ipw.HBox([left, right], layout={"flex_flow": "row wrap"})
        return panel("Token story", [bar, self._said, both])

    def _draw(self) -> None:
        step, replay = self.step, self.replay
        shown = step.index + 1
        self._text.value = story_html(
            self._tokenizer, replay.tokens[:shown], replay.settled_by[:shown], now=step.index
        )
        self._said.value = _note(self._sentence(step))
        self._words.value = self._words_html(step)
        self._cost.value = round_html(step.round, replay.emulated)

    def _sentence(self, step: Step) -> str:
        """What became of this token, in one line."""
        token = self._quoted(step.token)
        where = f"Token {step.index + 1} of {len(self.replay.steps)}, {token}"
        wrong = [word for word in step.words if word.fate == "rejected"]
        end = f"settled by {TIERS[step.settled_by].name}"
        if wrong:
            last = wrong[-1]
            said = self._quoted(last.token)
            return f"{where}: {TIERS[last.tier].name} guessed {said}, which was rejected; {end}."
        if step.settled_by < 2:
            return f"{where}: guessed by {TIERS[step.settled_by].name}, kept by every tier above."
        return f"{where}: {end}, which had no guess to test at this place."

    def _words_html(self, step: Step) -> str:
        rows = [
            (TIERS[word.tier].name, self._quoted(word.token), fate_text(word))
            for word in step.words
        ]
        heads = ("tier", "its token", "what became of it")
        return table_html("Said about this place, in time's order (counted)", heads, rows, text=3)

    def _quoted(self, token: int) -> str:
        if self._tokenizer is None:
            return f"id {token}"
        text = str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return f"“{text}”".replace("\n", "⏎")


def fate_text(word: Word) -> str:
    """What became of a word, in words."""
    if word.judge is None:
        return "its own choice"
    judge = TIERS[word.judge].name
    if word.fate == "dropped":
        return f"not tested: built on a token that {judge} rejected"
    return f"{word.fate} by {judge}"


def round_html(one: Round, emulated: bool | None) -> str:
    """The round's time and bytes as a table: a row per tier, then the link."""
    clock = "ms (measured)"
    if emulated is not False:
        clock = "ms (waits for the emulated link included)" if emulated else "ms (by the clock)"
    read: dict[int, int] = defaultdict(int)
    for done in one.passes:
        read[done.tier] += done.kv_bytes
    rows = [
        (
            TIERS[count.tier].name,
            f"{count.passes}",
            f"{count.accepted}/{count.proposed}" if count.proposed else "",
            f"{count.ms:.1f}",
            _size(read[count.tier]),
        )
        for count in one.tiers
    ]
    rows += [
        (f"link, {purpose}", "", "", "", _size(one.link_bytes(purpose)))
        for purpose in dict.fromkeys((*PURPOSES, *(t.purpose for t in one.transfers)))
        if one.link_bytes(purpose)
    ]
    heads = ("round's part", "passes", "kept", clock, "KV bytes (counted)")
    caption = f"Round {one.index + 1}: {len(one.tokens)} tokens in {one.ms:.0f} ms"
    return table_html(caption, heads, rows, text=1)


def _size(count: int) -> str:
    return " ".join(readable_bytes(count))


def _note(words: str) -> str:
    return f'<div role="status">{html.escape(words)}</div>'
