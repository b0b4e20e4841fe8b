"""Both sides' logs: nothing may raise in the browser, in the kernel, or in the server.

What a widget's callback raises comes as a message ``error`` without a cell of its own, what a
comm's handler raises as text on the kernel's stderr; JupyterLab shows both in its log console only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Page

from .messages import Message, overhear

_RAISED = re.compile(r"Traceback|\w*(?:Error|Exception)\b|\bERROR\b|\[E \d")
_KNOWN = re.compile(
    # Chromium's own, of a page that lays itself out while it is watched
    r"ResizeObserver loop"
    # anywidget's, where a page was busy for two seconds: widgets of ours go on, see `late.js`
    r"|\[anywidget\] Failed to initialize model"
    # of JupyterLab's pages and of packages of other authors
    r"|DeprecationWarning|deprecated|preload|GPU stall|Autofocus"
)


class Logs:
    """What both sides have logged since this was made; make it before a notebook is opened.

    Args:
        page: the browser's.
        server: the file that the server, and so its kernels, write to.
    """

    def __init__(self, page: Page, server: Path) -> None:
        self._server, self._read = server, server.stat().st_size if server.exists() else 0
        self._found: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._found.append(f"browser: {error}"))
        overhear(page, self._overhear)

    def problems(self) -> list[str]:
        """A line for each, in the order in which they came; known ones of others are left out."""
        with self._server.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._read)
            lines = log.read().splitlines()
        raised = [f"server: {line}" for line in lines if _RAISED.search(line)]
        return [one for one in (*self._found, *raised) if not _KNOWN.search(one)]

    def forget(self) -> None:
        """Begin anew."""
        self._found.clear()
        self._read = self._server.stat().st_size

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._found.append(f"browser, {message.type}: {message.text}")

    def _overhear(self, message: Message) -> None:
        if message.kind == "error":
            content = message.content
            self._found.append(
                f"kernel, after {message.parent or 'nothing'}: {content['ename']}: "
                f"{content['evalue']}\n" + "\n".join(content["traceback"][-3:])
            )
        if message.kind == "stream" and message.content["name"] == "stderr":
            text = message.content["text"]
            if _RAISED.search(text):
                self._found.append(f"kernel, stderr: {text[-1500:]}")


@contextmanager
def clean_log(page: Page, logs: Logs) -> Iterator[None]:
    """Steps that neither side may log an error or a warning of.

    Raises:
        AssertionError: one did; with what it said.
    """
    logs.forget()
    yield
    # what the last step raised may still be on its way
    page.wait_for_timeout(1500)
    problems = logs.problems()
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:10])
