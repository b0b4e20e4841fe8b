"""Would fixed lengths gain by what chosen ones do: rare passes in the shape of the longest.

    python -m benchmarks.shared_widths --out results/    # some 30 seconds on an H100

A pass of each width is a CUDA graph of its own, and capturing one takes as long as many replays.
Where lengths are chosen, a rare width goes by the graph of the widest (`Seat.longest`). Here runs
of fixed lengths do so too, and their first run (which captures) and later ones are timed beside
those of the engine as it is. The small pair, float16, all KV on the device, greedy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.report import machine, table
from benchmarks.workloads import KINDS, prompt_of
from mspeckv import KVPolicy, Sampling, Speculation, generate, load_pair
from mspeckv.accelerate.static_passes import StaticReader
from mspeckv.api import release
from mspeckv.decoding.reader import Seat

CONTEXT, TURNS = 4096, 3
GREEDY = Sampling(temperature=0, stop_at_eos=False)
WAYS = {
    "lookup 8": ("vanilla", "lookup"), "draft 8": ("vanilla", "draft"),
    "mspeckv 8/3": ("mspeckv", "draft"),
}  # fmt: skip


@contextmanager
def shared(guess: Speculation) -> Iterator[None]:
    """Inside, verifying passes of tiers 1 and 2 share widths, whatever their lengths."""
    longest = {1: guess.longest_draft_gamma + 1, 2: guess.longest_gamma + 1}
    begin = StaticReader.__init__

    def begin_shared(self: StaticReader, seat: Seat, runner: Any) -> None:
        own = seat if seat.step != "verify" else replace(seat, longest=longest[seat.tier])
        begin(self, own, runner)

    with patch.object(StaticReader, "__init__", begin_shared):
        yield


def main() -> None:
    """Print a table; write a line of JSON per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of shared_widths.jsonl")
    out = parser.parse_args().out
    print(machine(torch.device("cuda")), flush=True)
    pair = load_pair(device="cuda", dtype="float16")
    assert pair.tokenizer is not None
    cells = []
    for name, (method, tier0) in WAYS.items():
        guess = Speculation(gamma=8, draft_gamma=3, budget=1024, tier0=tier0)
        for kind in KINDS:
            prompt = prompt_of(kind, pair.tokenizer, CONTEXT)
            for tokens in (64, 512):
                row: dict[str, Any] = {"way": name, "prompt": kind, "tokens": tokens}
                for how in ("own", "shared"):
                    with shared(guess) if how == "shared" else nullcontext():
                        times = [
                            generate(
                                pair, prompt, method=method, new_tokens=tokens, speculation=guess,
                                policy=KVPolicy("full", on_chip=pair.layers), sampling=GREEDY,
                            ).ms_per_token
                            for _ in range(1 + TURNS)
                        ]  # fmt: skip
                    release(pair)
                    row |= {f"{how}_first": times[0], f"{how}_later": median(times[1:])}
                cells.append(list(row.values()))
                print(json.dumps(row), flush=True)
                if out is not None:
                    with (out / "shared_widths.jsonl").open("a", encoding="utf-8") as lines:
                        lines.write(f"{json.dumps(row)}\n")
    headers = ("way", "prompt", "tokens", "first run", "later", "shared, first run", "later")
    print(f"\nms per token (measured)\n{table(headers, cells)}")


if __name__ == "__main__":
    main()
