"""C++ beside Python: a source compiled when first wanted, where there is a compiler.

A part of `mspeckv.accelerate.packed_attention`; saves nothing by itself.

Nothing needs it: without a compiler, or where ``MSPECKV_NATIVE=0`` is set, callers do without. What
was built is kept with the models (`mspeckv.models.download.cache_folder`), under a name made of
everything it depends on, so that one folder serves several machines, and of its own bytes, so that
what was torn or exchanged is not loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from mspeckv.models.download import cache_folder
from mspeckv.settings import refuse

SWITCH = "MSPECKV_NATIVE"
"""Environment variable: 0 for no compiled code."""
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math",
    "-fPIC", "-shared",
)  # fmt: skip
_TIMEOUT_S = 120

P = ParamSpec("P")
R = TypeVar("R")


def once(function: Callable[P, R]) -> Callable[P, R]:
    """`functools.cache`, but threads that ask at the same time wait for one answer."""
    kept, asking = cache(function), threading.RLock()

    @wraps(function)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        with asking:
            return kept(*args, **kwargs)  # type: ignore[arg-type]  # what is asked is hashable

    return answer


def pointer(
    name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...], apart: bool = False
) -> tuple[int, int]:
    """The address that C++ may use for ``tensor``, and how many elements its storage has from it.

    Args:
        name: of the tensor, for the complaint.
        dtype: what C++ takes its elements for.
        shape: what C++ takes its shape for.
        apart: C++ is told the strides of all axes but the last two, which alone must be contiguous.

    Raises:
        ValueError: the tensor is something else, or not in a CPU's memory.
    """
    if tensor.dtype != dtype or not tensor.is_cpu or tensor.layout != torch.strided:
        found = f"{tensor.dtype} on {tensor.device}, {tensor.layout}"
        raise refuse(name, found, f"use {dtype} on cpu, {torch.strided}")
    if tensor.shape != shape:
        raise refuse(name, list(tensor.shape), f"use the shape {list(shape)}")
    dense = tensor.is_contiguous() or (apart and tensor.stride()[-2:] == (shape[-1], 1))
    if not dense or tensor.is_neg():
        raise refuse(name, f"strides {tensor.stride()}", "use a contiguous tensor")
    address, size = tensor.data_ptr(), dtype.itemsize
    if address % size or (tensor.numel() and not address):
        raise refuse(name, f"address {address}", f"use memory aligned to {size} bytes")
    return address, int(tensor.untyped_storage().nbytes() // size - tensor.storage_offset())


@once
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled ``source``; None where that is switched off or does not work."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        compiler = _compiler()
        # OpenMP's symbols are found in the library that torch has loaded: one pool of threads
        return ctypes.CDLL(str(_built(source, compiler))) if compiler else None
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError):
        return None


def _compiler() -> list[str]:
    """The command that compiles, from ``CXX`` in the environment or by its usual names."""
    named = shlex.split(os.environ.get("CXX", ""))
    return named or [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]


def _built(source: Path, compiler: list[str]) -> Path:
    """Where the library is, compiled now unless it was before."""
    about = _said([*compiler, "--version"])
    code = source.read_bytes()
    made_of = [code, about, " ".join(FLAGS).encode(), _processor().encode()]
    folder = cache_folder() / "native"
    key = _digest(b"\0".join(made_of))
    stem = f"{source.stem}-{key}"
    for there in folder.glob(f"{stem}-*.so"):
        if there.stem == f"{stem}-{_digest(there.read_bytes())}":
            return there
        with suppress(OSError):
            there.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        # compiled from what the name was made of, whatever becomes of the source meanwhile
        copied, made = Path(inside) / source.name, Path(inside) / "made.so"
        copied.write_bytes(code)
        _said([*compiler, *FLAGS, "-o", str(made), str(copied)])
        # in one step: another process may be doing the same
        return made.replace(folder / f"{stem}-{_digest(made.read_bytes())}.so")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _said(command: list[str]) -> bytes:
    """What a command prints.

    Raises:
        OSError: it cannot be started.
        SubprocessError: it fails, or takes too long; it is then ended with all that it started,
            which else would keep what it prints to, and us, waiting.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:  # fmt: skip
        try:
            printed, _ = running.communicate(timeout=_TIMEOUT_S)
        except BaseException:
            if sys.platform == "win32":
                running.kill()
            else:
                os.killpg(running.pid, signal.SIGKILL)
            raise
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return printed


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])
