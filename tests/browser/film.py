"""Pictures of a panel at work, joined to an animated GIF."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

WIDTH, COLOURS = 760, 255
PAUSE_MS = 200
LAST_MS = 2500


class Film:
    """Frames of one part of a page, with the times at which they were taken."""

    def __init__(self, page: Page, part: str) -> None:
        self._page, self._part = page, page.locator(part)
        self._frames: list[Image.Image] = []
        self._times: list[float] = []

    def shoot(self) -> None:
        """Take one frame."""
        picture = Image.open(io.BytesIO(self._part.screenshot()))
        height = round(picture.height * WIDTH / picture.width)
        small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        self._frames.append(small)
        self._times.append(time.monotonic())

    def follow(self, ended: Callable[[], bool], seconds: float) -> None:
        """Take frames until something has ended.

        Raises:
            AssertionError: it did not, within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not ended():
            assert time.monotonic() < deadline, f"not ended within {seconds:g} s"
            self.shoot()
            self._page.wait_for_timeout(PAUSE_MS)
        self.shoot()

    def save(self, path: Path, seconds: float) -> None:
        """Write the GIF; what was filmed is sped up or slowed down to last ``seconds``."""
        height = max(frame.height for frame in self._frames)
        frames = [_padded(frame, height) for frame in self._frames]
        # One palette for all, from the last frame, which has every colour in it, small areas too.
        method = Image.Quantize.MAXCOVERAGE
        palette = frames[-1].quantize(COLOURS, method, dither=Image.Dither.NONE)
        coded = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        passed = [b - a for a, b in zip(self._times, self._times[1:], strict=False)]
        pace = (seconds * 1e3 - LAST_MS) / sum(passed)
        shown = [max(20, round(one * pace)) for one in passed] + [LAST_MS]
        path.parent.mkdir(exist_ok=True)
        coded[0].save(
            path, save_all=True, append_images=coded[1:], duration=shown, loop=0, optimize=True
        )


def _padded(frame: Image.Image, height: int) -> Image.Image:
    """A panel grows with its text: what is not there yet is white."""
    whole = Image.new("RGB", (WIDTH, height), "white")
    whole.paste(frame)
    return whole
