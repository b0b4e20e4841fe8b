"""What `benchmarks.bitwise` found, as text."""

from __future__ import annotations

from typing import Any

from benchmarks.report import table

FIGURES = {
    "ms_token": "ms/token",
    "ms_round": "ms/round",
    "ms_pass": "ms/pass of tier 2",
    "first_ms_token": "first run, ms/token",
}


def tables(rows: list[dict[str, Any]]) -> str:
    """A table of each part that was run."""
    made = {"equal": equality_table, "price": price_table}
    found = {part: [row for row in rows if row["part"] == part] for part in made}
    return "\n\n".join(made[part](own) for part, own in found.items() if own)


def equality_table(rows: list[dict[str, Any]]) -> str:
    """How many logits were compared, and how many are not alike."""
    names = (
        "pair", "dtype", "context", "group", "way", "rounds", "tokens", "same_tokens",
        "rows_compared", "rows_apart",
    )  # fmt: skip
    strict = [row for row in rows if "exact=tokens" not in row["way"]]
    good = sum(row["first_bit_at"] is None for row in strict)
    total = sum(row["rows_compared"] for row in strict)
    title = (
        f"Tier 2's logits against plain decoding's (measured): under exact=\"bitwise\" {good} of "
        f"{len(strict)} runs are alike in every bit of {total} rows of logits"
    )
    headers = (
        "pair", "dtype", "context", "KV", "way", "rounds", "tokens", "tokens alike",
        "logits compared", "logits apart",
    )  # fmt: skip
    return f"{title}\n{table(headers, [[row[name] for name in names] for row in rows])}"


def price_table(rows: list[dict[str, Any]]) -> str:
    """Times without the option and with it, and what it adds to a round."""
    cells = []
    for row in rows:
        times = [row[f"{exact}_{name}"] for name in FIGURES for exact in ("tokens", "bitwise")]
        more = row["bitwise_ms_round"] / row["tokens_ms_round"] - 1
        cells.append(
            [row["pair"], row["dtype"], row["context"], row["way"], *times, f"{more:+.1%}"]
        )
    headers = ["pair", "dtype", "context", "way"]
    headers += [name for figure in FIGURES.values() for name in (figure, "bitwise")]
    title = "Price (measured, median of three turns; graphs were captured in the first run)"
    return f"{title}\n{table([*headers, 'a round'], cells)}"
