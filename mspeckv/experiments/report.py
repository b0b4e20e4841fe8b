"""``mspeckv report``: rows in, Markdown, CSV, JSON and a page out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mspeckv.config import refuse
from mspeckv.experiments.findings import findings
from mspeckv.experiments.matching import Match, match_rows
from mspeckv.experiments.report_data import as_csv, as_json
from mspeckv.experiments.report_markdown import page as markdown_page
from mspeckv.experiments.store import load_rows

Page = Callable[[Sequence[Match]], str]
"""What draws the report's page."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        files: where, in the order of writing.
    """

    matches: tuple[Match, ...]
    files: tuple[Path, ...]

    def describe(self) -> str:
        """Every finding and file, as lines of text."""
        lines = []
        for match in self.matches:
            lines.append(f"{match.experiment.id} ({match.table.preset}): {match.experiment.title}")
            for one in findings(match):
                verdict = f" [{one.verdict}]" if one.verdict else ""
                lines.append(f"  {one.topic}{verdict}: {one.text}")
        return "\n".join([*lines, *(f"wrote {path}" for path in self.files)])


def write_report(
    source: str | Path | Iterable[str | Path],
    out: str | Path,
    page: Page | None = None,
) -> Report:
    """Write ``report.md``, ``.csv``, ``.json`` and, with ``page``, ``.html``.

    Args:
        source: a folder of stores, or files; see `mspeckv.experiments.load_rows`.
        out: a folder, made if it is not there.
        page: draws the page; the lab's is ``mspeckv_widgets.report_page.page``.

    Raises:
        ValueError: no rows there, or rows that do not belong to an experiment.
    """
    rows = load_rows(source)
    if not rows:
        raise refuse("results", str(source), "there are no rows yet: see `mspeckv run`")
    matches = match_rows(rows)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("out", str(out), "use a folder that can be made") from error
    texts = {
        "report.md": markdown_page(matches),
        "report.csv": as_csv(matches),
        "report.json": json.dumps(as_json(matches), indent=1) + "\n",
    }
    if page is not None:
        texts["report.html"] = page(matches)
    files = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        files.append(path)
    return Report(matches, tuple(files))
