"""This machine's ceilings, measured in a few seconds and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import torch

from mspeckv.api import forget_measured
from mspeckv.models.kept import keep, recall
from mspeckv.models.load import parse_device
from mspeckv_study.measured import age

_KIND = "ceilings"
_COPY_BYTES = 1 << 27


@dataclass(frozen=True)
class Ceilings:
    """What a machine can do at most; all measured.

    Attributes:
        device: what was measured.
        torch: its version.
        to_device_gbps: host to device, pinned on a GPU, in 1e9 bytes/s; on a CPU a plain copy.
        to_host_gbps: the other way.
        memory_gbps: bytes read and written per second by a copy in device memory.
        matrix_gflops: 1e9 operations per second of a large float32 product.
        call_us: microseconds of a call that does almost nothing.
        measured_at: seconds since the epoch.
    """

    device: str
    torch: str
    to_device_gbps: float
    to_host_gbps: float
    memory_gbps: float
    matrix_gflops: float
    call_us: float
    measured_at: float

    def describe(self) -> str:
        """One line, with its age."""
        return (
            f"{self.device}: link {self.to_device_gbps:.1f} / {self.to_host_gbps:.1f} GB/s, memory "
            f"{self.memory_gbps:.1f} GB/s, {self.matrix_gflops:.0f} GFLOP/s, {self.call_us:.1f} us "
            f"per call (measured {age(max(0.0, time.time() - self.measured_at))} ago)"
        )


def calibrate(device: str = "cpu", *, again: bool = False) -> Ceilings:
    """Measure this machine's ceilings, or recall them.

    Takes a few seconds the first time; kept in the cache folder by device and torch version. A new
    calibration lets go of what else was measured here: the step by which an ``origin`` link is
    scaled, and the pass times of `mspeckv_study.whatif.this_machine`.

    Args:
        device: ``cpu`` or ``cuda``.
        again: measure even if there is a result.

    Raises:
        ValueError: no such device here.
    """
    where = parse_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    of = {"device": name, "torch": torch.__version__}
    known = None if again else recall(_KIND, of)
    if known is not None:
        with suppress(TypeError):
            return Ceilings(**known[0])
    found = _measure(where, name)
    keep(_KIND, of, asdict(found), found.measured_at)
    if again:
        forget_measured()
    return found


def _measure(device: torch.device, name: str) -> Ceilings:
    on_gpu = device.type == "cuda"
    host = torch.ones(_COPY_BYTES, dtype=torch.uint8, pin_memory=on_gpu)
    one = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    square = torch.ones(1024, 1024, dtype=torch.float32, device=device)
    small = torch.zeros(1, dtype=torch.float32, device=device)

    def seconds(work: Callable[[], object], repeats: int = 5) -> float:
        """The fastest of a few calls: whatever else runs can only slow one down."""
        work()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            if on_gpu:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.inference_mode():
        return Ceilings(
            device=name,
            torch=torch.__version__,
            to_device_gbps=_COPY_BYTES / seconds(lambda: other.copy_(host)) / 1e9,
            to_host_gbps=_COPY_BYTES / seconds(lambda: host.copy_(other)) / 1e9,
            memory_gbps=2 * _COPY_BYTES / seconds(lambda: other.copy_(one)) / 1e9,
            matrix_gflops=2 * 1024**3 / seconds(lambda: square @ square) / 1e9,
            call_us=seconds(lambda: small.add_(1), 200) * 1e6,
            measured_at=time.time(),
        )
