"""Starting JupyterLab on the first lab, and Voilà on the panels alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from mspeckv.cli.system import answering
from mspeckv.settings import check_count, refuse

FIRST_LAB = "00_start_here.ipynb"
PROJECTOR = Path("demo") / "projector.ipynb"
SETTINGS = Path(__file__).parents[1] / "data" / "jupyter"
"""Of our servers alone: JupyterLab does not ask a class whether it wants to hear its news."""


def lab_command(labs: str, port: int | None, browser: bool) -> list[str]:
    """JupyterLab's command line: this machine only, its own token, a free port.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no JupyterLab.
    """
    first = _notebook(labs, Path(FIRST_LAB), port)
    command = _server("jupyterlab", "lab", port, browser)
    # The server refuses to run as root unless told so; containers often have no other user.
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    root = first.parent.resolve()
    # The labs link to pages beside their folder, which JupyterLab opens only under its root.
    if (root.parent / "docs").is_dir():
        root = root.parent
    # As a default address, not as a file to open, so that the printed address leads there too.
    start = f"--LabApp.default_url=/lab/tree/{first.resolve().relative_to(root)}"
    return [*command, "--ip=127.0.0.1", f"--ServerApp.root_dir={root}", start]


def demo_command(labs: str, port: int | None, browser: bool, dark: bool = False) -> list[str]:
    """Voilà's command line: the panels without their code, this machine only, a token of its own.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no Voilà.
    """
    page = _notebook(labs, PROJECTOR, port)
    command = [*_server("voila", "demo", port, browser), str(page)]
    theme = f"--theme={'dark' if dark else 'light'}"
    return [*command, "--Voila.ip=127.0.0.1", "--Voila.auto_token=True", theme]


def launch(command: list[str]) -> int:
    """Run a server until it is stopped; returns its exit code.

    Whoever ends this process ends the server too, and the kernels that it has started.
    """
    paths = os.pathsep.join([str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")])
    process = subprocess.Popen(
        command, env={**os.environ, "JUPYTER_CONFIG_PATH": paths.rstrip(os.pathsep)}
    )
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    with answering(ends, lambda *_: process.send_signal(signal.SIGTERM)):
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal has sent it to the server too; JupyterLab asks before it ends.
                continue


def _notebook(labs: str, name: Path, port: int | None) -> Path:
    """The notebook to serve; refuses a folder without it, and a port that is none."""
    found = Path(labs) / name
    if not found.is_file():
        raise refuse("labs", labs, f"use the folder that holds {name}")
    if port is not None:
        check_count("port", port, 1, 65535)
    return found


def _server(module: str, extra: str, port: int | None, browser: bool) -> list[str]:
    """The beginning of a server's command line; it tries the next ports where one is taken."""
    if find_spec(module) is None:
        raise refuse(extra, module, f"it is not installed: pip install 'mspeckv[{extra}]'")
    ports = [f"--port={port}"] if port is not None else []
    return [sys.executable, "-m", module, *ports, *([] if browser else ["--no-browser"])]
