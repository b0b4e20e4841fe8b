"""What `benchmarks.gpu` compares with: transformers' own ways to decode."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.report import table
from mspeckv import Pair
from mspeckv_study.documents import load_document

STATIC = "static cache, compiled"


def peers(pair: Pair, context: int) -> str:
    """Transformers' own ``generate``: by cache, compiled, by prompt lookup, by the same draft."""
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, context)
    ids = torch.tensor([prompt], device=pair.device)
    hqq = {"backend": "hqq", "nbits": 4, "axis_key": 1, "axis_value": 1}
    ways: dict[str, tuple[int, dict[str, Any]]] = {
        "dynamic cache": (24, {}),
        STATIC: (48, {"cache_implementation": "static"}),
        "prompt lookup": (48, {"prompt_lookup_num_tokens": 10}),
        "offloaded cache": (8, {"cache_implementation": "offloaded"}),
        "quantized cache, HQQ int4": (
            8, {"cache_implementation": "quantized", "cache_config": hqq},
        ),
        "assisted by the draft": (48, {"assistant_model": pair.draft}),
    }  # fmt: skip
    rows: list[Sequence[object]] = []
    # what a first call builds does not count
    short = ids[:, :256]
    pair.target.generate(
        short, attention_mask=torch.ones_like(short), do_sample=False, max_new_tokens=8
    )
    for name, (new_tokens, options) in ways.items():
        try:
            # of what is compiled for these very sizes, the second run counts
            for _ in range(2 if name == STATIC else 1):
                clock = _Clock()
                pair.target.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=-1,
                    max_new_tokens=new_tokens, streamer=clock, **options,
                )  # fmt: skip
        except (ImportError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            rows.append((name, str(error).splitlines()[0][:60], ""))
            continue
        finally:
            torch.cuda.empty_cache()
        spent, tokens = clock.times[-1] - clock.times[0], sum(clock.counts[1:])
        rows.append((name, spent / tokens * 1e3 if tokens else "all at once", tokens))
    headers = ("transformers generate", "ms/token", "tokens measured")
    return f"Peers at {context} tokens (measured)\n{table(headers, rows)}"


class _Clock:
    """A streamer that notes when how many tokens arrive; the prompt comes first."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._prompt:
            self._prompt = False
            return
        torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.counts.append(value.numel())

    def end(self) -> None:
        """Nothing to add."""
