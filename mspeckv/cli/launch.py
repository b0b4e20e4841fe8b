"""Starting JupyterLab on the first lab, and Voilà on the panels alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from mspeckv.cli.signals import answering
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
    _need("jupyterlab", "lab")
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1"]
    # Jupyter tries the next ports when one is taken.
    command += [f"--port={port}"] if port is not None else []
    command += [] if browser else ["--no-browser"]
    # The server refuses to run as root unless told so; containers often have no other user.
    command += ["--allow-root"] if _is_root() else []
    # As a default address, not as a file to open, so that the printed address leads there too.
    root = first.parent.resolve()
    # The labs link to pages beside their folder, which JupyterLab opens only under its root.
    if (root.parent / "docs").is_dir():
        root = root.parent
    command += [f"--ServerApp.root_dir={root}"]
    return [*command, f"--LabApp.default_url=/lab/tree/{first.resolve().relative_to(root)}"]


def demo_command(labs: str, port: int | None, browser: bool, dark: bool = False) -> list[str]:
    """Voilà's command line: the panels without their code, this machine only, a token of its own.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no Voilà.
    """
    page = _notebook(labs, PROJECTOR, port)
    _need("voila", "demo")
    command = [sys.executable, "-m", "voila", str(page), "--Voila.ip=127.0.0.1"]
    command += ["--Voila.auto_token=True", f"--theme={'dark' if dark else 'light'}"]
    command += [f"--port={port}"] if port is not None else []
    return [*command, *([] if browser else ["--no-browser"])]


def launch(command: list[str]) -> int:
    """Run a server until it is stopped; returns its exit code."""
    paths = os.pathsep.join([str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")])
    process = subprocess.Popen(
        command, env={**os.environ, "JUPYTER_CONFIG_PATH": paths.rstrip(os.pathsep)}
    )
    with _passed_on(process):
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal has sent it to the server too; JupyterLab asks before it ends.
                continue


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A wish that this process should end ends ``process``, and the kernels that it has started."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    wishes = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    with answering(wishes, pass_on):
        yield


def _notebook(labs: str, name: Path, port: int | None) -> Path:
    """The notebook to serve; refuses a folder without it, and a port that is none."""
    found = Path(labs) / name
    if not found.is_file():
        raise refuse("labs", labs, f"use the folder that holds {name}")
    if port is not None:
        check_count("port", port, 1, 65535)
    return found


def _need(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise refuse(extra, module, f"it is not installed: pip install 'mspeckv[{extra}]'")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
