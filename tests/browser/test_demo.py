"""`mspeckv demo`: Voilà shows the panels without their code, behind a token, and they run."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from .driver import picture, set_slider, settle, visit
from .lab_server import LABS, free_port, settings

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.slow]

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*token=\w+")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served, as the command prints it."""
    home: Path = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "mspeckv", "demo", "--labs", str(LABS), "--no-browser"]
    server = subprocess.Popen(
        [*command, "--port", str(free_port())],
        env=settings(home), cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if found := ADDRESS.search(line):
                yield found[0]
                break
        else:
            raise AssertionError("".join(said))
    finally:
        server.terminate()
        server.wait(30)


def test_panels_are_shown_without_code_and_run(address: str, browser: Browser) -> None:
    seen = visit(browser, height=1300)
    page = seen.page
    page.goto(address, wait_until="domcontentloaded")
    live, modelled = (page.get_by_role("region", name=name) for name in ("Live lab", "What if"))
    live.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=120_000)
    assert page.locator(".jp-CodeCell .jp-InputArea").count() == 0
    replay = live.locator(".mskv-status[data-state=replay]").first
    settle(page, lambda: replay.count() == 1, 3, "a recorded run is shown")
    settle(page, lambda: page.locator(".mskv-token").count() > 8, 30, "its text appears")
    live.locator(".mskv-stop").click()
    settle(page, lambda: live.locator(".mskv-run").is_enabled(), 30, "it is stopped")
    live.get_by_role("button", name="More").click()
    set_slider(page, "Prompt tokens", 256)
    set_slider(page, "New tokens", 16)
    live.locator(".mskv-run").click()
    done = live.locator(".mskv-status[data-state=done]")
    settle(page, lambda: done.count() == 1, 240, "the run ends")
    assert page.locator(".mskv-token").count() > 8
    page.wait_for_timeout(800)
    drawn = "plot => plot._fullData.filter(one => one.y && one.y.length).map(one => one.yaxis)"
    assert set(live.locator(".js-plotly-plot").first.evaluate(drawn)) == {"y", "y2", "y3"}
    page.get_by_role("tab", name="Elsewhere").click()
    modelled.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    assert modelled.locator(".js-plotly-plot").first.evaluate(drawn)
    status = modelled.locator(".mskv-status").first
    assert "4,096 +" in status.inner_text(), "the setting is the panel's, at full size"
    set_slider(page, "Prompt tokens", 512)
    settle(page, lambda: "8,192 +" in status.inner_text(), 30, "it follows the panel")
    picture(page, "demo", "body")
    # Voilà's template names an icon font elsewhere; without a network, its own one is used.
    assert [one for one in seen.problems if "fontawesome" not in one] == []
    page.context.close()


def test_nobody_comes_in_without_the_token(address: str) -> None:
    with urllib.request.urlopen(address.split("?", maxsplit=1)[0], timeout=20) as reply:
        assert "/login" in reply.url
        assert b"mskv" not in reply.read()
