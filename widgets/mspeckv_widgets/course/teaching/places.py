"""Where the project's checkout is, and folders to write into."""

from __future__ import annotations

from pathlib import Path

import mspeckv_widgets
from mspeckv.settings import refuse
from mspeckv_study.cli.system import check_writable


def checkout() -> Path:
    """The folder of the project's checkout: package, tests and labs.

    Raises:
        ValueError: the package is installed without one.
    """
    root = Path(mspeckv_widgets.__file__).resolve().parents[2]
    if not all((root / name).exists() for name in ("tests", "labs", "mspeckv", "pyproject.toml")):
        allowed = (
            "the project's checkout is needed, with its tests and labs: clone it, `make setup`"
        )
        raise refuse("course", str(root), allowed)
    return root


def empty_folder(field: str, path: str | Path) -> Path:
    """A folder to fill, made where there is none.

    Raises:
        ValueError: something is in it, or it cannot be written.
    """
    folder = Path(path).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        raise refuse(field, str(path), "use an empty folder: nothing is overwritten")
    check_writable(field, folder, folder=True)
    return folder
