"""Hints in stages: a nudge, then the first step, then the solution where it is at hand.

The solution is the exercise's cell in the notebook of the same name in the folder ``solutions``
beside the lab, with the cell of words before it. A course handed out without that folder has none
to show.

A button opens one stage after the other, and tells whoever counts how many are open.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as ipw

from mspeckv_widgets.course.exercise import Exercise
from mspeckv_widgets.panel import HasPanel, panel

FOLDER = "solutions"
NUDGE, STEP, SOLUTION = "Hint", "The first step", "A solution"
FOLD = "Fold the hints"
_WITHHELD = "Your teacher has the solution."
_HEADING = re.compile(r"^#+ .*\n*", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_STRESSED = re.compile(r"\*(\S(?:[^*]*\S)?)\*")


@dataclass(frozen=True)
class Solution:
    """A solved exercise.

    Attributes:
        why: the words before the cell, as Markdown without headings.
        code: the cell.
    """

    why: str
    code: str


def find_solution(lab_id: str, name: str, labs: Path) -> Solution | None:
    """An exercise's solution.

    Args:
        labs: the folder of the lab's notebook.

    Returns:
        None where there is no such notebook, or no such cell in it.
    """
    why = ""
    try:
        text = (labs / FOLDER / f"{lab_id}.ipynb").read_text(encoding="utf-8")
        cells: list[dict[str, Any]] = json.loads(text)["cells"]
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                why = _HEADING.sub("", source).strip()
            elif cell["metadata"].get("exercise") == name:
                return Solution(why, source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


class HintBox(HasPanel):
    """A button under a verdict; each press opens the next stage, one after the last folds them all.

    Args:
        name: the exercise's id.
        exercise: whose hints these are.
        solution: None where it is withheld: then that is said with the last stage.
        opened: told how many stages are open, whenever one more is.
    """

    def __init__(
        self,
        name: str,
        exercise: Exercise,
        solution: Solution | None,
        opened: Callable[[int], None],
    ) -> None:
        self._plain = f"{NUDGE}: {exercise.hint}"
        self._opened, self.open_stages = opened, 0
        self.stages = stages_of(exercise, solution)
        self._closing = "" if solution is not None else _stage("", f"<p>{_WITHHELD}</p>")
        self.button = ipw.Button(
            tooltip=f"Hints for {name}, one after the other; how many are opened is kept",
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self.button.on_click(lambda _: self.press())
        self._shown = ipw.HTML()
        self._draw()
        self.panel = panel(f"Hints for {name}", [self._shown, self.button])

    def press(self) -> None:
        """Open the next stage; fold all where there is none."""
        if self.open_stages == len(self.stages):
            self.open_stages = 0
        else:
            self.open_stages += 1
            self._opened(self.open_stages)
        self._draw()

    def _draw(self) -> None:
        shown = [_stage(*one) for one in self.stages[: self.open_stages]]
        last = self.open_stages == len(self.stages)
        self._shown.value = "".join([*shown, self._closing if last else ""])
        self.button.description = FOLD if last else self.stages[self.open_stages][0]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        # where no widget is shown, nothing can be counted, and the nudge alone is told
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": self._plain}


def stages_of(exercise: Exercise, solution: Solution | None) -> list[tuple[str, str]]:
    """What there is to open: titles, and HTML."""
    stages = [(NUDGE, f"<p>{html.escape(exercise.hint)}</p>")]
    if exercise.step:
        stages.append((STEP, f"<p>{html.escape(exercise.step)}</p>"))
    if solution is not None:
        stages.append((SOLUTION, _solution_html(solution)))
    return stages


def _stage(title: str, body: str) -> str:
    head = f"<b>{html.escape(title)}</b>" if title else ""
    return f'<div class="mskv-small mskv-hint" role="status">{head}{body}</div>'


def _solution_html(solution: Solution) -> str:
    why = "".join(f"<p>{_inline(part)}</p>" for part in re.split(r"\n\s*\n", solution.why) if part)
    return f'{why}<pre class="mskv-code" tabindex="0">{html.escape(solution.code)}</pre>'


def _inline(markdown: str) -> str:
    """Code and stress as HTML; every other part of the split is code."""
    parts = _CODE.split(html.escape(markdown).replace("**", ""))
    parts[::2] = [_STRESSED.sub(r"<em>\1</em>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)
