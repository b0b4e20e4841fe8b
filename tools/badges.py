"""Badges that open the labs on Colab and Binder, and the cell that makes them run there.

``python -m tools.badges OWNER/NAME`` writes both into every lab, after its title; again, with the
same name, it changes nothing. The name is that of the repository on GitHub that the services read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

LABS = Path(__file__).resolve().parents[1] / "labs"
BADGES, SETUP = "badges", "setup"
"""Ids of the two cells."""
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
SETUP_CELL = """\
# On Colab this installs what is missing; elsewhere it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("mspeckv_widgets") is None:
    source = "{source}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)
    importlib.invalidate_caches()
if "google.colab" in sys.modules:
    from google.colab import output

    output.enable_custom_widget_manager()"""


def badges(repository: str, lab: str) -> str:
    """Markdown of both badges of a notebook."""
    colab = f"{COLAB}/github/{repository}/blob/main/labs/{lab}"
    binder = f"{BINDER}/v2/gh/{repository}/main?labpath=labs/{lab}"
    return (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({colab})\n"
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({binder})"
    )


def setup(source: str) -> str:
    """Code of the cell that installs the lab from ``source``, a requirement of pip's."""
    return SETUP_CELL.replace("{source}", source)


def write(folder: Path, repository: str) -> int:
    """Write both cells into every notebook of ``folder``; returns how many notebooks changed.

    Raises:
        ValueError: ``repository`` is no ``OWNER/NAME``.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"repository: {repository!r} is not allowed; use OWNER/NAME")
    source = f"mspeckv[lab] @ git+https://github.com/{repository}"
    changed = 0
    for path in sorted(folder.glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        notebook: Any = nbformat.reads(before, as_version=4)
        title, *rest = [cell for cell in notebook.cells if cell.id not in (BADGES, SETUP)]
        shown = nbformat.v4.new_markdown_cell(badges(repository, path.name), id=BADGES)
        hidden = {"jupyter": {"source_hidden": True}}
        code = nbformat.v4.new_code_cell(setup(source), id=SETUP, metadata=hidden)
        notebook.cells = [title, shown, code, *rest]
        after = nbformat.writes(notebook) + "\n"
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


def main(arguments: Sequence[str]) -> int:
    """Do it, and say how many notebooks changed."""
    if len(arguments) != 1:
        print("usage: python -m tools.badges OWNER/NAME", file=sys.stderr)
        return 2
    try:
        print(f"{write(LABS, arguments[0])} notebooks changed")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
