"""Hints in stages: a nudge, then the first step, then the solution where it is at hand.

The solution is the exercise's cell in the notebook of the same name in the folder ``solutions``
beside the lab, with the words before it. A course handed out without that folder has none to show.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mspeckv_widgets.course.exercise import Exercise

FOLDER = "solutions"
NUDGE, STEP, SOLUTION = "Hint", "The first step", "A solution"
_WITHHELD = "Your teacher has it."
_HEADING = re.compile(r"^#+ .*\n*", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


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
    try:
        text = (labs / FOLDER / f"{lab_id}.ipynb").read_text(encoding="utf-8")
        cells: list[dict[str, Any]] = json.loads(text)["cells"]
        words: list[str] = []
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                words.append(_HEADING.sub("", source).strip())
            elif cell["metadata"].get("exercise") == name:
                return Solution("\n\n".join(part for part in words if part), source)
            else:
                words.clear()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def hints_html(exercise: Exercise, solution: Solution | None) -> str:
    """The nudge, closed; what comes next lies inside, closed too."""
    stages = [(NUDGE, f"<p>{html.escape(exercise.hint)}</p>")]
    if exercise.step:
        stages.append((STEP, f"<p>{html.escape(exercise.step)}</p>"))
    stages.append((SOLUTION, _solution_html(solution)))
    return _nested(stages)


def _nested(stages: Sequence[tuple[str, str]]) -> str:
    (title, body), rest = stages[0], stages[1:]
    inner = _nested(rest) if rest else ""
    return (
        f'<details class="mskv-small mskv-hint"><summary>{html.escape(title)}</summary>'
        f'<div style="margin-left:14px">{body}{inner}</div></details>'
    )


def _solution_html(solution: Solution | None) -> str:
    if solution is None:
        return f"<p>{_WITHHELD}</p>"
    why = "".join(f"<p>{_inline(part)}</p>" for part in re.split(r"\n\s*\n", solution.why) if part)
    return f'{why}<pre class="mskv-code" tabindex="0">{html.escape(solution.code)}</pre>'


def _inline(markdown: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(markdown).replace("**", ""))
