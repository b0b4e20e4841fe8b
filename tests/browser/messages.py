"""What a page and its kernel say to each other, read from the page's web sockets.

A kernel's websocket carries Jupyter's ``v1.kernel.websocket.jupyter.org``: a count of offsets, the
offsets, then channel, header, parent header, metadata, content and buffers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from playwright.sync_api import Page, WebSocket


@dataclass(frozen=True)
class Message:
    """A kernel's message, or one to it; ``parent`` is the type of what it answers, if any."""

    kind: str
    parent: str
    content: dict[str, Any]


def unpack(frame: str | bytes) -> Message | None:
    """A frame's message; None for what is none of Jupyter's."""
    if isinstance(frame, str):
        return None
    (count,) = struct.unpack_from("<Q", frame)
    if not 6 <= count < 1000:
        return None
    places = struct.unpack_from(f"<{count}Q", frame, 8)
    header, parent, _, content = (json.loads(frame[a:b] or b"{}") for a, b in pairwise(places[1:6]))
    return Message(header["msg_type"], parent.get("msg_type", ""), content)


def overhear(page: Page, to: Callable[[Message], None], sent: bool = False) -> None:
    """Hand each message that the kernel sends, or with ``sent`` is sent, to ``to``.

    Only of sockets that open from now on: begin before a notebook is opened.
    """

    def take(frame: str | bytes) -> None:
        message = unpack(frame)
        if message is not None:
            to(message)

    def listen(socket: WebSocket) -> None:
        socket.on("framesent" if sent else "framereceived", take)

    page.on("websocket", listen)
