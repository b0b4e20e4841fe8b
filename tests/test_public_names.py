"""The public names: all there, and the analysis folders loaded by those alone that ask for them."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

import mspeckv

ANALYSIS = ("benchmarks", *(f"mspeckv_study.{name}" for name in (
    "experiments", "probes", "profiling", "verification", "whatif")))  # fmt: skip
LOADED = f"""
import sys
import mspeckv
print([name for name in {ANALYSIS!r} if name in sys.modules])
mspeckv.what_if
print([name for name in {ANALYSIS!r} if name in sys.modules])
"""


def test_every_public_name_is_there() -> None:
    for name in mspeckv.__all__:
        assert getattr(mspeckv, name) is not None
    assert set(mspeckv.__all__) <= set(dir(mspeckv))


def test_a_name_that_is_not_there_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = mspeckv.magic
    with pytest.raises(ImportError, match="magic"):
        exec("from mspeckv import magic")


def test_a_name_that_is_to_go_warns_and_does_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    found = mspeckv.what_if
    monkeypatch.delattr(mspeckv, "what_if")
    monkeypatch.setitem(mspeckv._GOING, "what_if", "mspeckv.plan")
    with pytest.warns(FutureWarning, match=r"mspeckv\.what_if goes .* use mspeckv\.plan"):
        assert mspeckv.what_if is found
    # those that stay say nothing
    monkeypatch.delattr(mspeckv, "plan", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mspeckv.plan is not None


def test_decoding_loads_no_analysis() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    before, after = done.stdout.splitlines()
    assert before == "[]"
    # the cost model asks calibration what this machine can do
    assert after == "['mspeckv_study.profiling', 'mspeckv_study.whatif']"
