"""Every question to an engine: kept in a file, so that a run goes on, and bounded in time."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import index
from pathlib import Path

from mspeckv.settings import Sampling, refuse
from mspeckv_study.verification.engine import Engine, Said

FILE = "asked.jsonl"


def _said(tokens: list[int], rounds: Sequence[int] = (), logprobs: Sequence[float] = ()) -> Said:
    """An answer as the file has it; a part of another kind is refused by Python."""
    return Said(
        tuple(map(index, tokens)), tuple(map(index, rounds)), tuple(map(float, logprobs))
    )  # fmt: skip


class TimeUp(Exception):
    """The time that was given is over, or the run was cancelled."""


class Asking:
    """Asks two engines, and remembers what they said.

    Args:
        engine: what is judged.
        against: plain decoding of the same model.
        out: folder of the file; None keeps nothing.
        seconds: time that may be taken; None for any.
        cancel: ends the run at the next question.
        on_ask: told of each question that an engine was asked.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(
        self,
        engine: Engine,
        against: Engine,
        out: Path | None = None,
        seconds: float | None = None,
        cancel: threading.Event | None = None,
        on_ask: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self.against = engine, against
        self._file = None if out is None else out / FILE
        self._end = None if seconds is None else time.monotonic() + seconds
        self._cancel, self._on_ask = cancel, on_ask
        self._known: dict[str, Said] = {}
        self.late = False
        if self._file is not None and self._file.exists():
            try:
                lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
                whole = [line for line in lines if line.endswith("\n")]
                kept = [json.loads(line) for line in whole]
                self._known = {key: _said(*parts) for key, *parts in kept}
                if whole != lines:
                    # a last line that was cut off is asked again
                    self._file.write_text("".join(whole), encoding="utf-8")
            except (ValueError, TypeError, RecursionError):
                raise refuse("out", str(out), f"its {FILE} holds something else") from None

    def __call__(
        self, engine: Engine, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False
    ) -> Said:
        """What the engine says, now or in an earlier run with the same file.

        Raises:
            TimeUp: no more questions.
        """
        asked = json.dumps([engine.name, engine.setting, prompt, asdict(sampling), n, logprobs])
        key = hashlib.sha256(asked.encode()).hexdigest()[:24]
        if key in self._known:
            return self._known[key]
        self.check()
        said = engine.say(prompt, sampling, n, logprobs)
        self._on_ask()
        self._known[key] = said
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, said.tokens, said.rounds, said.logprobs]) + "\n")
        return said

    def check(self) -> None:
        """Raise `TimeUp` where it is so."""
        over = self._end is not None and time.monotonic() > self._end
        if over or (self._cancel is not None and self._cancel.is_set()):
            self.late = True
            raise TimeUp
