"""The labs, put into a folder to work in: what somebody has changed there is left as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mspeckv.models.checksums import LIST, digest, read_list, write_list
from mspeckv_study.cli.system import check_writable

COURSE = Path(__file__).parents[1] / "data" / "course"
"""Where a wheel has the labs and the pages that they link to; a checkout has them at its root."""
FOLDERS = ("labs", "docs")


def put_labs(folder: Path) -> str:
    """Copy labs and pages into ``folder``, beside a list of their hashes; says what was done.

    New files are added. A file that is still as an earlier release put it is renewed. A file that
    has been changed is kept.

    Raises:
        ValueError: ``folder`` cannot be written.
    """
    check_writable("folder", folder, folder=True)
    put_before, whole = read_list(folder), []
    done: dict[str, list[str]] = {"added": [], "renewed": [], "kept as you changed them": []}
    for name, source in _shipped():
        path = folder / name
        there, shipped = digest(path), digest(source)
        if path.exists() and there not in (shipped, put_before.get(name)):
            done["kept as you changed them"].append(name)
            continue
        whole.append(name)
        if there != shipped:
            done["added" if there is None else "renewed"].append(name)
            _copy(source, path)
    if done["added"] or done["renewed"] or not (folder / LIST).is_file():
        write_list(folder, whole)
    return f"labs in {folder}: {_summary(done) or 'all there, as in this release'}"


def course() -> Path:
    """The folder that holds ``labs`` and ``docs``: the installed package's, or the checkout."""
    return COURSE if COURSE.is_dir() else Path(__file__).parents[3]


def _shipped() -> Iterator[tuple[str, Path]]:
    """Each file by its name under the folder; without what notebooks and systems leave behind."""
    root = course()
    for path in sorted(file for name in FOLDERS for file in (root / name).rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def _copy(source: Path, path: Path) -> None:
    """A file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".put-") as scratch:
        shutil.copyfile(source, Path(scratch) / path.name).replace(path)


def _summary(done: dict[str, list[str]]) -> str:
    """How many files each was done to; those that were kept are named."""
    counts = [f"{len(names)} files {what}" for what, names in done.items() if names]
    kept = done["kept as you changed them"]
    named = f": {', '.join(kept)} (what you remove comes back new)" if kept else ""
    return ", ".join(counts) + named
