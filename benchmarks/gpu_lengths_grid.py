"""Chosen lengths beside fixed ones over contexts, placements, texts and temperatures, on a GPU.

    python -m benchmarks.gpu_lengths_grid --out results/ --budget-seconds 300
    python -m benchmarks.gpu_lengths_grid --out results/ --report

The target has a Llama-2-7B's cost, and SmolLM2-135M's acceptance (`benchmarks.inflate`). The ways
of a cell take turns, three each, from the same caches (`benchmarks.rewound`); the median counts, so
that of the first turns, which capture graphs and measure costs, one at most matters.

A line of JSON per turn goes to ``--out``. Cells that are whole there are not run again, so that a
run which ended for want of time goes on where it was; the first cells are one text at 16 k and
32 k, every placement, greedy and drawn.
"""

from __future__ import annotations

import _pydecimal
import argparse
import gc
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch

from benchmarks.gpu import make_pair
from benchmarks.gpu_cases import DRAWN, GREEDY
from benchmarks.report import machine, table
from benchmarks.rewound import Rewound, Way
from mspeckv import KVPolicy, Pair, Speculation
from mspeckv.api import release
from mspeckv.testing import tiny_pair, tiny_prompt
from mspeckv_study.documents import load_document

WAYS: list[Way] = [(2, 2), (4, 3), (8, 3), (16, 3), (24, 3), "auto"]
GUESS = Speculation(budget=4096, refresh=0)
TURNS = 3
TEXTS = {"prose": "python-reference", "code": _pydecimal.__file__}
Cell = tuple[int, str, str]
"""Context, placement, text."""


def placements(layers: int) -> dict[str, KVPolicy]:
    """Where tier 2's KV lies: the names are of 32 layers."""
    quarter, half = layers // 4, layers // 2
    return {
        "int8, 0 + 0": KVPolicy(8),
        "int8, 16 + 16": KVPolicy(8, on_chip=half, resident=layers - half),
        "nibble, 0 + 0": KVPolicy(8, nibble=True),
        "int4, 0 + 0": KVPolicy(4),
        "int8, 8 + 8": KVPolicy(8, on_chip=quarter, resident=quarter),
        "full, 16 + 0": KVPolicy("full", on_chip=half),
    }


def cells() -> Iterator[Cell]:
    """All, the most telling first."""
    for text in TEXTS:
        for context in (16384, 32768, 8192):
            for name in placements(32):
                yield context, name, text


def grid_pair(device: str, longest: int, tiny: bool = False) -> Pair:
    """Who decodes."""
    return tiny_pair(layers=4) if tiny else make_pair(longest + 2048)


def text_of(pair: Pair, text: str, context: int) -> list[int]:
    """A prompt of exactly so many tokens."""
    if pair.tokenizer is None:
        return tiny_prompt(context, seed=len(text))
    return load_document(TEXTS[text], pair.tokenizer, context)


def measure(
    pair: Pair, cell: Cell, drawn: list[bool], new_tokens: int, ways: list[Way]
) -> Iterator[dict[str, Any]]:
    """Every turn of a cell, the ways in between one another."""
    context, name, text = cell
    policy = placements(pair.layers)[name]
    guess = replace(GUESS, tier1="nibble" if policy.nibble else GUESS.tier1)
    if pair.tokenizer is None:
        guess = replace(guess, budget=96)
    with Rewound(pair, text_of(pair, text, context), policy, guess, ways, new_tokens) as bench:
        for sampled in drawn:
            for turn in range(TURNS):
                sampling = replace(DRAWN, seed=1 + turn) if sampled else GREEDY
                for way in ways:
                    found = bench.turn(way, sampling)
                    passes = [one for taken in found.rounds for one in taken[2]]
                    yield {
                        "context": context, "kv": name, "text": text, "drawn": sampled,
                        "turn": turn, "way": way_name(way), "ms": round(found.ms, 3),
                        "tokens": new_tokens, "rounds": len(found.rounds),
                        "passes": [sum(one.tier == tier for one in passes) for tier in range(3)],
                    }  # fmt: skip
    release(pair)
    gc.collect()


def way_name(way: Way) -> str:
    """Such as ``8/3``."""
    return way if isinstance(way, str) else "/".join(map(str, way))


def report(rows: list[dict[str, Any]]) -> str:
    """The median turn of every way, and chosen lengths beside fixed ones."""
    ran = {row["way"] for row in rows}
    names = [way_name(way) for way in WAYS if way_name(way) in ran]
    turns: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        drawn = "T 0.6" if row["drawn"] else "greedy"
        turns[row["context"], row["kv"], row["text"], drawn][row["way"]].append(row["ms"])
    whole = {
        cell: {name: median(found[name]) for name in names}
        for cell, found in turns.items()
        if all(len(found[name]) >= TURNS for name in names)
    }
    if not whole:
        return "no cell is whole"
    lines = [(*cell, *ms.values(), of_the_best(ms)) for cell, ms in whole.items()]
    headers = ("context", "KV", "text", "draws", *names, "best fixed / auto")
    title = "Milliseconds per token, the median of three turns (measured)"
    return "\n".join([title, table(headers, lines), *shares(whole)])


Key = tuple[Any, ...]
"""Context, placement, text, draws."""


def of_the_best(ms: dict[str, float]) -> float:
    """Speed of chosen lengths over that of the luckiest fixed ones, chosen afterwards."""
    return min(taken for name, taken in ms.items() if name != "auto") / ms["auto"]


def shares(whole: dict[Key, dict[str, float]]) -> Iterator[str]:
    """Chosen lengths beside the luckiest fixed ones, and beside those that another text names."""
    yield share("beside the best fixed of each cell", [of_the_best(ms) for ms in whole.values()])
    others = []
    for (context, kv, text, drawn), ms in whole.items():
        for other in TEXTS:
            named = whole.get((context, kv, other, drawn))
            if named is not None and other != text:
                best = min((name for name in named if name != "auto"), key=named.__getitem__)
                others.append(ms[best] / ms["auto"])
    if others:
        yield share("beside the fixed way that is best for the other text", others)


def share(title: str, ratios: list[float]) -> str:
    """How ratios are spread, in a line."""
    least = sum(ratio < 0.97 for ratio in ratios)
    return (
        f"{title}: geometric mean {geometric_mean(ratios):.3f}, least {min(ratios):.3f}, "
        f"{least} of {len(ratios)} cells under 0.97"
    )


def commit() -> str:
    """What is measured."""
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Measure what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of lengths-grid.jsonl")
    parser.add_argument("--report", action="store_true", help="only print the table")
    parser.add_argument("--budget-seconds", type=float, default=3600, help="begin no cell after")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--ways", nargs="+", help="such as 8/3 auto; default: all")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="cells with one of these: '16384 int8'"
    )
    parser.add_argument("--commit", default=commit(), help="noted with the machine")
    parser.add_argument("--tiny", action="store_true", help="a random pair on the CPU: a rehearsal")
    options = parser.parse_args()
    deadline = time.monotonic() + options.budget_seconds
    file = options.out / "lengths-grid.jsonl"
    rows: list[dict[str, Any]] = []
    if file.exists():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    heads = [row["machine"] for row in rows if "machine" in row]
    rows = [row for row in rows if "machine" not in row]
    if not options.report:
        device = torch.device("cpu" if options.tiny else "cuda")
        heads.append(f"{machine(device)}, commit {options.commit}")
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{json.dumps({'machine': heads[-1]})}\n")
            run(options, rows, deadline, lines)
    print("\n".join(dict.fromkeys(heads)), report(rows), sep="\n\n")


def run(options: argparse.Namespace, rows: list[dict[str, Any]], deadline: float, out: Any) -> None:
    """Every cell that is not whole yet, until there is no time left."""
    ways = [way for way in WAYS if options.ways is None or way_name(way) in options.ways]
    pair = grid_pair("cuda", 32768, options.tiny)
    wanted = cells() if not options.tiny else iter([(192, name, "prose") for name in placements(4)])
    for cell in wanted:
        if not any(part in " ".join(map(str, cell)) for part in options.only):
            continue
        missing = []
        for sampled in (False, True):
            own = [
                r
                for r in rows
                if (r["context"], r["kv"], r["text"], r["drawn"]) == (*cell, sampled)
            ]
            if len(own) < TURNS * len(ways):
                rows[:] = [row for row in rows if row not in own]
                missing.append(sampled)
        if missing and time.monotonic() > deadline:
            print("out of time before", *cell, flush=True)
            return
        begun = time.monotonic()
        for row in measure(pair, cell, missing, options.new_tokens, ways) if missing else ():
            rows.append(row)
            out.write(f"{json.dumps(row)}\n")
            out.flush()
        print(*cell, f"{time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
