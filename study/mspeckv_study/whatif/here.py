"""This machine: its ceilings and a pair's pass times, kept in files."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import psutil
import torch

from mspeckv.api import chosen
from mspeckv.models.kept import MACHINE, keep, recall, subject
from mspeckv.models.pair import Pair
from mspeckv_study.profiling import calibrate
from mspeckv_study.whatif.machines import GRAPH_US, Hardware
from mspeckv_study.whatif.measure import measure


def this_machine(device: str = "cpu", pair: Pair | None = None, *, again: bool = False) -> Hardware:
    """This machine from `mspeckv.calibrate`; with ``pair`` also its measured pass times.

    Takes a few seconds the first time; with a pair up to ten more. Kept in files of the cache
    folder; those of a pair by its shapes, dtype, torch and threads.

    Args:
        device: ``cpu`` or ``cuda``.
        again: measure even if there is a file: the pair's passes, or without one the machine.

    Raises:
        ValueError: no such device here.
    """
    if pair is not None:
        kept = None if again else kept_machine(device, pair)
        if kept is None:
            kept = replace(measure(this_machine(device), pair), measured_at=time.time())
            keep(MACHINE, _subject(device, pair), asdict(kept), time.time())
        return kept
    found = calibrate(device, again=again)
    on_gpu = found.device != "cpu"
    total = psutil.virtual_memory().total
    if on_gpu:
        total = torch.cuda.get_device_properties(torch.device(device)).total_memory
    return Hardware(
        name="this",
        source=f"measured by mspeckv.calibrate, torch {found.torch}",
        kind="gpu" if on_gpu else "cpu",
        memory_gb=total / 1e9,
        memory_gbps=found.memory_gbps,
        matrix_gflops=found.matrix_gflops,
        link_gbps=found.to_device_gbps,
        launch_us=found.call_us,
        graph_us=GRAPH_US if on_gpu else None,
        dtype="float32",
        measured_at=found.measured_at,
    )


def kept_machine(device: str, pair: Pair) -> Hardware | None:
    """What `this_machine` found of a pair before, from its file; None if there is none."""
    known = recall(MACHINE, _subject(device, pair))
    if known is not None:
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            return Hardware.from_json(known[0])
    return None


def _subject(device: str, pair: Pair) -> dict[str, Any]:
    return {"device": device, **subject(pair, pair.models, chosen())}
