"""Documents: links lead somewhere, words are spelt, quoted messages are what the command says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mspeckv_study.cli import launch, main
from mspeckv_widgets.site.build import PAGES as SITE_PAGES

from .labs import LABS, NOTEBOOKS, SOLUTIONS, load, minutes, named

ROOT = LABS.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(path for folder in ("docs", "labs", "mspeckv", "benchmarks") for path in
      sorted((ROOT / folder).rglob("*.md"))),
]  # fmt: skip
ALL_NOTEBOOKS = [*NOTEBOOKS, *sorted(SOLUTIONS.glob("*.ipynb")), *LABS.glob("demo/*.ipynb")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SITE = {ROOT / "site" / f"{page.name}.html" for page in SITE_PAGES}
"""What `make site` builds."""
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CONCEPTS = (
    "kv-traffic", "quantization", "tiers-and-speculation", "placement-and-link", "exactness",
    "profiling", "cost-model",
)  # fmt: skip


def prose(path: Path) -> str:
    """A page's text, or that of a notebook's Markdown cells; code is left out."""
    if path.suffix == ".ipynb":
        text = "\n\n".join(c.source for c in load(path).cells if c.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What a page's headings are called in links; of code, its lines."""
    if path.suffix == ".py":
        return {
            f"L{line}" for line, _ in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        }
    titles = HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def relative(path: Path) -> str:
    """Test ids are paths."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PAGES, *ALL_NOTEBOOKS], ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists() or found in SITE, target
        assert found.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(found), target


def test_spelling() -> None:
    words = "\n".join(prose(path) for path in (*PAGES, *ALL_NOTEBOOKS))
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml"), "-"]
    done = subprocess.run(command, input=words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_spelling_would_see_a_mistake() -> None:
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml"), "-"]
    done = subprocess.run(command, input="recieve", capture_output=True, text=True, check=False)
    assert "receive" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_syllabus_states_each_labs_minutes(path: Path) -> None:
    listed = (LABS / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in listed if line.startswith(f"| [{path.stem}]({path.name})")]
    assert row.split(" | ")[-2] == f"{minutes(load(path)):g} min"


def test_every_concept_has_a_page_that_a_lab_leads_to() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    labs = "\n".join(prose(path) for path in NOTEBOOKS)
    for name in CONCEPTS:
        assert f"({name}.md)" in index
        assert f"(../docs/{name}.md)" in labs, name


@pytest.mark.parametrize(
    "arguments",
    [
        "generate --on-chip 20 --resident 20",
        "generate --method triforce --kv-bits 8",
        "generate --budget 10",
        "generate --link fast",
        "generate --document nowhere.txt",
        "generate --device cuda",
        "lab --labs nowhere",
        "lab --labs LABS",
    ],
)
def test_quoted_messages_are_real(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    assert main(arguments.replace("LABS", str(LABS)).split()) == 2
    said = capsys.readouterr().err.strip().removeprefix("mspeckv: ")
    assert f"`{said}`" in page
