"""TensorBoard with torch-tb-profiler serves an exported profile."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mspeckv import KVPolicy, Sampling, profile
from mspeckv.accelerate.ordered_weights import PRODUCT
from tests.browser.lab_server import free_port
from tests.random_models import random_pair, random_prompt

PLUGIN = "data/plugin/pytorch_profiler"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_exported_folder_is_served(tmp_path: Path) -> None:
    taken = profile(
        random_pair(), random_prompt(100), new_tokens=12, overhead=False,
        policy=KVPolicy(8, on_chip=1, resident=1, block=16),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    folder, port = taken.export_tensorboard(tmp_path / "board"), free_port()
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", f"--port={port}",
               "--host=127.0.0.1"]  # fmt: skip
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}/{PLUGIN}"
            (run,) = ask(f"{address}/runs", server)["runs"]
            workers = ask(f"{address}/workers?run={run}&view=Overview", server)
            assert workers == ["mspeckv"]
            query = f"run={run}&worker=mspeckv&span=1"
            shown = ask(f"{address}/operation/table?{query}&group_by=Operation", server)
            operators = {row["name"] for row in shown["data"]}
            assert operators & {"aten::mm", "aten::addmm", PRODUCT}
            assert "tier2/verify" in json.dumps(ask(f"{address}/trace?{query}", server))
        finally:
            server.terminate()
            server.wait(30)


def ask(address: str, server: subprocess.Popen[bytes]) -> Any:
    """The answer in JSON, once there is one that is not empty: the plugin reads on a thread."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                body = answer.read()
            found = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
            if found and (isinstance(found, list) or found.get("runs", True)):
                return found
        except (urllib.error.URLError, OSError, ValueError):
            pass
        time.sleep(0.3)
    raise AssertionError(f"no answer from {address}")
