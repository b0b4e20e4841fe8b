"""Ranks that share a model end soon, whatever a run came to; on two GPUs where there are two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import build_llama
from tests.test_models import save, word_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "cuda" if torch.cuda.device_count() > 1 else "cpu"
SOON = 120
"""Seconds within which two processes start, decode and end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with as many tokens as its vocabulary."""
    words = word_tokenizer(" ".join(f"w{index}" for index in range(63)))
    return save(build_llama(heads=8, kv_heads=4), words, tmp_path_factory.mktemp("model"))


def end_of(folder: str, end: str) -> subprocess.CompletedProcess[str]:
    """Two ranks that come to this end; a rank that hangs is a time-out."""
    hidden = {} if DEVICE == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            # the launcher is slower than the ranks, or it would end them before they say why
            "--monitor-interval", "3", "-m", "tests.leaving_ranks", folder, DEVICE, end,
        ],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **hidden}, capture_output=True,
        text=True, check=False, timeout=SOON,
    )  # fmt: skip


# On a CPU no graph is captured, and a cancelled run ends as a finished one does.
@pytest.mark.parametrize("end", ["done", "cancelled"] if DEVICE == "cuda" else ["cancelled"])
def test_ranks_leave(folder: str, end: str) -> None:
    done = end_of(folder, end)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left") == 2


@pytest.mark.parametrize("end", ["failed", "lost"])
def test_a_rank_that_ends_alone_takes_the_others_along(folder: str, end: str) -> None:
    done = end_of(folder, end)
    assert done.returncode != 0
    assert "left" not in done.stdout
    assert ("on purpose" if end == "failed" else "SIGKILL") in done.stderr
    assert done.stderr.count("rank 1 has ended: rank 0 ends too") == 1
    # the launcher has one too
    assert done.stderr.count("Traceback (most recent call last)") == 1 + (end == "failed")
