"""A finished run in a file, to be shown again step by step where nothing has run yet."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mspeckv import (
    Event,
    KVPolicy,
    Link,
    Memory,
    Plan,
    Prefill,
    Round,
    RunConfig,
    Sampling,
    Speculation,
    TierCount,
    Transfer,
)
from mspeckv.events import Guess, Pass
from mspeckv.settings import refuse
from mspeckv_widgets.charts.story import split_text
from mspeckv_widgets.record import RunRecord, Setting

FORMAT = 1
_UNREADABLE = (
    OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError,
    KeyError, TypeError, AttributeError,
)  # fmt: skip
"""What reading a file may raise that no `Recording` wrote, or one that was cut off."""
SLOWER = 3
"""A recorded run is shown so many times slower than it was."""


@dataclass(frozen=True)
class Pieces:
    """Stands in for a tokenizer that is not there: the recorded run's tokens alone.

    Attributes:
        words: characters by token id.
    """

    words: dict[int, str]

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """Their characters; nothing for a token of another run."""
        return "".join(self.words.get(token, "") for token in tokens)


@dataclass(frozen=True)
class Recording:
    """A run as it can be shown again.

    Attributes:
        setting: what was run.
        events: a `Prefill`, then `Round` by `Round`.
        pieces: for its text.
    """

    setting: Setting
    events: tuple[Prefill | Round, ...]
    pieces: Pieces

    @classmethod
    def of(cls, record: RunRecord, tokenizer: Any) -> Recording:
        """A finished run.

        Raises:
            ValueError: it is not finished.
        """
        if not record.finished or record.prefill is None:
            raise refuse("record", record.number, "use a run that came to its end")
        words = {record.tokens[place]: text for place, text in split_text(tokenizer, record.tokens)}
        return cls(record.setting, (record.prefill, *record.rounds), Pieces(words))

    def save(self, path: Path) -> None:
        """Write it, compressed."""
        whole = {
            "format": FORMAT,
            "setting": asdict(self.setting),
            "events": [asdict(event) for event in self.events],
            "pieces": self.pieces.words,
        }
        path.write_bytes(gzip.compress(json.dumps(whole).encode(), mtime=0))

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is none, or of another format.
        """
        try:
            given = json.loads(gzip.decompress(path.read_bytes()))
            if given["format"] != FORMAT:
                raise refuse("format", given["format"], f"use a recording of format {FORMAT}")
            config = given["setting"].pop("config")
            parts = {
                "policy": KVPolicy, "speculation": Speculation, "sampling": Sampling, "link": Link
            }  # fmt: skip
            config |= {name: kind(**config[name]) for name, kind in parts.items()}
            setting = Setting(config=RunConfig(**config), **given["setting"])
            first, *rest = given["events"]
            words = {int(token): text for token, text in given["pieces"].items()}
            return cls(setting, (_prefill(first), *map(_round, rest)), Pieces(words))
        except _UNREADABLE as error:
            allowed = "use a file that `Recording.save` wrote"
            raise refuse("recording", str(path), allowed) from error

    def play(
        self,
        on_step: Callable[[Pass | Transfer], None],
        stopped: Callable[[float], bool],
        pace: float = SLOWER,
    ) -> Iterator[Event]:
        """Its events when they are due, its steps in between.

        Args:
            on_step: told of each pass and transfer as it ends.
            stopped: waits so many seconds, and says whether to end early.
            pace: a second of the run takes so many.
        """
        begun, prefill = time.perf_counter(), self.events[0]
        # reading the prompt is cut short: nothing is to be seen of it
        skipped = max(0.0, prefill.seconds - 1.0) if isinstance(prefill, Prefill) else 0.0
        for event in self.events:
            steps: list[Pass | Transfer] = [*event.passes, *event.transfers]
            for step in sorted(steps, key=lambda one: one.start):
                due = pace * (step.start + step.ms / 1e3 - skipped) - (time.perf_counter() - begun)
                if due > 0 and stopped(due):
                    return
                on_step(step)
            yield event


def _prefill(given: dict[str, Any]) -> Prefill:
    return Prefill(**{**_shared(given), "memory": Memory(**given["memory"])})


def _round(given: dict[str, Any]) -> Round:
    for name in ("tokens", "settled_by"):
        given[name] = tuple(given[name])
    plan = {**given["plan"], "path": tuple(given["plan"]["path"])}
    given["plan"] = Plan(**plan)
    given["tiers"] = tuple(TierCount(**one) for one in given["tiers"])
    given["guesses"] = tuple(
        Guess(**{**one, "tokens": tuple(one["tokens"]), "held": tuple(one["held"])})
        for one in given["guesses"]
    )
    return Round(**_shared(given))


def _shared(given: dict[str, Any]) -> dict[str, Any]:
    passes = tuple(Pass(**one) for one in given["passes"])
    transfers = tuple(Transfer(**one) for one in given["transfers"])
    return {**given, "passes": passes, "transfers": transfers}
