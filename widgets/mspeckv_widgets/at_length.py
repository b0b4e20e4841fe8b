"""Acceptance against context, as recorded: rows of `benchmarks.draft_context`, and their spread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any, Literal, Self

from mspeckv.settings import check_choice, refuse
from mspeckv_widgets.results import find_results

FILES = {"cpu": "drafts-at-length.jsonl", "gpu": "drafts-at-length-gpu.jsonl"}
"""The two series: the target as it is, and stretched by YaRN."""
TEXTS = ("document", "own")
CONFIDENCE = 0.95

Text = Literal["document", "own"]


@dataclass(frozen=True)
class Spread:
    """A median, and an interval that holds the true one at the confidence that is told.

    The interval goes from the k-th smallest to the k-th largest value. How sure that is follows
    from the binomial distribution alone, whatever the values' own distribution is (David and
    Nagaraja, "Order Statistics", section 7.1).

    Attributes:
        confidence: at least `CONFIDENCE`, unless the values are fewer than six: then the interval
            is their range, and this is what that is worth.
    """

    median: float
    low: float
    high: float
    count: int
    confidence: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """From independent values; there must be one."""
        ranked = sorted(values)
        count = len(ranked)
        place, confidence = 1, order_confidence(count, 1)
        while 2 * (place + 1) <= count and order_confidence(count, place + 1) >= CONFIDENCE:
            place, confidence = place + 1, order_confidence(count, place + 1)
        middle = (ranked[(count - 1) // 2] + ranked[count // 2]) / 2
        return cls(middle, ranked[place - 1], ranked[count - place], count, confidence)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def clear_of(self, other: Spread) -> bool:
        """Whether the two intervals have nothing in common."""
        return self.low > other.high or self.high < other.low


def order_confidence(count: int, place: int) -> float:
    """Chance that the median lies between the ``place``-th smallest and largest of ``count``."""
    tail: float = sum(comb(count, below) for below in range(place)) / 2**count
    return 1 - 2 * tail


@dataclass(frozen=True)
class Series:
    """Rows of one target on one machine.

    Attributes:
        rows: as they stand in the file.
        contexts: tokens before the asked ones.
        guessers: names, as in a row's ``kept``.
    """

    rows: tuple[Mapping[str, Any], ...]

    @property
    def contexts(self) -> tuple[int, ...]:
        """Tokens before the asked ones, the fewest first."""
        return tuple(sorted({row["context"] for row in self.rows}))

    @property
    def guessers(self) -> tuple[str, ...]:
        """Who guessed."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row["kept"]))

    @property
    def texts(self) -> tuple[str, ...]:
        """What was asked: the document's own words, or the target's."""
        return tuple(text for text in TEXTS if any(row["text"] == text for row in self.rows))

    @property
    def source(self) -> str:
        """What the rows were made with, in a line."""
        one = self.rows[0]
        made = one["hardware"]
        where = made.get("gpu") or f"{made['machine']}, {made['cores']} cores"
        return f"{one['target']} with {one['draft']}, {where} (measured)"

    def rates(
        self, guesser: str, context: int, text: Text = "document", temperature: int = 1
    ) -> dict[int, float]:
        """Acceptance rates by place, each the mean of the places asked there."""
        check_choice("guesser", guesser, self.guessers)
        check_choice("text", text, TEXTS)
        key = "sampled" if temperature else "greedy"
        return {
            row["place"]: row["kept"][guesser][key]
            for row in self.rows
            if row["context"] == context and row["text"] == text and guesser in row["kept"]
        }

    def spread(
        self, guesser: str, context: int, text: Text = "document", temperature: int = 1
    ) -> Spread:
        """Over all places."""
        return Spread.of(self.rates(guesser, context, text, temperature).values())

    def change(
        self, guesser: str, first: int, last: int, text: Text = "document", temperature: int = 1
    ) -> Spread:
        """By how much a rate differs between two contexts, place by place."""
        one, other = (self.rates(guesser, at, text, temperature) for at in (first, last))
        return Spread.of(other[place] - one[place] for place in one if place in other)

    def lead(
        self, guesser: str, over: str, context: int, text: Text = "document", temperature: int = 1
    ) -> Spread:
        """By how much one guesser's rate exceeds another's, place by place."""
        one, other = (self.rates(name, context, text, temperature) for name in (guesser, over))
        return Spread.of(one[place] - other[place] for place in one if place in other)


def load_series(name: str = "cpu", folder: str | Path | None = None) -> Series:
    """The recorded rows.

    Args:
        name: ``cpu`` or ``gpu``.
        folder: see `mspeckv_widgets.results.find_results`.

    Raises:
        ValueError: no such series, or its file is not there.
    """
    check_choice("series", name, tuple(FILES))
    file = find_results(folder) / FILES[name]
    if not file.is_file():
        raise refuse("series", name, "make it: python -m benchmarks.draft_context")
    return Series(read_rows(file.read_text(encoding="utf-8").splitlines()))


def read_rows(lines: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """One row per line."""
    return tuple(json.loads(line) for line in lines)
