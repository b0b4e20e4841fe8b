"""The site's pages in Chromium, opened from files with the network cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request

from mspeckv_widgets.site.build import PAGES

from .driver import Visit, visit

NAMES = tuple(page.name for page in PAGES)
SIZES = {"laptop": (1366, 768), "phone": (360, 740)}


@dataclass
class Opened:
    """A page of the site and all that it asked for.

    Attributes:
        asked: addresses, in order.
    """

    visit: Visit
    asked: list[str] = field(default_factory=list)

    @property
    def page(self) -> Page:
        """The browser's page."""
        return self.visit.page

    def go(self, folder: Path, name: str, state: str = "") -> None:
        """Open a page of the site, in a state."""
        # so that a page that is open already is loaded anew, state and all
        self.page.goto("about:blank")
        self.page.goto((folder / f"{name}.html").as_uri() + state)

    def set(self, state: str, read: str) -> Any:
        """Put a state into the address of an open page; returns what ``read`` then says."""
        return self.page.evaluate(
            f"""state => new Promise(done => {{
              if (location.hash === "#" + state) {{ done({read}); return; }}
              const heard = () => setTimeout(() => done({read}), 0);
              addEventListener("hashchange", heard, {{ once: true }});
              location.hash = state; }})""",
            state,
        )


@contextmanager
def opened(browser: Browser, size: str = "laptop", dark: bool = False) -> Iterator[Opened]:
    """A window without a network; afterwards nothing may have gone wrong, or been asked for."""
    width, height = SIZES[size]
    made = Opened(visit(browser, width, height, dark))
    made.page.context.set_offline(True)

    def note(request: Request) -> None:
        made.asked.append(request.url)

    made.page.on("request", note)
    yield made
    made.page.context.close()
    assert made.visit.problems == []
    elsewhere = [one for one in made.asked if not one.startswith(("file://", "data:", "about:"))]
    assert elsewhere == []
