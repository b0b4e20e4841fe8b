"""Tables and files of a report, from rows whose figures are known."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from mspeckv_study.cli import NO_PAGE, main
from mspeckv_study.experiments import Row
from mspeckv_study.experiments.matching import Match, match_rows
from mspeckv_study.experiments.report import write_report
from mspeckv_study.experiments.report_tables import grids, speedup_summary
from tests.experiment_rows import a1, a2, b1, row, write


def match_of(rows: list[Row]) -> Match:
    (match,) = match_rows(rows)
    return match


def test_summary_has_the_published_layout() -> None:
    ours = speedup_summary(match_of(a1())).splitlines()
    heads = (
        " prefill | vanilla_vs_base | no_kv_quant_vs_base | kv_quant_vs_base | quant_vs_no_quant"
    )
    assert ours[4] == heads
    assert ours[5] == "-" * len(heads)
    assert ours[6] == (
        "     512 |           1.12x |               2.50x |            5.00x |             2.00x"
    )
    theirs = speedup_summary(match_of(a1()), theirs=True).splitlines()
    assert theirs[-1] == (
        "   32768 |           1.21x |               3.92x |           14.45x |             3.69x"
    )


def test_tables_stand_beside_the_published_ones() -> None:
    ours, theirs, speeds, ups, bytes_ = grids(match_of(a2()))
    assert ours.rows[0] == (
        "0", "10.00 [10.00, 10.00]", "20.00 [19.30, 20.70]", "2.00x [1.93, 2.07]",
    )  # fmt: skip
    assert theirs.rows[2] == ("16", "8.50 ± 1.31", "24.12 ± 1.94", "2.89 ± 0.56")
    (last,) = (line for line in speeds.rows if line[:2] == ("mspeckv", "15"))
    cells = dict(zip(speeds.heads, last, strict=True))
    assert (cells["published at"], cells["tokens/s, published"]) == ("16", "24.12 ± 1.94")
    assert cells["trials"] == "10 ok"
    (last,) = (line for line in ups.rows if line[:2] == ("mspeckv", "15"))
    over = dict(zip(ups.heads, last, strict=True))
    assert over["over triforce, emulated"] == "2.10x [2.10, 2.10]"
    assert over["over triforce, published"] == "2.89 ± 0.56x"
    assert over["over plain-int8, emulated"] == "2.20x [2.20, 2.20]"
    assert over["over all-float, emulated"] == "-"
    assert dict(zip(bytes_.heads, bytes_.rows[0], strict=True))["tier 2, MB/token"] == "3.000"
    for grid in (ours, theirs, speeds, ups, bytes_):
        assert all(len(line) == len(grid.heads) for line in grid.rows)


def test_command_writes_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "rows", [*a1(), *b1(), row("B1", 4, "all-float", 1, error="E: <b>")])
    assert main(["report", str(source), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "cliff, LRU [shown]" in said
    files = {name: tmp_path / "out" / f"report.{name}" for name in ("html", "md", "csv", "json")}
    assert all(str(path) in said for path in files.values())
    text = files["md"].read_text(encoding="utf-8")
    assert "## A1, context length (classroom)" in text
    modelled = match_of(a1()).modelled_speed(2048, "mspeckv")
    assert modelled is not None
    cells = ("mspeckv", "2048", "32768", "28.00 [27.02, 28.98]", "18.50 ± 1.54", modelled.text())
    assert f"| {' | '.join(cells)} | 35.7 [34.5, 37.0] |" in text
    assert "1 FAILED" in text
    page = files["html"].read_text(encoding="utf-8")
    assert "E: &lt;b&gt;" in page
    assert "<script src" not in page
    assert page.count('class="chart"') == 10


def test_csv_and_json_hold_the_numbers(tmp_path: Path) -> None:
    write_report(write(tmp_path / "rows", a1()), tmp_path)
    with (tmp_path / "report.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 32
    (one,) = (x for x in lines if (x["value"], x["variant"]) == ("1024", "mspeckv"))
    assert float(one["tokens_per_second"]) == pytest.approx(36.0)
    assert float(one["tokens_per_second_low"]) == pytest.approx(36 * 0.965)
    assert float(one["speedup_over_autoregressive"]) == pytest.approx(9.0)
    assert one["verdict_over_autoregressive"] == "shown"
    assert one["verdict_over_all-float"] == "contradicted"
    assert float(one["published_speedup_over_autoregressive"]) == 8.01
    assert (one["published_value"], one["clock"], one["finished"]) == ("16384", "emulated", "10")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (only,) = found["experiments"]
    assert only["published_values"] == [8192, 16384, 24576, 32768]
    assert {one["topic"] for one in only["findings"]} >= {"order", "context", "noise"}
    assert only["machines"] == ["machine a test, cores 2, threads 2, memory_gb 8"]


@pytest.mark.parametrize("content", [None, "", "not json\nnor this\n"])
def test_bad_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "A1-classroom.jsonl").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "report.md").exists()


def test_without_plotly_everything_else_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("panels.report_page", "charts.report_charts"):
        monkeypatch.delitem(sys.modules, f"mspeckv_widgets.{name}", raising=False)
    # None makes an import fail as if the package were not there
    for name in [name for name in sys.modules if name.split(".")[0] == "plotly"] + ["plotly"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["report", str(write(tmp_path, b1()))]) == 1
    assert NO_PAGE in capsys.readouterr().err
    assert sorted(path.suffix for path in tmp_path.glob("report.*")) == [".csv", ".json", ".md"]


@pytest.mark.parametrize("experiment", ["A1", "A2", "B1", "B2"])
def test_one_row_alone_is_a_page(experiment: str, tmp_path: Path) -> None:
    kept = (
        Path(__file__).resolve().parents[1] / "labs" / "results" / f"{experiment}-classroom.jsonl"
    )
    lines = kept.read_text(encoding="utf-8").splitlines()
    by_variant = {json.loads(line)["variant"]: line for line in lines}
    for variant, line in by_variant.items():
        (tmp_path / kept.name).write_text(line + "\n{torn", encoding="utf-8")
        assert main(["report", str(tmp_path)]) == 0, variant
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Speed" in page
