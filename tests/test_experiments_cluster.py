"""Ablations on Dask workers: real processes, one of which is killed in the middle of a trial."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client, LocalCluster

from mspeckv import Link
from mspeckv_study.cli import main
from mspeckv_study.experiments import Models, Row, RowStore, cluster, load_rows, ordered, run
from tests.tiny_sweep import SLOW_GBPS, save_target, tiny, tiny_models, tiny_pair

SEEDS = (1, 2)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny target's folder."""
    return save_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes that each offer what one trial takes."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, resources={"trial": 1},
            dashboard_address=None, silence_logs=logging.CRITICAL,
        ) as local,
        Client(local, set_as_default=False) as connected,
    ):  # fmt: skip
        yield connected


def address(client: Client) -> str:
    return str(client.scheduler_info()["address"])


def all_keys() -> list[str]:
    return sorted(trial.key for trial in ordered(tiny(), tiny().cells(), SEEDS))


def tokens(rows: list[Row]) -> dict[str, tuple[int, ...]]:
    return {row.key: tuple(row.result["tokens"]) for row in rows if row.result}


def wait_for(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_workers_run_every_trial_once(client: Client, target: str, tmp_path: Path) -> None:
    told: list[str] = []
    rows = run(
        tiny(), seeds=SEEDS, out=tmp_path / "far", scheduler=address(client),
        models=tiny_models(target), on_row=lambda row: told.append(row.key),
    )  # fmt: skip
    assert sorted(told) == sorted(row.key for row in rows) == all_keys()
    assert all(row.ok for row in rows), [row.error for row in rows]
    assert len(RowStore(tmp_path / "far", "A2", "classroom").rows()) == 12
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = run(tiny(), seeds=SEEDS, out=tmp_path / "here", pair=tiny_pair(target))
    torch.set_num_threads(threads)
    assert tokens(rows) == tokens(here)


def test_a_killed_worker_loses_no_trial_and_doubles_none(
    client: Client, target: str, tmp_path: Path
) -> None:
    pids: dict[str, int] = client.run(os.getpid)
    killed: list[tuple[str, tuple[Any, ...]]] = []

    def kill_a_busy_worker(_: Row) -> None:
        if not killed:
            # of the workers with a trial under way, the first
            where, tasks = next((w, t) for w, t in client.processing().items() if t)
            os.kill(pids[where], signal.SIGKILL)
            killed.append((where, tuple(tasks)))

    rows = run(
        tiny(Link("custom", SLOW_GBPS)), seeds=SEEDS, out=tmp_path, scheduler=address(client),
        models=tiny_models(target), on_row=kill_a_busy_worker,
    )  # fmt: skip
    assert killed
    assert killed[0][1]
    assert sorted(row.key for row in rows) == all_keys()
    assert all(row.ok for row in rows), [row.error for row in rows]
    lines = RowStore(tmp_path, "A2", "classroom").rows()
    assert sorted(row.key for row in lines) == all_keys()
    assert not [path for path in (tmp_path / ".claims").iterdir() if not path.suffix]
    # its supervisor starts another one, which the next sweep may use
    wait_for(lambda: len(client.scheduler_info()["workers"]) == 2)
    assert set(client.run(os.getpid).values()) != set(pids.values())


def test_a_cancelled_sweep_stops_its_workers(client: Client, target: str, tmp_path: Path) -> None:
    cancel = threading.Event()
    # so slow that a trial would take half a minute
    rows = run(
        tiny(Link("custom", SLOW_GBPS / 50)), seeds=SEEDS, out=tmp_path,
        cells=tiny(Link("custom", SLOW_GBPS / 50)).cells(variants=["all-float", "triforce"]),
        scheduler=address(client), models=tiny_models(target),
        on_row=lambda _: cancel.set(), cancel=cancel,
    )  # fmt: skip
    assert {row.variant for row in rows} == {"all-float"}
    assert len(rows) == len(load_rows(tmp_path)) < 8
    wait_for(lambda: not any(client.processing().values()), 15)
    with RowStore(tmp_path, "A2", "classroom").claim(rows[0].key) as mine:
        assert mine


def test_what_a_trial_takes_of_a_worker(target: str) -> None:
    models = tiny_models(target)
    assert cluster.resources(models) == {"trial": 1}
    gpu = Models(target, device="cuda:0", dtype="float16")
    assert cluster.resources(gpu) == {"trial": 1, "GPU": 1}


def test_a_scheduler_that_cannot_help_is_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 1)
    nowhere = "tcp://127.0.0.1:9"
    assert main(["run", "A1", "--scheduler", nowhere, "--out", str(tmp_path)]) == 2
    assert f"scheduler: '{nowhere}' is not allowed; use the address" in capsys.readouterr().err
    with pytest.raises(ValueError, match="pair: .*workers load models themselves"):
        run(tiny(), out=tmp_path, scheduler=nowhere, pair=tiny_pair(target))
    # a worker that does not say that it takes trials is left alone
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as untagged,
        pytest.raises(ValueError, match="no worker for a trial; start one: dask worker .*trial=1"),
    ):  # fmt: skip
        run(tiny(), out=tmp_path, scheduler=untagged.scheduler_address, models=tiny_models(target))
    assert not list(tmp_path.glob("*.jsonl"))
