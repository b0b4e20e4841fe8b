"""A learner's function at work under a checker: nothing it does may do harm, and all is told.

It gets copies of the arguments, so that it may change them. What it prints is cut after some
lines. It is stopped if it does not return. Where it fails, an `Attempt` says which line of the
learner's it was, what was tried, and what came of it.
"""

from __future__ import annotations

import io
import linecache
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, TextIO

import numpy as np
import torch
from IPython.core.getipython import get_ipython

import mspeckv
import mspeckv_study

PRINTED_LINES = 20
"""What an answer prints is shown up to so many lines."""

_TELLING = 60
_OURS = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(mspeckv.__file__).parent),
    str(Path(mspeckv_study.__file__).parent),
    str(Path(__file__).parents[1]),
)
"""Code below these folders is not the learner's."""


class TooSlow(BaseException):
    """A learner's function did not return; no ``except Exception`` of its own stops this."""


@dataclass(frozen=True)
class Place:
    """A line of the learner's code.

    Attributes:
        file: the cell as JupyterLab names it, such as ``Cell In[5]``, or the file's name.
        line: its number there, from 1.
        text: what it says, without the white space around it; empty where that is not known.
    """

    file: str
    line: int
    text: str

    @classmethod
    def at(cls, filename: str, line: int) -> Place:
        """A line of a file, or of a cell that IPython keeps under a file's name."""
        return cls(_cell_name(filename), line, linecache.getline(filename, line).strip())

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True)
class Attempt:
    """One call that an answer failed, each part as text that fits on a line.

    Attributes:
        call: the function with the arguments tried, such as ``kv_bytes(30, 3, 64, 4)``; empty
            where no call was made.
        got: what it returned or raised.
        wanted: what is right; empty where that is not told.
        place: the learner's line that returned or raised.
    """

    call: str
    got: str
    wanted: str = ""
    place: Place | None = None

    def rows(self) -> list[tuple[str, str]]:
        """What is known, as words and values."""
        line = "" if self.place is None else str(self.place)
        named = (
            ("Tried", self.call),
            ("Got", self.got),
            ("Wanted", self.wanted),
            ("Your line", line),
        )
        return [(word, value) for word, value in named if value]


def short(found: Any) -> str:
    """A value as text that fits on a line."""
    text = " ".join(repr(found).split())
    return text if len(text) <= _TELLING else text[: _TELLING - 3] + "..."


def call_text(found: Any, arguments: Sequence[Any]) -> str:
    """A call as one would write it."""
    name = getattr(found, "__name__", type(found).__name__)
    name = "your function" if name == "<lambda>" else name
    return f"{name}({', '.join(short(part) for part in arguments)})"


def copied(argument: Any) -> Any:
    """A copy of plain data, with all that lies in it; any other object as it is."""
    if isinstance(argument, np.ndarray):
        return argument.copy()
    if isinstance(argument, torch.Tensor):
        return argument.clone()
    if type(argument) in {list, tuple, set}:
        return type(argument)(copied(part) for part in argument)
    if type(argument) is dict:
        return {name: copied(part) for name, part in argument.items()}
    return argument


def call(found: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns for copies of the arguments."""
    return found(*(copied(part) for part in arguments))


def returned_at(found: Any, arguments: Sequence[Any]) -> Place | None:
    """The line on which a plain function returns; it is called once more to find out."""
    code = getattr(found, "__code__", None)
    lines: list[int] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            lines.append(frame.f_lineno)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        call(found, *arguments)
    except Exception:  # it returned a moment ago: this time does not count
        return None
    finally:
        sys.setprofile(before)
    return Place.at(code.co_filename, lines[-1]) if isinstance(code, CodeType) and lines else None


def failed_attempt(error: BaseException, got: str, checker: Any) -> Attempt:
    """What an error's traceback tells: the learner's last line, and the call that led there.

    Args:
        checker: the function that judged; its own lines are not the learner's.
    """
    judging = getattr(checker, "__code__", None)
    frames = list(_frames(error.__traceback__))
    theirs = [(frame, line) for frame, line in frames if _is_theirs(frame.f_code, judging)]
    place = Place.at(theirs[-1][0].f_code.co_filename, theirs[-1][1]) if theirs else None
    calls = [frame.f_locals for frame, _ in frames if frame.f_code is call.__code__]
    if calls:
        return Attempt(call_text(calls[-1]["found"], calls[-1]["arguments"]), got, "", place)
    return Attempt(_call_of(theirs[0][0]) if theirs else "", got, "", place)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop what runs inside after so long.

    This needs the main thread, where notebooks run their cells, and a system with an alarm clock
    (not Windows); elsewhere there is no limit. A long call into compiled code ends first.

    Raises:
        TooSlow: the time is over.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_: int, __: Any) -> None:
        raise TooSlow

    before, start = signal.signal(signal.SIGALRM, stop), time.monotonic()
    theirs, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if theirs:  # somebody else's alarm goes on
            left = max(theirs - (time.monotonic() - start), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, every)


@contextmanager
def few_prints() -> Iterator[None]:
    """Let only the first lines through that are printed inside."""
    out = _FewLines(sys.stdout)
    try:
        with redirect_stdout(out):
            yield
    finally:
        if out.left_out:
            print(f"... and {out.left_out:,} printed lines more")


class _FewLines(io.TextIOBase):
    """Passes a stream's first lines on and counts the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._passed = stream, 0
        self.left_out = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            if self._passed < PRINTED_LINES:
                self._stream.write(line)
                self._passed += line.endswith("\n")
            else:
                self.left_out += line.endswith("\n")
        return len(text)


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_theirs(code: CodeType, judging: CodeType | None) -> bool:
    name = code.co_filename
    return code is not judging and not name.startswith(
        ("<frozen", "<__array", *(f"{folder}{os.sep}" for folder in _OURS))
    )


def _call_of(frame: FrameType) -> str:
    """A call as its frame knows it: arguments by what their names stand for now."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount]
    known = frame.f_locals
    given = ", ".join(f"{name}={short(known[name])}" for name in names if name in known)
    name = "your function" if code.co_name == "<lambda>" else code.co_name
    return f"{name}({given})"


def _cell_name(filename: str) -> str:
    shell: Any = get_ipython()
    told = getattr(getattr(shell, "compile", None), "format_code_name", None)
    named = told(filename) if told is not None else None
    return " ".join(named) if named else Path(filename).name
