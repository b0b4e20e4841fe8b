"""Judging leaderboard answers anew, in another process for each student.

An answer is a student's program. In a process of its own it cannot change what others are worth,
and one that never ends is stopped. It still runs with the rights of whoever merges: recompute in a
container, or as a user who may not do harm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, TextIO

from mspeckv.settings import refuse

SECONDS = 600
"""For all answers of one student."""
_BOARD = "mspeckv_widgets.course.leaderboard"
Entry = dict[str, Any]


@dataclass(frozen=True)
class Again:
    """What an answer is worth now.

    Attributes:
        score: as an entry has it: ``value``, ``unit``, ``kind``, ``less_is_better``; None where
            the answer does not hold, or has no score.
        message: why it has none.
    """

    score: Entry | None
    message: str = ""


def judge_anew(entries: Sequence[Entry], seconds: float = SECONDS) -> list[Again]:
    """What each of one student's entries is worth, judged in another process.

    Raises:
        ValueError: this version of the course has no leaderboard.
    """
    try:
        import_module(_BOARD)
    except ModuleNotFoundError:
        raise refuse("recompute", True, "this version has no leaderboard to recompute") from None
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(list(entries)), capture_output=True, text=True,
            check=False, timeout=seconds,
        )  # fmt: skip
        said, ended = done.stdout, f"its process ended with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ended = f"it took more than {seconds:g} s"
    lines = [line for line in said.splitlines() if line.endswith("}")][: len(entries)]
    found = [Again(**json.loads(line)) for line in lines]
    return found + [Again(None, ended)] * (len(entries) - len(found))


def answer_all(entries: Sequence[Entry], judge: Callable[[Entry], Any], out: TextIO) -> None:
    """Write one line of JSON for each entry, as soon as it is known."""
    for entry in entries:
        try:
            verdict = judge(entry)
            score = asdict(verdict.score) if verdict.passed and verdict.score else None
            again = Again(score, verdict.message)
        except Exception as error:  # an entry may be anything
            again = Again(None, f"{type(error).__name__}: {error}")
        print(json.dumps(asdict(again)), file=out, flush=True)


def main() -> None:
    """Read entries from standard input, and answer on standard output."""
    # what an answer prints must not be taken for a verdict
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer_all(json.loads(sys.stdin.read()), import_module(_BOARD).recompute, out)


if __name__ == "__main__":
    main()
