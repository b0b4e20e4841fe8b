"""From `pip install` of the built wheel, without a checkout, to a panel that moves; timed.

Run by `make test-wheel`, which prints the times: a clean environment takes minutes to fill.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from .driver import RUN_ALL, open_notebook, settle, show_notebook, visit
from .lab_server import await_server, free_port, settings
from .live_page import PANEL

pytestmark = [pytest.mark.browser, pytest.mark.wheel, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*token=\w+")
RUN_TO_THE_PANEL = RUN_ALL.replace("run-all-cells", "run-cell-and-select-next")
LIVE_LAB = "labs/01_live_lab.ipynb"


def clean(environment: dict[str, str]) -> dict[str, str]:
    """Without what leads Python, or pip, back to the checkout or its environment."""
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean(dict(os.environ)), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment ``env``: the wheel's ``lab``, and nothing of the checkout."""
    home: Path = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", home, ROOT)
    subprocess.run([str(part) for part in build], check=True, capture_output=True)
    (wheel,) = home.glob("*.whl")
    venv.create(home / "env", with_pip=True)
    begun = time.monotonic()
    call(
        home / "env/bin/python", "-m", "pip", "install", "-c", ROOT / "constraints.txt",
        f"{wheel}[lab]", cwd=home,
    )  # fmt: skip
    say(f"pip install 'mspeckv[lab]': {time.monotonic() - begun:.1f} s")
    return home


def say(line: str) -> None:
    """A line for who waits, past pytest's capture; with the machine's load, which explains it."""
    busy = f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    print(f"\n    {line} ({busy})", file=sys.__stderr__, flush=True)


@contextmanager
def lab(home: Path, cache: Path) -> Iterator[str]:
    """`mspeckv lab` in the clean environment; yields the address that it prints."""
    log = home / "lab.log"
    command = [
        str(home / "env/bin/mspeckv"), "lab", "--folder", str(home / "course"), "--no-browser",
        "--port", str(free_port()),
    ]  # fmt: skip
    environment = {**clean(settings(home)), "MSPECKV_CACHE": str(cache)}
    (home / "config").mkdir(exist_ok=True)
    seen = {"LabApp": {"expose_app_in_browser": True}}  # by the driver's scripts
    (home / "config" / "jupyter_lab_config.json").write_text(json.dumps(seen))
    with log.open("w") as sink:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=sink, stderr=sink)
    try:
        while not (found := ADDRESS.search(log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        await_server(server, found[0], log)
        yield found[0]
    finally:
        server.terminate()
        server.wait(60)


def test_the_installed_package_is_the_wheel(home: Path) -> None:
    where = call(home / "env/bin/python", "-c", "import mspeckv; print(mspeckv.__file__)", cwd=home)
    assert Path(where.strip()).is_relative_to(home / "env")
    call(home / "env/bin/python", "-m", "pip", "check", cwd=home)


@pytest.mark.parametrize("start", ["first", "second"])
def test_a_panel_moves(start: str, home: Path, browser: Browser) -> None:
    begun = time.monotonic()
    seen = visit(browser)
    page = seen.page
    with lab(home, home / "cache") as address:
        served = time.monotonic()
        open_notebook(page, address)
        # the first in sight: a second start brings the first one's back, in a tab behind
        page.locator(".jp-Notebook:visible").first.wait_for()
        opened = time.monotonic()
        show_notebook(page, LIVE_LAB)
        # down to the cell that shows the panel
        panel = page.locator(PANEL)
        for _ in range(2):
            page.evaluate(RUN_TO_THE_PANEL)
        settle(page, lambda: panel.locator(".js-plotly-plot .main-svg").count(), 300, "it is there")
        shown = time.monotonic()
        panel.locator(".mskv-run.mod-success").first.click()
        settle(page, lambda: panel.locator(".mskv-token").count() > 8, 300, "its text appears")
        moving = time.monotonic()
        done = panel.locator(".mskv-status[data-state=done]")
        settle(page, done.count, 300, "the run ends")
    first_page = home / "course" / "site" / "index.html"
    assert first_page.is_file(), "labs lead to it"
    say(
        f"{start} start: labs and model there, JupyterLab answers {served - begun:.1f} s, "
        f"notebook open {opened - begun:.1f} s, panel {shown - begun:.1f} s, "
        f"text moves {moving - begun:.1f} s"
    )
    # JupyterLab has saved the first start's panel, whose kernel has ended
    old = "Error: widget model not found" if start == "second" else "none"
    assert not [said for said in seen.problems if not said.startswith(old)]
