"""axe-core on the project's own panels: JupyterLab's pages around them are not ours to mend."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

PANELS = ".mskv-panel"
GRAVE = ("serious", "critical")
# `preload` would fetch style sheets, which a page that was opened from a file may not do
RUN = """([panels, rules]) => axe.run(panels, { resultTypes: ['violations', 'passes'],
  preload: false, ...(rules.length ? { runOnly: rules } : {}) })"""


def examine(page: Page, places: str = PANELS, *rules: str) -> dict[str, Any]:
    """axe-core's results for every panel on the page.

    Args:
        places: what is examined.
        rules: by which; all where none is named.

    Raises:
        AssertionError: there was nothing to examine.
    """
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE_SCRIPT)
    found: dict[str, Any] = page.evaluate(RUN, [places, list(rules)])
    assert found["passes"], "axe-core saw no panel"
    return found


def grave(found: dict[str, Any]) -> list[str]:
    """Serious and critical violations, a line for each element: rule, place, markup, reason."""
    return [
        f"{rule['id']} ({rule['impact']}) at {node['target']}: {node['html'][:200]} "
        f"{[one['message'] for one in (*node['any'], *node['all'], *node['none'])][:2]}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
