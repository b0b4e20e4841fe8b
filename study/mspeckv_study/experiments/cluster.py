"""A sweep on Dask workers: each runs one trial at a time, and the driver alone writes rows.

A worker offers what a trial takes as resource tags, so that Dask gives it one at a time::

    dask worker tcp://... --nthreads 1 --resources trial=1            # a machine's cores
    dask worker tcp://... --nthreads 1 --resources "trial=1 GPU=1"    # one GPU

A worker that is lost loses the trial it was at: Dask gives it to another one. Rows come from
results, of which a trial has one however often it was begun. Needs the extra ``cluster``.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mspeckv.api import engine_of
from mspeckv.settings import refuse
from mspeckv_study.experiments.ablations import Experiment, Trial
from mspeckv_study.experiments.bench import Models, bench_of, failed_row
from mspeckv_study.experiments.rows import Row, Setup, agree
from mspeckv_study.experiments.schedule import POLL_SECONDS, Sweep

WAIT_SECONDS = 60
"""How long a scheduler may take to answer, and then to have a worker."""
_AHEAD = 2
"""Trials given to Dask per worker, so that none waits for the driver."""


def run_on(scheduler: str, sweep: Sweep, chosen: Experiment, models: Models, out: Path) -> None:
    """Run a sweep's missing trials on the workers of ``scheduler``.

    Raises:
        ValueError: no scheduler there, no worker that offers what a trial takes, models that a
            worker cannot load, or that the experiment or the folder is not for.
        ModelMissing: the default target is absent on a worker and cannot be fetched there.
    """
    with _connected(scheduler) as client:
        takes = resources(models)
        _check_workers(client, scheduler, takes)

        def describe(step_seconds: float | None) -> Setup:
            task = setup_on_worker, models, chosen, step_seconds
            found: Setup = client.submit(*task, pure=False, resources=takes).result()
            return found

        setup = agree(out, chosen.preset.name, describe)
        _Driver(client, sweep, models, setup, takes).run()


def resources(models: Models) -> dict[str, int]:
    """The tags that a trial takes of a worker."""
    return {"trial": 1, **({"GPU": 1} if models.device.startswith("cuda") else {})}


def setup_on_worker(models: Models, chosen: Experiment, step_seconds: float | None) -> Setup:
    """`Bench.setup`, on the worker that runs this; refuses an experiment for other models."""
    bench = bench_of(models)
    bench.check(chosen)
    return bench.setup(chosen.preset, step_seconds)


def trial_on_worker(
    models: Models, step_seconds: float | None, trial: Trial, stop: str
) -> Row | None:
    """`Bench.run`, on the worker that runs this; ends when the event called ``stop`` is set."""
    from distributed import Event, get_client

    bench, cancel, over = bench_of(models), threading.Event(), threading.Event()
    engine_of(bench.pair).step_seconds = step_seconds
    # here, since only a task's own thread finds its worker's client
    asked = Event(stop, client=get_client())

    def watch() -> None:
        while not over.wait(POLL_SECONDS) and not cancel.is_set():
            if asked.is_set():
                cancel.set()

    watcher = threading.Thread(target=watch, name="mspeckv-stop", daemon=True)
    watcher.start()
    try:
        return bench.run(trial, cancel)
    finally:
        over.set()
        watcher.join()


class _Driver:
    """Keeps the workers of ``client`` busy with a sweep, and puts what comes back on disk."""

    def __init__(
        self, client: Any, sweep: Sweep, models: Models, setup: Setup, takes: dict[str, int]
    ) -> None:
        from distributed import Event

        self.client, self.sweep, self.models, self.setup = client, sweep, models, setup
        self.takes = takes
        self._stop = Event(f"mspeckv-stop-{uuid.uuid4().hex}", client=client)
        self._given: dict[Any, tuple[Trial, ExitStack]] = {}

    def run(self) -> None:
        """Until nothing is missing or the sweep is cancelled; claims are given back."""
        try:
            while not self.sweep.cancel.is_set():
                self._give()
                if not self._given and not self.sweep.missing():
                    return
                self._take()
        finally:
            for _, claim in self._given.values():
                claim.close()
            self.client.cancel(list(self._given))
            self._stop.set()

    def _give(self) -> None:
        """Give trials to Dask that nobody has claimed, a few more than there are workers."""
        workers = len(_offering(self.client, self.takes))
        given = {trial.key for trial, _ in self._given.values()}
        for trial in self.sweep.missing():
            if len(self._given) >= max(1, workers) * _AHEAD:
                return
            if trial.key in given:
                continue
            with ExitStack() as claim:
                mine = claim.enter_context(self.sweep.store.claim(trial.key))
                if mine and self.sweep.is_missing(trial):
                    future = self.client.submit(
                        trial_on_worker, self.models, self.setup.step_seconds, trial,
                        self._stop.name, pure=False, resources=self.takes,
                    )  # fmt: skip
                    self._given[future] = trial, claim.pop_all()

    def _take(self) -> None:
        """Wait a moment for results, and settle those that there are."""
        from distributed import wait

        if not self._given:
            # the rest is claimed by other runners
            self.sweep.cancel.wait(POLL_SECONDS)
            self.sweep.tell_news()
            return
        try:
            done = wait(list(self._given), POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return
        for future in done:
            trial, claim = self._given.pop(future)
            with claim:
                if future.status == "error":  # every worker that tried was lost
                    row = failed_row(trial, future.exception(), self.setup.hardware)
                else:
                    row = future.result()
                if row is not None:
                    self.sweep.settle(row)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A client; refused where Dask is not installed, or no scheduler answers."""
    try:
        from distributed import Client
    except ImportError as error:
        allowed = "install it: pip install 'mspeckv[cluster]'"
        raise refuse("scheduler", scheduler, allowed) from error
    try:
        client = Client(scheduler, timeout=WAIT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        allowed = f"use the address of a running Dask scheduler ({reason})"
        raise refuse("scheduler", scheduler, allowed) from error
    with client, client.as_current():
        yield client


def _offering(client: Any, takes: dict[str, int]) -> list[dict[str, Any]]:
    """The workers that a trial can run on."""
    return [
        worker
        for worker in client.scheduler_info()["workers"].values()
        if all(worker["resources"].get(tag, 0) >= count for tag, count in takes.items())
    ]


def _check_workers(client: Any, scheduler: str, takes: dict[str, int]) -> None:
    """Wait for a worker; refused where none offers what a trial takes."""
    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
        there = bool(_offering(client, takes))
    except TimeoutError:
        there = False
    if not there:
        tags = " ".join(f"{tag}={count}" for tag, count in takes.items())
        start = f'dask worker {scheduler} --nthreads 1 --resources "{tags}"'
        raise refuse("scheduler", scheduler, f"it has no worker for a trial; start one: {start}")
