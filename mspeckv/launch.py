"""Starting JupyterLab on the first lab."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from mspeckv.config import check_count, refuse

FIRST_LAB = "00_start_here.ipynb"


def lab_command(labs: str, port: int | None, browser: bool) -> list[str]:
    """JupyterLab's command line: this machine only, its own token, a free port.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no JupyterLab.
    """
    first = Path(labs) / FIRST_LAB
    if not first.is_file():
        raise refuse("labs", labs, f"use the folder that holds {FIRST_LAB}")
    if port is not None:
        check_count("port", port, 1, 65535)
    if find_spec("jupyterlab") is None:
        raise refuse("lab", "jupyterlab", "it is not installed: pip install 'mspeckv[lab]'")
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1"]
    # Jupyter tries the next ports when one is taken.
    command += [f"--port={port}"] if port is not None else []
    command += [] if browser else ["--no-browser"]
    # The server refuses to run as root unless told so; containers often have no other user.
    command += ["--allow-root"] if _is_root() else []
    # As a default address, not as a file to open, so that the printed address leads there too.
    command += [f"--ServerApp.root_dir={first.parent.resolve()}"]
    return [*command, f"--LabApp.default_url=/lab/tree/{FIRST_LAB}"]


def launch_lab(labs: str, port: int | None = None, browser: bool = True) -> int:
    """Run JupyterLab until it is stopped; returns its exit code."""
    process = subprocess.Popen(lab_command(labs, port, browser))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has sent it to JupyterLab too, which asks before it ends.
            continue


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
