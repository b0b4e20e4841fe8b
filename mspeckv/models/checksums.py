"""Files against their hashes, listed in a folder's ``SHA256SUMS`` as ``sha256sum -c`` reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

LIST = "SHA256SUMS"


def digest(path: Path) -> str | None:
    """A file's sha256 in hexadecimal; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def read_list(folder: Path) -> dict[str, str]:
    """The hash of each file that ``folder``'s list names; none where it has no whole list."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
        return {name: found for found, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return {}


def write_list(folder: Path, names: Iterable[str]) -> None:
    """List these files of ``folder`` as they are.

    Raises:
        OSError: it cannot be written.
    """
    text = "".join(f"{digest(folder / name)}  {name}\n" for name in sorted(names))
    (folder / LIST).write_text(text, encoding="utf-8")


def damaged(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Which of ``expected``, hashes by name, are missing, unreadable or other than that."""
    return [name for name, known in expected.items() if digest(folder / name) != known]
