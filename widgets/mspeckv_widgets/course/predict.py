"""A question with a control for the guess, and the guess beside the result.

`GuessKeys` lies unseen in the box. With it the keyboard is enough: a box that was just shown has
the focus, Enter records and goes on, Shift+Enter records and runs the next cell.
"""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

from mspeckv.settings import refuse
from mspeckv_widgets.course.progress import Answer, PredictionRecord
from mspeckv_widgets.page_widget import PageWidget, module
from mspeckv_widgets.panel import HasPanel, panel

KEYS = "Enter records; Shift+Enter records and runs on."


class GuessKeys(PageWidget):
    """The keys of a prediction's box.

    The page sends ``{"kind": "typed" | "guess", "value": text or place of the choice}``, the
    second to be recorded; ``{"kind": "recorded", "taken": bool}`` is the answer to it.
    `unanswered` says that there is no guess yet; `explained` counts how often the page was to open
    the *Explain* that follows the box.
    """

    _esm = module(Path(__file__).with_name("predict_keys.js"))
    unanswered = traitlets.Bool(True).tag(sync=True)
    explained = traitlets.Int(0).tag(sync=True)


class PredictBox(HasPanel):
    """The widget of one prediction: question, labelled control, a button that records.

    Args:
        name: the prediction's id, such as ``p1``.
        question: what is asked.
        unit: of a number; empty where it has none.
        choices: the answers to choose from; empty where a number is asked for.
        record: called with a guess that was made with the control.
    """

    def __init__(
        self,
        name: str,
        question: str,
        unit: str,
        choices: Sequence[str],
        record: Callable[[Answer], None],
    ) -> None:
        self.name, self.question, self.unit = name, question, unit
        self.choices = tuple(choices)
        self._record = record
        # The page's word may come on a subshell's thread while a cell reveals the result.
        self._one_at_a_time = threading.Lock()
        words = f"Your guess for {name}"
        if self.choices:
            self.control: Any = ipw.RadioButtons(
                options=self.choices, value=None, description=words, layout={"width": "auto"}
            )
        else:
            # a text field, so that it can be empty before there is a guess
            self.control = ipw.Text(
                placeholder="a number", description=words + (f" ({unit})" if unit else "")
            )
        self.control.style.description_width = "initial"
        self.button = ipw.Button(description="Record guess", tooltip=f"Record the guess for {name}")
        self.button.add_class("mskv-record")
        self.button.on_click(lambda _: self.press())
        self.status = ipw.HTML()
        self.status.add_class("mskv-guess-status")
        self.keys = GuessKeys()
        self.keys.on_msg(lambda _, told, __: self.hear(told))
        self._put: Any = None if self.choices else ""
        asked = html.escape(question)
        self.panel = panel(
            f"Prediction {name}",
            [
                ipw.HTML(f'<div class="mskv-title">Predict {name}: {asked}</div>'),
                self.control,
                ipw.HBox([self.button, self.status], layout={"align_items": "center"}),
                self.keys,
            ],
        )
        self.panel.add_class("mskv-guess")

    def press(self) -> None:
        """What the button does: record what the control holds, or say why that cannot be."""
        with self._one_at_a_time:
            self._press()

    def _press(self) -> None:
        try:
            self._record(self.parse(self.control.value))
        except ValueError as error:
            self.say(str(error), "mskv-error")
            self.keys.send({"kind": "recorded", "taken": False})
        else:
            self.keys.send({"kind": "recorded", "taken": True})

    def hear(self, told: Any) -> None:
        """Take what the page says that the control holds, and record it where it says so."""
        kind, value = told.get("kind"), told.get("value")
        if kind not in {"typed", "guess"} or self.control.disabled:
            return
        with self._one_at_a_time:
            if value is not None:
                self.control.value = self.choices[value] if self.choices else str(value)
            if kind == "guess":
                self._press()

    def unrecorded(self) -> Answer | None:
        """What the control holds beyond what is recorded, if it is an answer.

        A guess that is just being recorded is waited for.
        """
        with self._one_at_a_time:
            if self.control.value == self._put:
                return None
            try:
                return self.parse(self.control.value)
            except ValueError:
                return None

    def parse(self, guess: Any) -> Answer:
        """A guess or a result as it is recorded.

        Raises:
            ValueError: neither a finite number nor, where there are some, one of the choices.
        """
        if self.choices:
            if guess not in self.choices:
                raise refuse(self.name, guess, f"choose one of: {', '.join(self.choices)}")
            return str(guess)
        return parse_number(self.name, guess)

    def show(self, record: PredictionRecord) -> None:
        """Put a recorded guess into the control, and say what is recorded."""
        if record.guess is None:
            self._put = None if self.choices else ""
        else:
            self._put = record.guess if self.choices else f"{record.guess:g}"
        self.control.value = self._put
        self.keys.unanswered = record.guess is None
        known = record.result is not None and record.guess is not None
        self.control.disabled = self.button.disabled = known
        self.say(status_of(record))

    def revealed(self, explain: bool) -> None:
        """The result is shown: open the *Explain* that follows this box, if that is wanted."""
        self.keys.explained += explain

    def say(self, words: str, kind: str = "mskv-small") -> None:
        """Show one line under the control."""
        self.status.value = f'<div class="{kind}">{html.escape(words)}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": f"Predict {self.name}: {self.question}"}


def parse_number(name: str, value: Any) -> float:
    """A finite number, from a number or from text with a decimal point or comma.

    Raises:
        ValueError: it is none.
    """
    given = value.strip().replace(",", ".") if isinstance(value, str) else value
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise refuse(name, value, "use a number, such as 12 or 0.5")
    return number


def status_of(record: PredictionRecord) -> str:
    """What is recorded, in one line."""
    if record.guess is None:
        if record.result is None:
            return f"Guess before you run the next cell. {KEYS}"
        return "The result was shown before there was a guess; a guess now is marked as late."
    guess = words_of(record.guess, record.unit)
    if record.result is None:
        return f"Recorded: {guess}. You may change it until the result is shown."
    late = " (after the result)" if record.late else ""
    return f"Recorded: {guess}{late}. The result: {words_of(record.result, record.unit)}."


def words_of(answer: Answer | None, unit: str) -> str:
    """An answer with its unit."""
    if answer is None:
        return "none"
    if isinstance(answer, str):
        return answer
    number = f"{answer:,.0f}" if abs(answer) >= 1000 else f"{answer:.4g}"
    return f"{number} {unit}".strip()


def compare(record: PredictionRecord) -> str:
    """How the guess did, in words."""
    guess, result = record.guess, record.result
    if guess is None or result is None:
        return "no guess was recorded"
    if isinstance(guess, str) or isinstance(result, str):
        return "as guessed" if guess == result else "not as guessed"
    if guess == result:
        return "exactly as guessed"
    if guess * result <= 0:
        return f"off by {abs(guess - result):.3g} {record.unit}".strip()
    factor = max(guess / result, result / guess)
    side = "too high" if abs(guess) > abs(result) else "too low"
    if factor < 1.1:
        return f"within {100 * (factor - 1):.0f} %"
    return f"{side} by a factor of {f'{factor:,.0f}' if factor >= 100 else f'{factor:.3g}'}"
