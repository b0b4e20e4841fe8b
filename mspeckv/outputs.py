"""Whether what a command is to write can be written, looked at before its work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mspeckv.config import refuse


def check_folder(field: str, path: str | Path) -> None:
    """Refuse a folder that cannot be made, or written into; makes it.

    Raises:
        ValueError: a file stands there, or the system says no.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise refuse(field, str(path), f"use a folder to write into ({error.strerror})") from error


def check_file(field: str, path: str | Path) -> None:
    """Refuse a file that cannot be written; makes its folder.

    Raises:
        ValueError: a folder stands there, or the system says no.
    """
    file = Path(path).expanduser()
    there = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        raise refuse(field, str(path), f"use a file to write into ({error.strerror})") from error
    if not there:
        file.unlink()
