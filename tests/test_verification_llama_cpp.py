"""llama.cpp's own server under the judge, where `pip install xllamacpp` has put it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from mspeckv_study.verification import Trial, verify
from mspeckv_study.verification.endpoint import Endpoint
from mspeckv_study.verification.findings import Report
from tests.tiny_gguf import KINDS, tiny_model, write_gguf

xllamacpp = pytest.importorskip("xllamacpp")

PROMPT = [77, 105, 32, 110, 97, 101, 116, 32]
TRIAL = Trial(checks=("greedy", "sampled"), depth=1, samples=600, alpha=0.05, new_tokens=12)


@contextmanager
def served(model: PreTrainedModel, folder: Path) -> Iterator[str]:
    """The address of a server on a model, which is written into a file first."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    (file,) = write_gguf(folder / f"{port}.gguf", model, KINDS["llama"][0], 1)
    asked: Any = xllamacpp.CommonParams()
    asked.model.path, asked.port, asked.n_ctx, asked.n_parallel = str(file), port, 256, 1
    asked.cpuparams.n_threads = 1
    server = xllamacpp.Server(asked)
    yield str(server.listening_address)
    del server


def judged(model: PreTrainedModel, plain: PreTrainedModel, folder: Path) -> Report:
    """What is said of a server on ``model`` beside one on ``plain``."""
    with served(model, folder) as one, served(plain, folder) as two:
        return verify(Endpoint(one), Endpoint(two), {"ids": PROMPT}, TRIAL)


def test_a_server_beside_another_on_the_same_weights(tmp_path: Path) -> None:
    report = judged(tiny_model("llama"), tiny_model("llama"), tmp_path)
    assert report.verdict in ("lossless", "not enough samples"), report.to_text()


def test_a_server_on_coarser_weights_is_caught(tmp_path: Path) -> None:
    """Its head was rounded, as a quantized one is."""
    coarse = tiny_model("llama")
    with torch.no_grad():
        coarse.lm_head.weight.copy_((coarse.lm_head.weight * 2).round() / 2)
    report = judged(coarse, tiny_model("llama"), tmp_path)
    assert report.verdict == "fault", report.to_text()
