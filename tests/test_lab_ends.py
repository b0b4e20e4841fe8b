"""`mspeckv lab`, ended by whatever signal, leaves no server and no kernel: with real ones."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from .browser.lab_server import await_server, free_port, settings

SOON = 120
"""Seconds within which a server starts, and everything ends."""
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/lab\S*\?token=(\w+)")


def start_kernel(address: str, token: str) -> None:
    request = urllib.request.Request(
        f"{address}/api/kernels",
        data=json.dumps({"name": "python3"}).encode(),
        headers={"Authorization": f"token {token}"},
    )
    with urllib.request.urlopen(request, timeout=SOON) as answer:
        assert answer.status == 201


def is_kernel(process: psutil.Process) -> bool:
    """Whether it is one that listens: before, it does not watch for its server's end either."""
    try:
        listens = len(process.net_connections("tcp")) >= 5
        return "ipykernel_launcher" in process.cmdline() and listens
    except psutil.Error:  # the server asks other programs, which are gone soon
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_whatever_ends_it_nothing_is_left(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [
        sys.executable, "-m", "mspeckv", "lab", "--folder", str(tmp_path / "labs"), "--no-browser",
        "--port", str(free_port()),
    ]  # fmt: skip
    with log.open("w") as sink:
        server = subprocess.Popen(
            command, env=settings(tmp_path), cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=sink,
            stderr=sink,
        )  # fmt: skip
    family = [psutil.Process(server.pid)]
    try:
        deadline = time.monotonic() + SOON
        while not (found := ADDRESS.search(log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        await_server(server, found[0], log)
        start_kernel(*found.groups())
        while not any(map(is_kernel, family[0].children(recursive=True))):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        family += family[0].children(recursive=True)
        server.send_signal(getattr(signal, name))
        server.wait(SOON)
        _, alive = psutil.wait_procs(family, SOON)
        assert not alive, log.read_text()
        if name != "SIGKILL":
            # it went in order: the kernel was told, and the note of the server is gone
            assert "shutting down 1 kernel" in log.read_text().lower()
            assert not list((tmp_path / "runtime").glob("jpserver-*"))
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        server.wait()
