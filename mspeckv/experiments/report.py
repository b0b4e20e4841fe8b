"""``mspeckv report``: rows in, a page, Markdown, CSV and JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mspeckv.config import refuse
from mspeckv.experiments.findings import findings
from mspeckv.experiments.matching import Match, match_rows
from mspeckv.experiments.report_data import as_csv, as_json
from mspeckv.experiments.report_html import page as html_page
from mspeckv.experiments.report_markdown import page as markdown_page
from mspeckv.experiments.store import load_rows

NO_PLOTLY = "the HTML page needs plotly: pip install 'mspeckv[lab]'"


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        files: where, in the order of writing.
        missing: why there is no page; empty where there is one.
    """

    matches: tuple[Match, ...]
    files: tuple[Path, ...]
    missing: str = ""

    def describe(self) -> str:
        """Every finding and file, as lines of text."""
        lines = []
        for match in self.matches:
            lines.append(f"{match.experiment.id} ({match.table.preset}): {match.experiment.title}")
            for one in findings(match):
                verdict = f" [{one.verdict}]" if one.verdict else ""
                lines.append(f"  {one.topic}{verdict}: {one.text}")
        return "\n".join([*lines, *(f"wrote {path}" for path in self.files)])


def write_report(source: str | Path | Iterable[str | Path], out: str | Path) -> Report:
    """Write ``report.md``, ``.csv``, ``.json`` and, where plotly is installed, ``.html``.

    Args:
        source: a folder of stores, or files; see `mspeckv.experiments.load_rows`.
        out: a folder, made if it is not there.

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
    missing = ""
    try:
        texts["report.html"] = html_page(matches)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "plotly":
            raise
        missing = NO_PLOTLY
    files = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        files.append(path)
    return Report(matches, tuple(files), missing)
