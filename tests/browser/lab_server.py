"""A real JupyterLab on a free port, on a copy of the labs, with settings of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LABS = Path(__file__).resolve().parents[2] / "labs"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(home: Path) -> dict[str, str]:
    """An environment in which JupyterLab neither reads nor writes the user's settings."""
    user = home / "user-settings"
    wanted: dict[str, dict[str, object]] = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        # JupyterLab follows the browser's colour scheme, which a test chooses.
        "apputils-extension/themes": {"adaptive-theme": True},
        # Cells out of sight are drawn too: pictures show whole notebooks.
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in wanted.items():
        file = user / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    own = {name: str(home / folder) for name, folder in places.items()}
    return {**os.environ, **own, "JUPYTERLAB_SETTINGS_DIR": str(user)}


@contextmanager
def serve(home: Path, prepare: Callable[[Path], None] | None = None) -> Iterator[str]:
    """Serve a copy of ``labs/`` under ``home``; yields the address of a notebook, ``{name}`` open.

    A copy, because JupyterLab saves notebooks with their outputs; ``prepare`` may change it first.
    """
    root = home / "labs"
    # what somebody answered here is no test's
    shutil.copytree(LABS, root, ignore=shutil.ignore_patterns(".mspeckv-*"))
    if prepare is not None:
        prepare(root)
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}",
    ]  # fmt: skip
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=settings(home), stdout=log, stderr=log, cwd=home)
        try:
            await_server(server, f"http://127.0.0.1:{port}/api?token={token}", home / "server.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{name}}?token={token}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def await_server(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until the server answers.

    Raises:
        RuntimeError: it ended, or did not answer within two minutes.
    """
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not answer:\n{log.read_text()[-4000:]}")
