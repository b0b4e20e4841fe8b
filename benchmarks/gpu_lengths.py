"""Chosen lengths on a GPU beside fixed ones: the real small pair, where a round is short."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks.gpu_cases import GREEDY
from benchmarks.report import Rows, table
from benchmarks.workloads import GRID, KINDS, prompt_of
from mspeckv import KVPolicy, Pair, Speculation, generate
from mspeckv.api import release
from mspeckv.settings import Gamma

CONTEXT, NEW_TOKENS, TURNS = 4096, 256, 6
WAYS = {
    "lookup": ("vanilla", "lookup"),
    "draft": ("vanilla", "draft"),
    "triforce": ("triforce", "draft"),
    "mspeckv": ("mspeckv", "draft"),
}
"""Method and tier 0."""


def chosen_lengths(pair: Pair) -> str:
    """Tokens/s, the median turn of all but the first, and the first.

    A first turn captures its graphs, later ones find them.
    """
    rows = Rows()
    policy = KVPolicy("full", on_chip=pair.layers)
    for name, (method, tier0) in WAYS.items():
        for kind in KINDS:
            assert pair.tokenizer is not None
            prompt = prompt_of(kind, pair.tokenizer, CONTEXT)
            found: dict[Gamma, list[float]] = defaultdict(list)
            lengths: list[Gamma] = [*GRID, "auto"]
            for gamma in lengths:
                inner: Gamma = "auto" if gamma == "auto" else 3
                guess = Speculation(gamma=gamma, draft_gamma=inner, tier0=tier0)
                for _ in range(TURNS):
                    done = generate(
                        pair, prompt, method=method, new_tokens=NEW_TOKENS, policy=policy,
                        speculation=guess, sampling=GREEDY,
                    )  # fmt: skip
                    found[gamma].append(done.tokens_per_second)
            later = {gamma: median(turns[1:]) for gamma, turns in found.items()}
            auto, fixed = later["auto"], [later[gamma] for gamma in GRID]
            first = max(found[gamma][0] for gamma in GRID)
            row = name, kind, *fixed, auto, auto / max(fixed), first, found["auto"][0]
            rows.append(row)
    release(pair)
    headers = (
        "way", "prompt", *(f"gamma {gamma}" for gamma in GRID), "auto", "of the best",
        "first turn, best", "auto",
    )  # fmt: skip
    title = f"Chosen lengths, SmolLM2-135M in float16, {NEW_TOKENS} tokens after {CONTEXT}"
    turns = f"median of turns 2 to {TURNS}"
    return f"{title}, tokens/s, {turns} (measured)\n{table(headers, rows)}"
