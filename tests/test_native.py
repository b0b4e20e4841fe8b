"""A source becomes a library once, whatever else happens to the compiler and the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from mspeckv.accelerate import native

ADD = 'extern "C" int add(int a, int b) { return a + b; }\n'
Make = Callable[[str], None]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, and a cache of its own."""
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    path = tmp_path / "add.cpp"
    path.write_text(ADD, encoding="utf-8")
    return path


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a shell script the compiler."""

    def make(script: str) -> None:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))

    return make


def build(source: Path) -> Any:
    """The library, as if nobody had asked for it yet."""
    return native.library.__wrapped__(source)  # type: ignore[attr-defined]


def works() -> bool:
    """Whether there is a compiler that takes the flags."""
    name = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    command = [name or "", *native.FLAGS, "-x", "c++", "-", "-o", os.devnull]
    return name is not None and not subprocess.run(command, input=b"", check=False).returncode


needs_compiler = pytest.mark.skipif(not works(), reason="no C++ compiler that takes the flags")


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "native").iterdir())


@needs_compiler
def test_a_source_is_compiled_once_and_anew_when_it_changes(source: Path, tmp_path: Path) -> None:
    assert build(source).add(2, 3) == 5
    (made,) = kept(tmp_path)
    stamp = made.stat().st_mtime_ns
    build(source)
    assert made.stat().st_mtime_ns == stamp
    source.write_text(ADD.replace("a + b", "a + b + 1"), encoding="utf-8")
    assert build(source).add(2, 3) == 6
    assert len(kept(tmp_path)) == 2


@needs_compiler
@pytest.mark.parametrize("damage", ["torn", "empty", "foreign", "text"])
def test_what_was_not_compiled_here_is_not_loaded(
    damage: str, source: Path, tmp_path: Path
) -> None:
    assert build(source).add(2, 3) == 5
    (made,) = kept(tmp_path)
    content = made.read_bytes()
    other = tmp_path / "other.cpp"
    other.write_text(ADD.replace("a + b", "a - b"), encoding="utf-8")
    build(other)
    (foreign,) = (path for path in kept(tmp_path) if path != made)
    damaged = {
        "torn": content[: len(content) // 3],
        "empty": b"",
        "foreign": foreign.read_bytes(),
        "text": b"no library",
    }
    # another file in its place: the one that is loaded stays as it is
    made.unlink()
    made.write_bytes(damaged[damage])
    assert build(source).add(2, 3) == 5
    assert made.read_bytes() == content


def test_without_a_compiler_or_with_a_broken_source_there_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert build(source) is None
    monkeypatch.delenv(native.SWITCH)
    for named in (str(tmp_path / "no-such-compiler"), str(tmp_path), "'"):
        monkeypatch.setenv("CXX", named)
        assert build(source) is None
    monkeypatch.delenv("CXX")
    source.write_text("int add(", encoding="utf-8")
    assert build(source) is None
    assert not list((tmp_path / "cache").rglob("*.so"))
    monkeypatch.setattr("mspeckv.accelerate.native.shutil.which", lambda _: None)
    assert build(source) is None


@needs_compiler
def test_the_compiler_may_be_named_with_options(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "c++ -O1")
    assert build(source).add(2, 3) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a shell script")
@pytest.mark.parametrize("when", ["asked", "compiling"])
def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    when: str, source: Path, compiler: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TIMEOUT_S", 2)  # it must have begun by then
    answers = 'case "$1" in --version) echo 1; exit;; esac' if when == "compiling" else ""
    # a compiler starts others, which hold on to what it prints to
    compiler(f"{answers}\nsleep 60 & echo $! > {tmp_path}/started\nwait")
    began = time.monotonic()
    assert build(source) is None
    assert time.monotonic() - began < 20
    started = int((tmp_path / "started").read_text())
    until = time.monotonic() + 10
    while alive(started) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(started)
    assert not list((tmp_path / "cache").rglob("*.*"))


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended may still be listed."""
    try:
        os.kill(process, 0)
        return ") Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a shell script")
@pytest.mark.parametrize("script", ["cat", "exit 1", "kill -9 $$", "echo made nothing"])
def test_a_compiler_that_does_something_else_is_none(
    script: str, source: Path, compiler: Make
) -> None:
    compiler(script)
    assert build(source) is None


def test_a_cache_that_cannot_be_written_is_no_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", "/proc/nobody", "~no-such-user"):
        monkeypatch.setenv("MSPECKV_CACHE", str(folder))
        assert build(source) is None


@needs_compiler
def test_threads_that_ask_at_once_get_one_library(source: Path, tmp_path: Path) -> None:
    together = threading.Barrier(8)
    asked = native.once(native.library.__wrapped__)  # type: ignore[attr-defined]

    def ask(_: int) -> Any:
        together.wait()
        return asked(source)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))
    assert found[0].add(2, 3) == 5
    assert len({id(one) for one in found}) == 1
    assert len(kept(tmp_path)) == 1


@needs_compiler
def test_processes_may_compile_at_once(source: Path, tmp_path: Path) -> None:
    asks = """if True:
        import sys
        from pathlib import Path
        from mspeckv.accelerate import native
        print("ready", flush=True)
        sys.stdin.readline()
        print(native.library(Path(sys.argv[1])).add(2, 3))
    """
    with subprocess.Popen(
        [sys.executable, "-c", asks, str(source)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
        assert build(source).add(2, 3) == 5
        assert other.stdout.readline() == "5\n"
    assert all(path.suffix == ".so" for path in kept(tmp_path))


def test_a_pointer_comes_with_what_lies_behind_it() -> None:
    whole = torch.zeros(10, 6)
    address, behind = native.pointer("part", whole[2:4], torch.float32, (2, 6))
    assert address == whole.data_ptr() + 2 * 6 * 4
    assert behind == 8 * 6


@pytest.mark.parametrize(
    "part",
    [
        torch.zeros(2, 3, dtype=torch.float64),
        torch.zeros(2, 3, device="meta"),
        torch.zeros(2, 3).to_sparse(),
        torch.zeros(3, 2),
        torch.zeros(6),
        torch.zeros(3, 2).t(),
        torch.zeros(1, 3).expand(2, 3),
        torch._neg_view(torch.zeros(2, 3)),
        torch.frombuffer(bytearray(25), dtype=torch.uint8)[1:].numpy().view("float32"),
    ],
    ids=["dtype", "device", "layout", "shape", "rank", "strides", "spread", "negated", "odd"],
)
def test_no_pointer_to_anything_else(part: Any) -> None:
    tensor = part if isinstance(part, torch.Tensor) else torch.from_numpy(part).view(2, 3)
    with pytest.raises(ValueError, match="part: "):
        native.pointer("part", tensor, torch.float32, (2, 3))
