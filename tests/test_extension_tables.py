"""What docs and labs say of the committed tables of `benchmarks.extensions` is in the tables."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def rows(name: str) -> list[list[str]]:
    """The cells of a table, its head left out."""
    lines = (RESULTS / f"extensions-{name}.txt").read_text(encoding="utf-8").splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    return [line.split() for line in lines[rule + 1 :] if line[:1] == " "]


def test_turned_codes_keep_more_at_two_bits_and_a_sketch_less_than_its_bit() -> None:
    table = rows("codecs")
    kept = {(bits, codec): (float(a), float(e)) for bits, codec, _, a, e, *_ in table}
    size = {(bits, codec): int(count) for bits, codec, count, *_ in table}
    for bits in ("4", "3", "2"):
        (ours, error), (theirs, their_error) = kept[bits, "kivi"], kept[bits, "lloyd"]
        apart = theirs - ours > 2 * (error**2 + their_error**2) ** 0.5
        assert apart == (bits == "2")
        assert size[bits, "lloyd"] < 0.97 * size[bits, "kivi"]
        for codes in ("rotated", "lloyd"):
            assert kept[bits, f"{codes}-sketch"] < kept[bits, codes]
    assert size["2", "lloyd"] < 0.95 * size["2", "kivi"]


def test_true_attention_over_chunks_keeps_more_than_landmarks_and_than_tokens() -> None:
    lines = (RESULTS / "extensions-retrieval.txt").read_text(encoding="utf-8").splitlines()
    kept: dict[tuple[int, str], float] = {}
    for line in lines:
        if found := re.match(r" +(\d+)  (\S.*?) {2,}([\d.]+)  ", line):
            kept[int(found[1]), found[2]] = float(found[3])
    assert len(kept) == 20
    for budget in (128, 256, 512):
        assert kept[budget, "attended, chunks of 8"] > kept[budget, "attention"] + 0.05
    for budget in (128, 256, 512, 1024):
        assert kept[budget, "attended, chunks of 8"] > kept[budget, "attended"] + 0.05


def test_every_text_of_the_tables_is_tier_2s_own() -> None:
    for name in ("codecs", "retrieval", "chunks"):
        text = (RESULTS / f"extensions-{name}.txt").read_text(encoding="utf-8")
        assert "same" in text
        assert "ANOTHER" not in text


def test_most_chunks_are_found_and_no_layers() -> None:
    found = [float(row[4]) for row in rows("chunks")]
    assert min(found) > 0.5
    text = (RESULTS / "extensions-chunks.txt").read_text(encoding="utf-8")
    assert "half of them on the device: 0% found" in text
