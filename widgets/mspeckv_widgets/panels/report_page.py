"""A report as one HTML file that needs nothing else: styles and plotly stand inside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from plotly.offline import get_plotlyjs

from mspeckv_study.experiments.findings import Finding, findings
from mspeckv_study.experiments.matching import Match
from mspeckv_study.experiments.report import LABELS, METHOD, settings
from mspeckv_study.experiments.report_tables import TextTable as Grid
from mspeckv_study.experiments.report_tables import grids, speedup_summary
from mspeckv_widgets.charts.chart_lines import STYLES as VARIANTS
from mspeckv_widgets.charts.report_charts import CHARTS

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff;
  max-width: 1180px; margin: 0 auto; padding: 0 16px 48px; }
h1 { font-size: 26px; } h2 { font-size: 21px; margin-top: 40px; border-top: 1px solid #e5e7eb;
  padding-top: 20px; }
a { color: #0b5a8f; } nav a { margin-right: 16px; }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 14px; }
caption { text-align: left; color: #4b5563; padding: 4px 0; }
th, td { border-bottom: 1px solid #e5e7eb; padding: 3px 10px; text-align: left;
  vertical-align: bottom; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { border: 1px solid #1f2328; border-radius: 3px; padding: 0 5px; font-size: 13px; }
.contradicted { background: #fbe3d3; } .shown { background: #d5f0e6; }
pre { background: #f6f8fa; padding: 10px; overflow-x: auto; font-size: 13px; }
.small { color: #4b5563; font-size: 14px; }
.chart { min-height: 400px; }
figure { margin: 22px 0; } figcaption { font-weight: 600; }
"""


def page(matches: Sequence[Match]) -> str:
    """The whole report."""
    links = "".join(
        f'<a href="#{name}">{escape(name)}</a>' for name in (_anchor(match) for match in matches)
    )
    labels = "".join(f"<li><b>{name}</b>: {escape(text)}</li>" for name, text in LABELS.items())
    names = dict.fromkeys(name for match in matches for name in match.table.variants)
    variants = "".join(
        f"<li><b>{escape(name)}</b>: {escape(VARIANTS[name].words)}</li>"
        for name in names
        if name in VARIANTS
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # an icon of its own keeps a browser from asking for one
        '<link rel="icon" href="data:,">'
        f"<title>Ablations of MSpecKV</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        f"<h1>Ablations of MSpecKV</h1><nav aria-label='Experiments'>{links}</nav>"
        f"<p>What the words beside numbers mean:</p><ul>{labels}</ul>"
        f"<p>{escape(METHOD)}</p><p>What is compared:</p><ul>{variants}</ul>"
        f"<main>{''.join(section(match) for match in matches)}</main></body></html>\n"
    )


def section(match: Match) -> str:
    """One experiment: findings, charts, tables, and where the numbers come from."""
    known, table = match.experiment, match.table
    says = "".join(finding_html(one) for one in findings(match))
    summary = ""
    if known.id == "A1":
        blocks = (speedup_summary(match), speedup_summary(match, theirs=True))
        summary = "".join(f'<pre tabindex="0">{escape(block)}</pre>' for block in blocks)
    origins = [f"Made on {machine}." for machine in table.machines]
    origins += [f"Versions: {versions}." for versions in table.versions]
    origins += [f"Seeds {', '.join(map(str, table.seeds))}; {settings(match)}."]
    origins += [f"Published: {note}" for note in match.paper.notes]
    return (
        f'<section id="{_anchor(match)}"><h2>{known.id}, {escape(known.title.lower())} '
        f"({table.preset})</h2><p>{escape(known.question)}</p><ul>{says}</ul>"
        f"{charts_html(match)}{summary}{''.join(map(grid_html, grids(match)))}"
        f"<ul class='small'>{''.join(f'<li>{escape(line)}</li>' for line in origins)}</ul>"
        "</section>"
    )


def charts_html(match: Match) -> str:
    """Every chart, to be drawn by the page's own plotly."""
    scaled = any(match.value(value) not in {None, value} for value in match.table.values)
    note = "; in brackets, the published value that ours stands for" if scaled else ""
    parts = []
    for name, draw in CHARTS.items():
        chart = draw(match)
        drawn = chart.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"responsive": True, "displaylogo": False},
            div_id=f"{_anchor(match)}-{name.replace(' ', '-')}",
        )
        said = escape(chart.title + note)
        label = f"{match.experiment.id}: {said}; the numbers stand in the tables below"
        parts.append(
            f'<figure><figcaption>{said}</figcaption><div class="chart" role="img" '
            f'aria-label="{label}">{drawn}</div></figure>'
        )
    return "".join(parts)


def grid_html(grid: Grid) -> str:
    """A table; wide ones scroll by themselves."""
    kinds = ["" if place < grid.words else ' class="num"' for place in range(len(grid.heads))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(kinds, grid.heads, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in grid.rows
    )
    caption = escape(grid.caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def finding_html(finding: Finding) -> str:
    """A finding as a list item; its verdict in words, not by colour alone."""
    verdict = finding.verdict
    kind = (verdict or "").replace("not shown", "open")
    mark = f' <span class="verdict {kind}">{verdict}</span>' if verdict else ""
    return f"<li><b>{escape(finding.topic)}</b>{mark}: {escape(finding.text)}</li>"


def _anchor(match: Match) -> str:
    return f"{match.table.experiment}-{match.table.preset}"
