"""What docs and labs say of the committed tables of `benchmarks.extensions` is in the tables."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def rows(name: str) -> list[list[str]]:
    """The cells of a table, its head left out."""
    lines = (RESULTS / f"extensions-{name}.txt").read_text(encoding="utf-8").splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    return [line.split() for line in lines[rule + 1 :] if line[:1] == " "]


def test_the_engines_codec_keeps_most_and_a_sketch_less_than_its_bit() -> None:
    kept = {(bits, codec): (float(a), float(e)) for bits, codec, _, a, e, *_ in rows("codecs")}
    for bits in ("4", "3", "2"):
        for other in ("rotated", "lloyd", "rotated-sketch", "lloyd-sketch"):
            (ours, error), (theirs, their_error) = kept[bits, "kivi"], kept[bits, other]
            assert ours - theirs > 2 * (error**2 + their_error**2) ** 0.5, (bits, other)
        for codes in ("rotated", "lloyd"):
            assert kept[bits, f"{codes}-sketch"] < kept[bits, codes]


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
