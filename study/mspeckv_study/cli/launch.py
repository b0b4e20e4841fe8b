"""Starting JupyterLab on the first lab, and Voilà on the panels alone."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mspeckv.settings import check_count, refuse
from mspeckv_study.cli.system import GRAMMAR, answering, without

FIRST_LAB = "00_start_here.ipynb"
PROJECTOR = Path("demo") / "projector.ipynb"
HERE, FOLDER = "labs", "mspeckv-labs"
"""Labs that are served as they are, and the folder that is filled where there are none."""
SETTINGS = Path(__file__).parents[1] / "data" / "jupyter"
"""Of our servers alone: JupyterLab does not ask a class whether it wants to hear its news."""
_MODULES = {"lab": "jupyterlab", "demo": "voila"}
_HANG_UP = [getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name)]


def folder_to_fill(labs: str | None, folder: str | None) -> Path | None:
    """Where labs are to be put first; None where ``labs``, given or here, are served as is."""
    if labs is not None and folder is not None:
        raise refuse("folder", folder, "give --labs, to serve as it is, or --folder, to fill")
    if labs is not None or (folder is None and (Path(HERE) / FIRST_LAB).is_file()):
        return None
    return Path(folder or FOLDER).expanduser().resolve()


def fetch_model() -> None:
    """The default model in both forms, with progress, where it is not on this machine yet.

    Without a network labs open all the same: some need no model, and the others say what is
    missing.
    """
    from mspeckv.models.download import FORMS, ModelMissing, ready

    with answering([signal.SIGTERM, *_HANG_UP], _leave):
        try:
            for form in FORMS:
                ready(form=form)
        except ModelMissing as error:
            print(f"mspeckv: {error}", file=sys.stderr)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """End by an exception, which takes a running download along."""
    raise SystemExit(128 + number)


def lab_command(labs: str | Path, port: int | None, browser: bool) -> list[str]:
    """JupyterLab's command line: this machine only, its own token, a free port.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no JupyterLab.
    """
    first = _notebook(labs, Path(FIRST_LAB))
    command = server_command("lab", port, browser)
    # The server refuses to run as root unless told so; containers often have no other user.
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    root = first.parent.resolve()
    # The labs link to pages beside their folder, which JupyterLab opens only under its root.
    if (root.parent / "docs").is_dir():
        root = root.parent
    # As a default address, not as a file to open, so that the printed address leads there too.
    start = f"--LabApp.default_url=/lab/tree/{first.resolve().relative_to(root)}"
    return [*command, "--ip=127.0.0.1", f"--ServerApp.root_dir={root}", start]


def demo_command(
    labs: str | Path, port: int | None, browser: bool, dark: bool = False
) -> list[str]:
    """Voilà's command line: the panels without their code, this machine only, a token of its own.

    Raises:
        ValueError: no such folder of labs, a port out of range, or no Voilà.
    """
    page = _notebook(labs, PROJECTOR)
    command = [*server_command("demo", port, browser), str(page)]
    theme = f"--theme={'dark' if dark else 'light'}"
    return [*command, "--Voila.ip=127.0.0.1", "--Voila.auto_token=True", theme]


def launch(command: list[str]) -> NoReturn:
    """Become a server, a module with its arguments, until it is stopped; exits with its code.

    No process stands between the caller and the server: who ends this one ends the server, and a
    kernel ends itself when its server is gone.
    """
    paths = os.pathsep.join([str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")])
    os.environ["JUPYTER_CONFIG_PATH"] = paths.rstrip(os.pathsep)
    sys.argv = command
    # A closed terminal is answered as SIGTERM is: kernels are shut down first. So is an interrupt
    # that no terminal sends, about which the server could ask nobody.
    interrupts = [] if sys.stdin and sys.stdin.isatty() else [signal.SIGINT]
    ends = answering([*_HANG_UP, *interrupts], lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with ends, without(GRAMMAR):
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    raise SystemExit(0)


def _notebook(labs: str | Path, name: Path) -> Path:
    """The notebook to serve; refuses a folder without it."""
    found = Path(labs) / name
    if not found.is_file():
        raise refuse("labs", str(labs), f"use the folder that holds {name}")
    return found


def server_command(extra: str, port: int | None, browser: bool) -> list[str]:
    """The beginning of a server's command line; it tries the next ports where one is taken.

    Args:
        extra: ``lab`` or ``demo``.
        port: the first to try; None leaves it to the server.

    Raises:
        ValueError: a port out of range, or a server that is not installed.
    """
    if port is not None:
        check_count("port", port, 1, 65535)
    module = _MODULES[extra]
    if find_spec(module) is None:
        raise refuse(extra, module, f"it is not installed: pip install 'mspeckv[{extra}]'")
    ports = [f"--port={port}"] if port is not None else []
    return [module, *ports, *([] if browser else ["--no-browser"])]
