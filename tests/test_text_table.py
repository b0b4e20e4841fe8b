"""Tables as text, beside what they must look like."""

from __future__ import annotations

from mspeckv_study.text_table import aligned, markdown

ROWS = [["way", "ms"], ["one", "12.5"], ["another", "3"]]


def test_columns_stand_one_under_the_other() -> None:
    assert aligned(ROWS, left=range(1)) == ["way        ms", "one      12.5", "another     3"]
    assert aligned(ROWS, left=range(2), gap=" | ") == [
        "way     | ms", "one     | 12.5", "another | 3",
    ]  # fmt: skip
    assert aligned([["a", "b"]], left=(), gap="", least=(3, 4)) == ["  a   b"]


def test_markdown_keeps_bars_in_their_cells() -> None:
    assert markdown(["way", "ms"], [["a|b", "3"]], left=range(1)) == [
        "| way | ms |", "| --- | ---: |", "| a\\|b | 3 |",
    ]  # fmt: skip
