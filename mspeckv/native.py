"""C++ beside Python: a source compiled when first wanted, where there is a compiler.

Nothing needs it: without a compiler, or where ``MSPECKV_NATIVE=0`` is set, callers do without. What
was built is kept with the models (`mspeckv.fetch.cache_folder`), under a name made of everything it
depends on, so that one folder serves several machines.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from mspeckv.fetch import cache_folder

SWITCH = "MSPECKV_NATIVE"
"""Environment variable: 0 for no compiled code."""
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math",
    "-fPIC", "-shared",
)  # fmt: skip
_TIMEOUT_S = 120


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled ``source``; None where that is switched off or does not work."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if os.environ.get(SWITCH) == "0" or compiler is None:
        return None
    try:
        built = _built(source, compiler)
        # OpenMP's symbols are found in the library that torch has loaded: one pool of threads
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None


def _built(source: Path, compiler: str) -> Path:
    """Where the library is, compiled now unless it was before."""
    about = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=_TIMEOUT_S
    ).stdout
    made_of = [source.read_bytes(), about, " ".join(FLAGS).encode(), _processor().encode()]
    name = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    target = cache_folder() / "native" / f"{source.stem}-{name}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        subprocess.run(
            [compiler, *FLAGS, "-o", str(made), str(source)],
            capture_output=True, check=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
        # in one step: another process may be doing the same
        made.replace(target)
    return target


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])
