"""Records what a planner of lengths is judged by without a GPU: pass times, and who would agree.

    python -m benchmarks.lengths_record --device cuda --out rounds.json

For every placement: how long passes of each tier take, by their width, with what comes after them
until the next one; and along decoded texts, with which chance each tier keeps another's guess.
`tests/planner_simulator.py` plays rounds with them.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_cases import DRAWN, GREEDY
from benchmarks.gpu_lengths_grid import GUESS, grid_pair, placements, text_of
from benchmarks.report import machine
from benchmarks.rewound import Rewound, Turn, Way
from mspeckv import Pair, Sampling
from mspeckv.api import release
from mspeckv.decoding.sampling import Sampler

STRIDE = 8


def times_of(turn: Turn) -> list[list[list[float]]]:
    """By round: [tier, tokens, ms of the pass, ms until the next begins, whether it built]."""
    out = []
    for begun, ended, passes, _ in turn.rounds:
        starts = [one.start for one in passes[1:]] + [ended]
        rows = [[-1, 0, 0, round((passes[0].start - begun) * 1e3, 3), 0]]
        for one, following in zip(passes, starts, strict=True):
            whole = (following - one.start) * 1e3
            rows.append([one.tier, one.tokens, round(one.ms, 3), round(whole, 3), int(one.builds)])
        out.append(rows)
    return out


@torch.inference_mode()
def agreement(cell: Rewound, way: Way, tokens: list[int], sampling: Sampling) -> list[list[float]]:
    """For each of ``tokens``: chance that 1 keeps 0's, 2 keeps 0's, 2 keeps 1's; held by tier 0."""
    cell.rewind()
    cell.full.begin_pass()
    draft, middle, top = cell.readers[way]
    sampler = Sampler(sampling)
    text, rows = list(cell.prompt), []
    for start in range(0, len(tokens) - STRIDE + 1, STRIDE):
        text_ahead = text + tokens[start : start + STRIDE - 1]
        count = min(STRIDE, top.room(len(text)) + 1)
        text_ahead = text + tokens[start : start + count - 1]
        logits = [reader.read(text_ahead, count) for reader in (draft, middle, top)]
        for reader in (draft, middle, top):
            reader.settle(len(text_ahead))
        p0, p1, p2 = (sampler.distribution(one.clone(), text_ahead) for one in logits)
        if sampling.greedy:
            p0, p1, p2 = ((p > 0).float() for p in (p0, p1, p2))
        kept = [torch.minimum(a, b).sum(-1) for a, b in ((p0, p1), (p0, p2), (p1, p2))]
        held = logits[0].float().softmax(-1).max(-1).values
        rows += [[round(v, 3) for v in row] for row in torch.stack([*kept, held], 1).tolist()]
        text += tokens[start : start + count]
        cell.full.begin_pass()
    return rows


def main() -> None:
    """Write one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--contexts", type=int, nargs="+", default=[16384, 32768])
    parser.add_argument("--new-tokens", type=int, default=112)
    parser.add_argument("--placements", type=int)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--budget-seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    deadline = time.monotonic() + options.budget_seconds
    out: dict[str, Any] = {"machine": machine(torch.device(options.device)), "cells": []}
    pair = grid_pair(options.device, max(options.contexts), options.tiny)
    print("pair", time.monotonic() - deadline + options.budget_seconds, flush=True)
    for context in options.contexts:
        # the further ones are of the same kinds
        for name, policy in list(placements(pair.layers).items())[: options.placements]:
            if time.monotonic() > deadline:
                print("out of time before", context, name, flush=True)
                break
            record(pair, context, name, policy, options, out)
            options.out.write_text(json.dumps(out))


def record(pair: Pair, context: int, name: str, policy: Any, options: Any, out: Any) -> None:
    """One placement's cell, with agreement where it says something new."""
    ways: list[Way] = [(2, 2), (8, 3), (24, 3), "auto"]
    told = name in ("int8, 16 + 16", "nibble, 0 + 0")
    for text in ("prose", "code") if told else ("prose",):
        begun = time.perf_counter()
        prompt = text_of(pair, text, context)
        guess = replace(GUESS, tier1="nibble") if policy.nibble else GUESS
        if options.tiny:
            guess = replace(guess, budget=96)
        cell: dict[str, Any] = {"context": context, "kv": name, "text": text, "turns": []}
        with Rewound(pair, prompt, policy, guess, ways, options.new_tokens) as bench:
            cell["prefill_s"] = bench.prefill_seconds
            asked: list[tuple[Way, Sampling, int]] = [
                ((2, 2), GREEDY, 30), ((24, 3), GREEDY, 64), ((8, 3), GREEDY, 64),
                ((8, 3), DRAWN, 40), ("auto", GREEDY, 64), ("auto", GREEDY, 64),
            ]  # fmt: skip
            for way, sampling, count in asked if text == "prose" else ():
                turn = bench.turn(way, sampling, min(count, options.new_tokens))
                cell["turns"].append({
                    "way": way, "greedy": sampling.greedy,
                    "ms": turn.ms, "plans": turn.plans, "times": times_of(turn),
                    "guesses": [[[g.tier, g.verifier, len(g.tokens), g.accepted]
                                 for g in one[3]] for one in turn.rounds],
                })  # fmt: skip
                print(context, name, way, sampling.greedy, round(turn.ms, 2), flush=True)
            if told:
                for sampling in (GREEDY, DRAWN):
                    tokens = bench.turn((8, 3), sampling).tokens
                    kept = agreement(bench, (8, 3), tokens, sampling)
                    cell["greedy" if sampling.greedy else "drawn"] = kept
        out["cells"].append(cell)
        release(pair)
        gc.collect()
        print(context, name, text, f"{time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
