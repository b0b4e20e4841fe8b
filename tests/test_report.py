"""Findings, tables and files of a report, from rows whose figures are known."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mspeckv.cli import NO_PAGE, main
from mspeckv.experiments import Row
from mspeckv.experiments.findings import Finding, findings
from mspeckv.experiments.matching import Match, match_rows
from mspeckv.experiments.report import write_report
from mspeckv.experiments.report_tables import grids, speedup_summary
from mspeckv.experiments.statistics import cliff
from tests.experiment_rows import a1, a2, b1, row, write


def match_of(rows: list[Row]) -> Match:
    (match,) = match_rows(rows)
    return match


def about(rows: list[Row], topic: str) -> Finding:
    """The one finding on a topic."""
    (found,) = (one for one in findings(match_of(rows)) if one.topic == topic)
    return found


def test_targets_are_met_or_missed_value_by_value() -> None:
    # 40/8 = 5, 36/4 = 9, 35/2.5 = 14, 28/2 = 14 against 4.75, 8.01, 12.94, 14.45
    found = about(a1(), "speed-up over autoregressive")
    assert found.holds is False
    assert "512: 5.00x [5.00, 5.00], published 4.75x;" in found.text
    assert "2048: 14.00x [14.00, 14.00], published 14.45x (less)" in found.text
    # 2, 2.4, 3.5, 3.5 against 1.46, 2.13, 2.87, 3.69; without the last one all are met
    assert about(a1(), "speed-up over triforce").holds is False
    shorter = [one for one in a1() if one.value < 2048]
    assert about(shorter, "speed-up over triforce").holds is True
    assert about(shorter, "speed-up over triforce").verdict == "met"


def test_order_holds_or_the_values_where_it_does_not_are_named() -> None:
    assert about(a1(), "order").holds is True
    assert "4 of 4" in about(a1(), "order").text
    swapped = [one for one in a1() if (one.value, one.variant) != (512, "vanilla")]
    swapped.append(row("A1", 512, "vanilla", 1, 7.0))
    found = about(swapped, "order")
    assert found.holds is False
    assert "3 of 4" in found.text
    assert "at 512 it is mspeckv > triforce > autoregressive > vanilla" in found.text


def test_growth_with_the_context() -> None:
    # from 5 to 14 is 2.8 times; published 14.45 / 4.75 = 3.04
    found = about(a1(), "context")
    assert "2.8 times as large (published 3.0)" in found.text
    assert found.holds is True


def test_control_is_compared_at_every_value() -> None:
    found = about(a1(), "equal-memory control")
    assert "512: 0.80x" in found.text
    assert "surely faster at 0, surely slower at 4 of 4 values" in found.text
    assert "takes 100% of the control's" in found.text


@pytest.mark.parametrize(
    ("alone", "words"),
    [((9.0, 10.0, 11.0), "holds 1: no gain is shown"), ((11.0, 12.0, 13.0), "leaves 1 out")],
)
def test_quantization_alone(alone: tuple[float, ...], words: str) -> None:
    found = about(a2(alone), "quantization alone")
    assert f"gives {sum(alone) / 30:.2f}x" in found.text
    assert "published 1.09 ± 0.10x" in found.text
    assert words in found.text


def test_residency_and_the_column_that_is_one_configuration() -> None:
    # 22/11 over 10/10 on average
    assert "2.00 times as much" in about(a2(), "residency").text
    # triforce: 10 to 11; published 12.42 / 8.5 = 1.46
    found = about(a2(), "one configuration").text
    assert "differ by 10%" in found
    assert "published 46%" in found


def test_cliffs() -> None:
    papers = {4: 9.74, 8: 9.69, 12: 10.89, 16: 20.01, 18: 22.08}
    assert cliff(papers) == (12, 16, 20.01 / 10.89)
    assert cliff({0: 1.0, 4: 2.0, 8: 4.0}) is None, "no step stands out"
    assert cliff({0: 1.0, 4: 1.1, 8: 1.5}) is None, "too small"
    assert cliff({0: 3.0}) is None


def test_b1_has_a_cliff_under_lru_alone() -> None:
    static, lru = about(b1(), "cliff, fixed places"), about(b1(), "cliff, LRU")
    assert (static.holds, lru.holds) == (True, True)
    # 52 over 45 ms of tier 2, and 17 over 14 tokens/s
    words = "no cliff: at the largest step, from 8 to 12, tier 2 becomes 1.16 times as fast"
    assert words in static.text
    assert "all tiers together 1.21 times" in static.text
    # 90 over 40 ms, and 20 over 10 tokens/s
    assert "a cliff: at this step, from 12 to 15, tier 2 becomes 2.25 times" in lru.text
    assert "all tiers together 2.00 times" in lru.text
    assert "0%, 0%, 0%, 100%, 100%" in lru.text
    assert "1.84x between 12 and 16" in about(b1(), "cliff, published").text


def test_b1_the_other_way_round_is_missed() -> None:
    names = {"mspeckv": "mspeckv-lru", "mspeckv-lru": "mspeckv", "triforce": "triforce"}
    rows = [replace(one, variant=names[one.variant], key=f"{one.key}, renamed") for one in b1()]
    assert about(rows, "cliff, fixed places").holds is False
    assert about(rows, "cliff, LRU").holds is False


def test_output_length() -> None:
    rows = [row("B2", value, "triforce", 1, 10.0) for value in (16, 128)]
    rows += [row("B2", 16, "mspeckv", 1, 14.0), row("B2", 128, "mspeckv", 1, 15.5)]
    found = about(rows, "output length")
    assert "between 1.40x and 1.55x (published 1.37x to 1.61x)" in found.text


def test_spread_and_a_single_seed() -> None:
    # seeds at 0.95, 1 and 1.05 of the mean: a standard deviation of 5 %
    assert "at most 5% of the mean" in about(a1(), "spread").text
    assert "One seed each" in about(b1(), "spread").text


def test_failures_come_first() -> None:
    rows = [*b1(), row("B1", 4, "all-float", 1, error="MemoryError: 3 GB")]
    first, second, *_ = findings(match_of(rows))
    assert (first.topic, first.holds) == ("failed trials", False)
    assert "control at on-chip layers 4, seed 1: MemoryError: 3 GB" in first.text
    assert (
        second.text == "No trial yet of control at 8, control at 12, control at 15, control at 17."
    )


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
    assert ours.rows[0] == ("0", "10.00 ± 0.00", "10.00 ± 1.00", "0.00 ± 1.00", "1.00 ± 0.10")
    assert theirs.rows[2] == ("16", "8.50 ± 1.31", "24.12 ± 1.94", "2.89 ± 0.56")
    cells = dict(zip(speeds.heads, speeds.rows[-1], strict=True))
    assert cells["variant"] == "mspeckv"
    assert (cells["published at"], cells["tokens/s, published"]) == ("16", "24.12 ± 1.94")
    assert cells["trials"] == "3 ok"
    over = dict(zip(ups.heads, ups.rows[-1], strict=True))
    assert over["over triforce, emulated"] == "2.00x [2.00, 2.00]"
    assert over["over triforce, published"] == "2.89 ± 0.56x"
    assert over["over control, emulated"] == "-"
    assert dict(zip(bytes_.heads, bytes_.rows[0], strict=True))["tier 2, MB/token"] == "3.000"
    for grid in (ours, theirs, speeds, ups, bytes_):
        assert all(len(line) == len(grid.heads) for line in grid.rows)


def test_command_writes_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "rows", [*a1(), *b1(), row("B1", 4, "all-float", 1, error="E: <b>")])
    assert main(["report", str(source), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "cliff, LRU [met]" in said
    files = {name: tmp_path / "out" / f"report.{name}" for name in ("html", "md", "csv", "json")}
    assert all(str(path) in said for path in files.values())
    text = files["md"].read_text(encoding="utf-8")
    assert "## A1, context length (classroom)" in text
    modelled = match_of(a1()).modelled_speed(2048, "mspeckv")
    assert modelled is not None
    cells = ("mspeckv", "2048", "32768", "28.00 ± 1.40", "18.50 ± 1.54", modelled.text())
    assert f"| {' | '.join(cells)} | 35.8 ± 1.8 |" in text
    assert "1 FAILED" in text
    page = files["html"].read_text(encoding="utf-8")
    assert "E: &lt;b&gt;" in page
    assert "<script src" not in page
    assert page.count('class="chart"') == 10


def test_csv_and_json_hold_the_numbers(tmp_path: Path) -> None:
    write_report(write(tmp_path / "rows", a1()), tmp_path)
    with (tmp_path / "report.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20
    (one,) = (x for x in lines if (x["value"], x["variant"]) == ("1024", "mspeckv"))
    assert float(one["tokens_per_second"]) == pytest.approx(36.0)
    assert float(one["speedup_over_autoregressive"]) == pytest.approx(9.0)
    assert float(one["published_speedup_over_autoregressive"]) == 8.01
    assert (one["published_value"], one["clock"], one["finished"]) == ("16384", "emulated", "3")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (only,) = found["experiments"]
    assert only["published_values"] == [8192, 16384, 24576, 32768]
    assert {one["topic"] for one in only["findings"]} >= {"order", "context", "spread"}
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
