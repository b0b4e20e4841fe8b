"""How a verdict, a score and a leaderboard look."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict
from mspeckv_widgets.course.leaderboard import Entry
from mspeckv_widgets.course.shown import Shown


def verdict_shown(
    name: str,
    exercise: Exercise,
    verdict: Verdict,
    ranking: str = "",
) -> Shown:
    """A verdict; where it has not passed, with what was tried.

    Args:
        ranking: how the score stands beside the student's best.
    """
    message = verdict.message[:1].upper() + verdict.message[1:]
    head = f"{name}: {'solved' if verdict.passed else 'not yet'}"
    kind = "mskv-passed" if verdict.passed else "mskv-error"
    body = f"<b>{html.escape(head)}</b>, {html.escape(exercise.title)}. {html.escape(message)}"
    lines = [f"{head}, {exercise.title}. {message}"]
    if verdict.passed and verdict.score is not None:
        scored = f"Score: {score_words(verdict.score)}. {ranking}".strip()
        body += f"<br>{html.escape(scored)}"
        lines.append(scored)
    rows = verdict.attempt.rows() if verdict.attempt is not None and not verdict.passed else []
    body += _rows_html(rows)
    lines += [f"{word}: {value}" for word, value in rows]
    body = f'<div class="{kind}" role="status">{body}</div>'
    return Shown(body, "\n".join(lines))


def score_words(score: Score | Entry) -> str:
    """A score with its unit and its kind."""
    return f"{_number(score.value)} {score.unit} ({score.kind})"


def ranking_words(entry: Entry, before: Entry | None) -> str:
    """How a score stands beside the student's best so far."""
    if before is None:
        return "It is your first."
    if entry.beats(before):
        return f"It beats your best so far, {_number(before.value)}."
    if entry.value == before.value:
        return "It equals your best."
    return f"Your best stays {_number(before.value)}."


def leaderboard_shown(caption: str, entries: Sequence[Entry], titles: dict[str, str]) -> Shown:
    """A table of entries, ranked within each exercise.

    Args:
        titles: the exercises' titles by their ids.
    """
    rows, place = [], 0
    for before, one in zip((None, *entries), entries, strict=False):
        place = place + 1 if before is not None and before.exercise == one.exercise else 1
        title = f"{one.exercise}: {titles.get(one.exercise, '')}"
        wanted = "lower is better" if one.less_is_better else "higher is better"
        rows.append(
            (title, str(place), one.student, f"{score_words(one)}; {wanted}", one.date[:10])
        )
    heads = ("exercise", "place", "student", "score", "date")
    text = "\n".join([caption, *("  ".join(row) for row in rows)])
    return Shown(table_html(caption, heads, rows, text=5), text)


def _rows_html(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    inside = "".join(
        f"<dt>{html.escape(word)}</dt><dd><code>{html.escape(value)}</code></dd>"
        for word, value in rows
    )
    return f'<dl class="mskv-attempt">{inside}</dl>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
