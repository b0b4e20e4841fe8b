"""`AcceptanceExplorer`: accept or reject guesses one by one, and see what comes out."""

from __future__ import annotations

import html
import threading
from collections.abc import Sequence
from typing import Any, Self

import ipywidgets as ipw
import torch

from mspeckv import Pair, Sampling, next_distributions
from mspeckv.settings import check_kind, refuse
from mspeckv_study.probes.next_token import encode_text
from mspeckv_widgets.explorers.acceptance_charts import (
    MOST_ROWS,
    Look,
    Rows,
    build_figure,
    draw_rows,
    rows_html,
    rows_of,
)
from mspeckv_widgets.explorers.attempt import Attempt, ToldSampler
from mspeckv_widgets.explorers.explorer import LAYOUT, STYLE, slider
from mspeckv_widgets.panel import HasPanel, panel

MANY = 1000
_BEFORE = 16
"""Tokens of the text that are shown before a place."""


class AcceptanceExplorer(HasPanel):
    """Two distributions as bars, and a button for each step of accepting or rejecting a guess.

    From code, `step`, `many` and `reset` do what the buttons do; ``explorer.likeness.value`` mixes
    the target into the draft.

    Args:
        p: the target's probabilities, one a token.
        q: the draft's.
        names: a word a token; default: A, B, C, ...
        seed: of the draws.

    Raises:
        ValueError: p and q are no distributions over the same tokens.
    """

    def __init__(
        self, p: Sequence[float], q: Sequence[float], names: Sequence[str] = (), seed: int = 1
    ) -> None:
        pair = (_distribution("p", p), _distribution("q", q))
        check_kind("names", names, Sequence, "a word for each token")
        words = tuple(names) or tuple(chr(ord("A") + place) for place in range(len(p)))
        if not len(words) == len(pair[0]) == len(pair[1]):
            raise refuse("q", f"{len(q)} tokens", f"use as many as p and names: {len(p)}")
        shown = tuple(words[token] for token in _order(*pair).tolist())
        self._start([pair], [shown], [""], seed)

    @classmethod
    def of_model(
        cls,
        pair: Pair,
        prompt: str | list[int],
        sampling: Sampling | None = None,
        last: int = 16,
        seed: int = 1,
    ) -> Self:
        """Real distributions of a text's last tokens, a slider going through them.

        Raises:
            ValueError: see `mspeckv.next_distributions`.
        """
        tokens = encode_text(pair, prompt)
        found = next_distributions(pair, tokens, sampling, last)
        made = cls.__new__(cls)
        words = []
        for one in found:
            order = _order(one.target, one.draft)
            words.append(tuple(_word(pair, int(token)) for token in order))
        notes = [
            f"After ... {_text(pair, tokens[max(0, one.place - _BEFORE) : one.place])} the text "
            f"goes on with {_word(pair, one.token)}."
            for one in found
        ]
        made._start(
            [(one.target.double(), one.draft.double()) for one in found], words, notes, seed
        )
        return made

    def _start(
        self,
        pairs: list[tuple[torch.Tensor, torch.Tensor]],
        words: list[tuple[str, ...]],
        notes: list[str],
        seed: int,
    ) -> None:
        self._pairs, self._words, self._notes = pairs, words, notes
        self._seed, self._lock = seed, threading.RLock()
        self.attempt: Attempt
        self.place = slider("Place", len(pairs) - 1)
        self.likeness = ipw.FloatSlider(
            value=0.0, min=0.0, max=1.0, step=0.05, description="Draft like target",
            continuous_update=False, style=STYLE, layout=LAYOUT,
        )  # fmt: skip
        self.figure = build_figure()
        self._said, self._table = ipw.HTML(), ipw.HTML()
        buttons = [
            _button("Step", "Propose, then test, then settle", self.step),
            _button(f"{MANY} guesses", "Settle many guesses at once", self.many),
            _button("Reset", "Forget what was emitted", self.reset),
        ]
        for control in (self.place, self.likeness):
            control.observe(lambda _: self.reset(), names="value")
        controls = [self.place] if len(pairs) > 1 else []
        children = [
            *controls,
            self.likeness,
            ipw.HBox(buttons),
            self._said,
            self.figure,
            self._table,
        ]
        self.panel = panel("Acceptance explorer", children)
        self.reset()

    @property
    def _here(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Target and draft at the chosen place."""
        return self._pairs[int(self.place.value)]

    @property
    def p(self) -> torch.Tensor:
        """The target's probabilities ``[V]`` at this place."""
        return self._here[0]

    @property
    def q(self) -> torch.Tensor:
        """The draft's, with as much of the target mixed in as the slider says."""
        target, draft = self._here
        share = float(self.likeness.value)
        return (1 - share) * draft + share * target

    @property
    def rows(self) -> Rows:
        """What is drawn."""
        return rows_of(
            self._words[self.place.value], self.p, self.q, self.counts,
            _order(*self._here),
        )  # fmt: skip

    def step(self) -> None:
        """One step of the current guess; the step after the last begins a new one."""
        with self._lock:
            if self.attempt.emitted is not None:
                self.attempt = self._new_attempt()
            self.attempt.step()
            if self.attempt.emitted is not None:
                self._count(self.attempt)
            self._draw(self._words_of(self.attempt), self._look_of(self.attempt))

    def many(self, count: int = MANY) -> None:
        """Settle so many guesses, the current one first."""
        with self._lock:
            for _ in range(count):
                if self.attempt.emitted is not None:
                    self.attempt = self._new_attempt()
                self.attempt.finish()
                self._count(self.attempt)
            self._draw(f"The last of them: {self._words_of(self.attempt)}")

    def reset(self) -> None:
        """Forget what was emitted and begin again with the same seed."""
        with self._lock:
            self._sampler = ToldSampler(Sampling(temperature=1.0, top_p=1.0, seed=self._seed))
            self.counts = torch.zeros_like(self.p)
            self.guesses = self.accepted = 0
            self.attempt = self._new_attempt()
            self._draw("Step draws a guess from q.")

    def _new_attempt(self) -> Attempt:
        return Attempt(self.p, self.q, self._sampler)

    def _count(self, attempt: Attempt) -> None:
        self.counts[attempt.emitted] += 1
        self.guesses += 1
        self.accepted += bool(attempt.accepted)

    def _name(self, token: int) -> str:
        order = _order(*self._here).tolist()
        words = self._words[self.place.value]
        return words[order.index(token)] if token in order else f"token {token}"

    def _words_of(self, attempt: Attempt) -> str:
        """Where a guess has got to, in words and numbers."""
        if attempt.guess is None:
            return "Step draws a guess from q."
        name = self._name(attempt.guess)
        p, q = float(attempt.p[attempt.guess]), float(attempt.q[attempt.guess])
        words = f"Propose {name}, drawn from q (q = {q:.4f}, p = {p:.4f})."
        chance = f"min(1, p / q) = {attempt.chance:.4f}"
        if attempt.accepted is None:
            return f"{words} Next: accept it with chance {chance}."
        if attempt.emitted is None:
            done = "accepted" if attempt.accepted else "rejected: next, draw from the residual"
            side = "below" if attempt.accepted else "not below"
            return f"{words} u = {attempt.even:.4f} is {side} {chance}, so it is {done}."
        if attempt.accepted:
            return f"{words} Accepted, so {name} is emitted."
        return f"{words} Rejected, and {self._name(attempt.emitted)} is drawn from the residual."

    def _look_of(self, attempt: Attempt) -> Look:
        """The bars that the latest step looked at, and where its test stands."""
        if attempt.guess is None:
            return Look()
        here = self._row(attempt.guess)
        lit = {"q": here} if attempt.accepted is None else {"p": here, "q": here}
        if attempt.emitted is not None:
            lit = {"both": here} if attempt.accepted else {"left": self._row(attempt.emitted)}
        return Look(attempt.chance, attempt.even, lit)

    def _row(self, token: int) -> int:
        """Where a token is drawn: in its own row, or among the others."""
        order = _order(*self._here).tolist()
        return order.index(token) if token in order else len(order)

    def _draw(self, words: str, look: Look | None = None) -> None:
        rows = self.rows
        draw_rows(self.figure, rows, look or Look())
        self._table.value = rows_html(rows)
        chance = float(torch.minimum(self.p, self.q).sum())
        lines = [self._notes[self.place.value], words]
        told = f"Chance of acceptance: sum of min(p, q) = {chance:.4f}."
        if self.guesses:
            told += (
                f" So far {self.accepted} of {self.guesses} guesses were accepted (counted), and "
                f"the emitted share is {self.distance():.3f} from p in total variation."
            )
        lines.append(told)
        body = "<br>".join(html.escape(line) for line in lines if line)
        self._said.value = f'<div role="status" style="line-height:1.5">{body}</div>'

    def distance(self) -> float:
        """Total variation between what was emitted so far and p; 1 before the first guess."""
        if not self.guesses:
            return 1.0
        return float((self.counts / self.guesses - self.p).abs().sum() / 2)


def _distribution(field: str, values: Sequence[float]) -> torch.Tensor:
    try:
        made = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError):
        raise refuse(field, values, "use a list of probabilities") from None
    if len(made) < 2 or bool((made < 0).any()) or abs(float(made.sum()) - 1) > 1e-6:
        raise refuse(field, list(values), "use two or more probabilities that add up to 1")
    return made


def _order(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Ids to show: all of a small vocabulary as they are, else the likeliest to either."""
    if len(p) <= MOST_ROWS:
        return torch.arange(len(p))
    return torch.maximum(p, q).topk(MOST_ROWS).indices


def _word(pair: Pair, token: int) -> str:
    """A token as text, with what cannot be seen made visible."""
    if pair.tokenizer is None:
        return f"token {token}"
    return repr(str(pair.tokenizer.decode([token])))


def _text(pair: Pair, tokens: Sequence[int]) -> str:
    """Some tokens as text on one line."""
    if pair.tokenizer is None:
        return " ".join(map(str, tokens))
    return repr(str(pair.tokenizer.decode(list(tokens))))


def _button(words: str, tip: str, press: Any) -> Any:
    made = ipw.Button(description=words, tooltip=tip, layout={"width": "130px"})
    made.on_click(lambda _: press())
    return made
