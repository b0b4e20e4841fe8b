"""The kernel under AddressSanitizer and UBSan, over buffers that end exactly where they must."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from mspeckv.accelerate import native
from mspeckv.accelerate.packed_attention import SOURCE

DRIVER = Path(__file__).with_name("sanitized_driver.cpp")
# optimised little: what a sanitizer is to see must not have been optimised away
FLAGS = (
    *(flag for flag in native.FLAGS if flag not in {"-O3", "-fPIC", "-shared"}),
    "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


@cache
def missing() -> str:
    """Why nothing can be built with sanitizers; empty where it can."""
    if not native._compiler():
        return "no C++ compiler"
    command = [*native._compiler(), *FLAGS, "-x", "c++", "-", "-o", os.devnull]
    tried = subprocess.run(
        command, input="int main() {}", capture_output=True, text=True, check=False
    )
    return tried.stderr.strip()[-300:] if tried.returncode else ""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel and what calls it, built with sanitizers."""
    if missing():
        pytest.skip(f"no sanitizers: {missing()}")
    out = tmp_path_factory.mktemp("sanitized") / "driver"
    named = f'-DSOURCE="{SOURCE}"'
    subprocess.run([*native._compiler(), *FLAGS, named, "-o", out, DRIVER], check=True)
    return out


def run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # what OpenMP keeps for its threads is no leak
    surroundings = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "4"}
    return subprocess.run(
        [driver, *arguments], env=surroundings, capture_output=True, text=True, check=False
    )


def test_shapes_of_every_kind_stay_in_bounds_and_others_are_refused(driver: Path) -> None:
    done = run(driver)
    assert done.returncode == 0, done.stderr[-3000:]
    ran, refused = (int(word) for word in done.stdout.split() if word.isdigit())
    assert ran >= 200
    assert refused > 1000


@pytest.mark.parametrize(
    ("fault", "said"),
    [("overrun", "heap-buffer-overflow"), ("misaligned", "misaligned address")],
)
def test_a_planted_fault_is_caught(driver: Path, fault: str, said: str) -> None:
    done = run(driver, fault)
    assert done.returncode != 0
    assert said in done.stderr
