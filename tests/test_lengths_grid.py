"""`benchmarks.gpu_lengths_grid` compares chosen lengths with fixed ones as it says."""

from __future__ import annotations

from benchmarks.gpu_lengths_grid import TURNS, report


def test_chosen_lengths_stand_beside_the_luckiest_and_beside_what_another_text_names() -> None:
    times = {
        "prose": {"2/2": 10.0, "8/3": 5.0, "auto": 4.0},
        "code": {"2/2": 6.0, "8/3": 9.0, "auto": 8.0},
    }
    rows = [
        {"context": 8192, "kv": "int8", "text": text, "drawn": False, "way": way, "ms": ms + turn}
        for text, ways in times.items() for way, ms in ways.items() for turn in (0, -1, 1)[:TURNS]
    ]  # fmt: skip
    last = report(rows).splitlines()[-2:]
    # 5 / 4 and 6 / 8; then prose by code's 2/2, 10 / 4, and code by prose's 8/3, 9 / 8
    assert last == [
        "beside the best fixed of each cell: geometric mean 0.968, least 0.750, "
        "1 of 2 cells under 0.97",
        "beside the fixed way that is best for the other text: geometric mean 1.677, least 1.125, "
        "0 of 2 cells under 0.97",
    ]
    assert report(rows[1:]).count("1 cells") == 1
    assert report([]) == "no cell is whole"
