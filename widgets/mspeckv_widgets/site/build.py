"""`mspeckv site build`: puts the pages together, as plain files that ask nothing of any server."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NoReturn

from mspeckv import __version__
from mspeckv_study.cli.system import check_writable
from mspeckv_widgets.site.style import style_sheet

SOURCES = Path(__file__).parent / "pages"
LABS = "../labs"
"""Where the labs are, seen from a site that was built beside them."""
STAMP = "VERSION"
"""In a folder of pages beside labs: the release that made them."""


@dataclass(frozen=True)
class Page:
    """One page of the site.

    Attributes:
        name: of its file.
        title: its heading.
        nav: its name among the others.
        summary: in a sentence, for whoever lists it.
        labs: notebooks that go with it; it leads to the first, and each of them leads to it.
        lab_words: what one does in the first.
        scripts: that it runs, in order; what is no file of `SOURCES` is made by `_MADE`.
    """

    name: str
    title: str
    nav: str
    summary: str
    labs: tuple[str, ...]
    lab_words: str
    scripts: tuple[str, ...]


PAGES = (
    Page(
        "index", "A round, moving", "A round", "Watch a language model write: one tier guesses, "
        "one checks, one decides, and the keys and values that each needs travel.",
        ("04_tiers", "00_start_here"), "what each tier sees, and who knows a fact in the middle.",
        ("films.js", "player.js", "round.js"),
    ),
    Page(
        "what-if", "What if it were another machine?", "What if", "Time, traffic and memory of "
        "speculative decoding with a placed KV cache, for every known model and card.",
        ("06_what_if", "08_A1_context", "09_A2_resident", "10_B1_on_chip", "11_B2_output_length"),
        "derive the formula, and see how far it is from what is measured.",
        ("forecasts.js", "program.js", "chart.js", "what_if.js"),
    ),
    Page(
        "accept", "Accept or reject", "Accept or reject", "Draw two distributions, guess by one, "
        "test by the other; break the rule and watch the text change.",
        ("03_speculative_decoding",), "prove the rule, then write the loop.",
        ("guesses.js", "program.js", "chart.js", "accept.js"),
    ),
    Page(
        "kv", "How large is the KV cache?", "KV size", "Bytes of keys and values per token "
        "and at length, for every known model and width, and what fits on a card.",
        ("07_plan_your_gpu",), "what fits, and what is fastest among what fits.",
        ("forecasts.js", "program.js", "chart.js", "kv.js"),
    ),
)  # fmt: skip


def _forecasts() -> str:
    from mspeckv_widgets.site.forecasts import page_data

    return f"const FORECASTS = {_json(page_data())};\n"


def _guesses() -> str:
    from mspeckv_widgets.site.guesses import page_data

    return f"const GUESSES = {_json(page_data())};\n"


def _films() -> str:
    from mspeckv_widgets.site.films import page_data

    return f"const FILMS = {_json(page_data())};\n"


def _player() -> str:
    from mspeckv_widgets.site.films import player

    return player()


_MADE: dict[str, Callable[[], str]] = {
    "forecasts.js": _forecasts, "guesses.js": _guesses, "films.js": _films, "player.js": _player,
}  # fmt: skip


def build(out: Path, labs: str = LABS) -> list[Path]:
    """Write the site into a folder; returns its files.

    Args:
        out: the folder; made where it is missing, other files in it stay.
        labs: address of the folder of labs, for the links to them.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "site.css"]
    written[0].write_text(style_sheet(), encoding="utf-8")
    for script in dict.fromkeys(("page.js", *(one for page in PAGES for one in page.scripts))):
        written.append(out / script)
        if script in _MADE:
            written[-1].write_text(_MADE[script](), encoding="utf-8")
        else:
            shutil.copyfile(SOURCES / script, written[-1])
    for page in PAGES:
        written.append(out / f"{page.name}.html")
        written[-1].write_text(_page(page, labs), encoding="utf-8")
    return written


def put_pages(folder: Path) -> str | None:
    """Build the site beside the labs in ``folder``, where this release has not yet done so.

    Returns:
        A line that says where; None where nothing was done: the pages are there, or a folder of
        their name is somebody's own.
    """
    place = folder / "site"
    stamp = place / STAMP
    if place.exists() and not stamp.is_file():
        return None
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == __version__:
        return None
    place.mkdir(parents=True, exist_ok=True)
    # empty until all is there, so that what is interrupted is done again
    stamp.write_text("", encoding="utf-8")
    build(place)
    stamp.write_text(__version__, encoding="utf-8")
    return f"pages in {place}"


def _page(page: Page, labs: str) -> str:
    """A page's file."""
    nav = "".join(
        f'<a href="{one.name}.html"{CURRENT if one is page else ""}>{escape(one.nav)}</a>'
        for one in PAGES
    )
    return Template((SOURCES / "shell.html").read_text(encoding="utf-8")).substitute(
        title=escape(page.title),
        summary=escape(page.summary),
        nav=nav,
        body=(SOURCES / f"{page.name}.html").read_text(encoding="utf-8"),
        lab=f"{labs.rstrip('/')}/{page.labs[0]}.ipynb",
        number=page.labs[0][:2],
        lab_words=escape(page.lab_words),
        scripts="\n".join(f'<script src="{one}"></script>' for one in page.scripts),
    )


CURRENT = ' aria-current="page"'


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def run(words: Sequence[str]) -> int:
    """The command line: ``build --out DIR``; returns the exit code.

    Raises:
        ValueError: words that are not allowed, or a folder that cannot be written.
    """
    parser = _Parser(prog="mspeckv site", description="Pages that need no installation.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("build", help="write the pages into a folder")
    one.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    one.add_argument("--labs", default=LABS, metavar="URL", help="where the labs are")
    options = parser.parse_args(list(words))
    check_writable("out", options.out, folder=True)
    files = build(Path(options.out).expanduser(), options.labs)
    size = sum(file.stat().st_size for file in files)
    print(f"{len(files)} files, {size / 1e6:.2f} MB: open {files[0].parent / 'index.html'}")
    return 0
