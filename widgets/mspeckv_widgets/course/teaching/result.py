"""A student's result file: progress and leaderboard, signed with the key that the teacher gave out.

The signature is an HMAC with SHA-256 over the rest of the file. It shows that nothing was changed
since somebody with the key wrote it: by accident, or on the way. It does not show who wrote it, nor
that the work was done, since every student has the key. `merge --recompute` judges answers anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse
from mspeckv_study.cli.system import check_writable
from mspeckv_widgets.course.leaderboard import FILE_NAME as LEADERBOARD
from mspeckv_widgets.course.leaderboard import FOLDER_VARIABLE as BOARD_VARIABLE
from mspeckv_widgets.course.leaderboard import student_name
from mspeckv_widgets.course.progress import FILE_NAME, FOLDER_VARIABLE

KEY_VARIABLE = "MSPECKV_COURSE_KEY"
"""Environment variable that holds the key itself."""
FORMAT, VERSION = "mspeckv-result", 1
_PACKAGES = ("mspeckv", "torch", "transformers")


@dataclass(frozen=True)
class Result:
    """A result file as it was read.

    Attributes:
        path: the file.
        student: whose it is, by their own word.
        made: when it was written, in UTC.
        labs: progress by lab: ``predictions`` and ``exercises`` by their ids.
        leaderboard: entries, as the leaderboard file has them.
        signature: ``good``, ``bad``, ``unsigned``, or ``not checked`` where there is no key.
    """

    path: Path
    student: str
    made: str
    labs: dict[str, Any]
    leaderboard: list[dict[str, Any]]
    signature: str


def submit(student: str | None = None) -> Path:
    """Write the result file beside the notebook; returns its path.

    Args:
        student: your name; default: the name you are logged in under.
    """
    path, signed = write_result(student, None, None, None)
    print(f"{path}: hand this file in. {'Signed.' if signed else 'Not signed: there is no key.'}")
    return path


def write_result(
    student: str | None,
    folder: str | Path | None,
    out: str | Path | None,
    key: str | Path | None,
) -> tuple[Path, bool]:
    """Write a result file; returns its path, and whether it is signed.

    Args:
        student: default: what ``MSPECKV_STUDENT`` holds, else the hub's name, else the login.
        folder: of the progress file; default: what ``MSPECKV_PROGRESS`` names, else here, else
            ``labs`` here.
        out: default: ``mspeckv-result-NAME.json`` here.
        key: a file; default: what ``MSPECKV_COURSE_KEY`` holds, if anything.

    Raises:
        ValueError: there is no progress, or a file that cannot be read or written.
    """
    known = student_name()
    name = student or known
    home, secret = _progress_folder(folder), read_key(key)
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "student": name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_installed()},
        "progress": _read_json(home / FILE_NAME).get("labs", {}),
        "leaderboard": _entries(home, {name, known}),
    }
    default = f"mspeckv-result-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.json"
    path = Path(out or default).expanduser()
    check_writable("out", path)
    signed = {**body, "signature": None if secret is None else signature_of(body, secret)}
    path.write_text(json.dumps(signed, indent=1) + "\n", encoding="utf-8")
    return path, secret is not None


def read_result(path: str | Path, key: bytes | None) -> Result:
    """Read a result file and judge its signature.

    Raises:
        ValueError: it is no result file.
    """
    where = Path(path).expanduser()
    body = _read_json(where)
    if body.get("format") != FORMAT or body.get("version") != VERSION:
        raise refuse("file", str(path), f"use a file of the format {FORMAT} {VERSION}")
    claimed = body.pop("signature", None)
    try:
        student, made = (_printable(body[name]) for name in ("student", "made"))
        labs = dict(body["progress"])
        board = [dict(entry) for entry in body["leaderboard"]]
        for lab in labs.values():
            for guess in dict(lab["predictions"]).values():
                dict(guess)
            for one in lab["exercises"].values():
                bool(one["passed"]), int(one.get("hints", 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise refuse("file", str(path), f"it is damaged ({type(error).__name__})") from None
    return Result(where, student, made, labs, board, _judge(body, claimed, key))


def read_key(path: str | Path | None) -> bytes | None:
    """The key: a file's text, else the environment variable's, without white space at its ends.

    Raises:
        ValueError: a file that cannot be read, or an empty key.
    """
    if path is None:
        return os.environ.get(KEY_VARIABLE, "").strip().encode() or None
    try:
        key = Path(path).expanduser().read_bytes().strip()
    except OSError as error:
        raise refuse("key", str(path), f"use a file with the key ({error.strerror})") from error
    if not key:
        raise refuse("key", str(path), "use a file that is not empty")
    return key


def signature_of(body: dict[str, Any], key: bytes) -> str:
    """HMAC-SHA256 of the body, in hexadecimal; spaces and the order of keys do not matter."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _judge(body: dict[str, Any], claimed: Any, key: bytes | None) -> str:
    if claimed is None:
        return "unsigned"
    if key is None:
        return "not checked"
    right = signature_of(body, key)
    return "good" if hmac.compare_digest(right.encode(), _printable(claimed).encode()) else "bad"


def _printable(text: Any) -> str:
    """A text without what no file can hold: halves of characters."""
    return str(text).encode("utf-8", "replace").decode()


def _progress_folder(folder: str | Path | None) -> Path:
    if folder is not None:
        places = [Path(folder).expanduser()]
    elif FOLDER_VARIABLE in os.environ:
        places = [Path(os.environ[FOLDER_VARIABLE]).expanduser()]
    else:
        places = [Path.cwd(), Path.cwd() / "labs"]
    found = next((place for place in places if (place / FILE_NAME).is_file()), None)
    if found is None:
        raise refuse("folder", str(places[0]), f"use the folder of the labs: {FILE_NAME} is there")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refuse("file", str(path), f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        raise refuse("file", str(path), "it is damaged: not JSON") from None
    if not isinstance(found, dict):
        raise refuse("file", str(path), "it is damaged: not an object")
    return found


def _entries(home: Path, names: set[str]) -> list[dict[str, Any]]:
    """A student's entries of the leaderboard; none where there is no such file yet."""
    shared = os.environ.get(BOARD_VARIABLE)
    path = (Path(shared).expanduser() if shared else home) / LEADERBOARD
    if not path.is_file():
        return []
    found = _read_json(path).get("entries", [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise refuse("file", str(path), "it is damaged: its entries are none")
    return [entry for entry in found if not shared or entry.get("student") in names]


def _installed() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
