"""Record how long the live panel's passes take here, against this machine's calibration.

``python -m tests.browser.record_steps`` runs the panel with the default pair in a kernel alone and
in JupyterLab in Chromium, each undisturbed and beside two busy loops of the same session (Linux
gives every session its share: loops of another one slow the panel less), and writes
`tests/panel_steps.json`: every pass in times of a calibrated one. It wants an idle machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from .driver import FLAGS, RUN_ALL, chromium, open_notebook, set_slider, settle, visit
from .lab_server import serve
from .test_live_lab import run

FILE = Path(__file__).parents[1] / "panel_steps.json"
RESIDENT = (0, 8, 15, 4, 12)
CELL = """import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from mspeckv_study.whatif.measure import slowdown
from mspeckv_widgets import LiveLab
lab = LiveLab()

def write(path):
    machine = replace(lab.machine.model.machine, own=(1.0,))
    runs = []
    for record in reversed(lab.records):
        passes = [one for each in record.rounds for one in each.passes]
        ratios = [slowdown(machine, [one], record.decode_transfers) for one in passes]
        runs.append([round(one, 3) for one in ratios if one is not None])
    own = list(lab.machine.model.machine.own)
    Path(path).write_text(json.dumps({"own": own, "runs": runs}))
loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range({loops})]
lab"""
ALONE = """
for resident in {resident}:
    lab.controls.set(resident=resident)
    lab.run()
    lab.wait()
"""
END = """if lab.records:
    write({path!r})
    for loop in loops:
        loop.kill()"""


def beside(loops: int) -> str:
    """A cell with the panel and so many busy loops."""
    return CELL.replace("range({loops})", f"range({loops})")


def in_a_kernel(loops: int) -> dict[str, Any]:
    """Runs that nobody looks at."""
    with tempfile.NamedTemporaryFile(suffix=".json") as kept:
        parts = (beside(loops), ALONE.format(resident=RESIDENT), END.format(path=kept.name))
        subprocess.run([sys.executable, "-c", "\n".join(parts)], check=True)
        found: dict[str, Any] = json.loads(Path(kept.name).read_text())
        return found


def in_a_browser(loops: int) -> dict[str, Any]:
    """Runs that a page draws all the while."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        kept = Path(home) / "steps.json"

        def prepare(root: Path) -> None:
            cells = [beside(loops), END.format(path=str(kept))]
            sources: list[dict[str, Any]] = [
                {"cell_type": "code", "id": f"c{at}", "metadata": {}, "source": source,
                 "outputs": [], "execution_count": None}
                for at, source in enumerate(cells)
            ]  # fmt: skip
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
            book = {"cells": sources, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
            (root / "steps.ipynb").write_text(json.dumps(book))

        with serve(Path(home), prepare) as address:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = visit(browser, 1366, 768).page
            open_notebook(page, address.format(name="steps.ipynb"))
            page.evaluate(RUN_ALL)
            page.locator(".mskv-panel .js-plotly-plot").first.wait_for(timeout=120_000)
            page.wait_for_timeout(3000)
            page.locator(".mskv-panel").first.evaluate("one => one.scrollIntoView()")
            for resident in RESIDENT:
                set_slider(page, "Resident", resident)
                run(page)
            page.evaluate(
                "window.jupyterapp.commands.execute('notebook:move-cursor-down').then(() =>"
                " window.jupyterapp.commands.execute('notebook:run-cell'))"
            )
            settle(page, lambda: kept.exists() and kept.read_text(), 30, "the times are written")
            page.wait_for_timeout(500)
            found: dict[str, Any] = json.loads(kept.read_text())
            browser.close()
        return found


def main() -> None:
    """Record all four."""
    in_a_kernel(0)  # the machine is calibrated, and what is loaded once is loaded
    found = {
        "alone": in_a_kernel(0),
        "browser": in_a_browser(0),
        "loops": in_a_kernel(2),
        "browser and loops": in_a_browser(2),
    }
    own = found["alone"]["own"]
    FILE.write_text(
        json.dumps({"own": own, **{name: one["runs"] for name, one in found.items()}}) + "\n"
    )


if __name__ == "__main__":
    main()
