"""Decoding over the emulated ``origin`` link: speed-ups by context, and every method by length."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.report import Rows, median_turn, table
from benchmarks.workbench import GREEDY
from benchmarks.workloads import GRID, KINDS, VOCAB, prompt_of
from mspeckv import KVPolicy, Pair, RunSummary, Speculation, generate
from mspeckv.settings import METHODS, default_width
from mspeckv_study.experiments.ablations import CLASSROOM

TARGETS = {512: 4.75, 1024: 8.0, 1536: 12.9, 2048: 14.5}
"""Speed-ups over autoregressive that are wanted, by context."""
TURNS = {"vanilla": 1, "triforce": 1, "mspeckv": 3}
CHOSEN_TURNS = 3
"""Times that a fixed length is run in the grid, by method, and chosen ones; odd, since medians
count."""
CHOSEN = Speculation(gamma="auto", draft_gamma="auto")
PLAIN_TOKENS = 16
"""Tokens of plain decoding over a slow link: every one takes the same time."""


def origin(pair: Pair, new_tokens: int) -> str:
    """Speed-ups over autoregressive at the emulated ``origin`` link, by context.

    ``classroom's`` is the ablations' setting: the same lengths, but the draft scores a short list
    and stops where it doubts.
    """
    rows = Rows()
    auto = Speculation(gamma="auto", draft_gamma="auto", draft_vocab=VOCAB)
    for context, wanted in TARGETS.items():
        assert pair.tokenizer is not None
        prompt = prompt_of("prose", pair.tokenizer, context)
        base = _at_origin(pair, prompt, "autoregressive", Speculation(), new_tokens // 4)
        ways = {"8/3": Speculation(), "classroom's 8/3": CLASSROOM.speculation, "auto": auto}
        for name, speculation in ways.items():
            found = _at_origin(pair, prompt, "mspeckv", speculation, new_tokens)
            speed_up = base.ms_per_token / found.ms_per_token
            rows.append((context, name, base.ms_per_token, found.ms_per_token, speed_up, wanted))
    headers = ("context", "lengths", "autoregressive ms", "mspeckv ms", "speed-up", "wanted")
    title = "mspeckv, int8, on-chip 15, resident 15, link origin (emulated)"
    return f"{title}\n{table(headers, rows)}"


def grid(pair: Pair, new_tokens: int, context: int = 512) -> str:
    """Every method at the emulated ``origin`` link, by kind of prompt and gamma.

    Chosen lengths have been run once before, to know what passes cost. The median turn counts; with
    a fixed length one turn is enough where passes wait for the link, as it takes the same time
    every time.
    """
    rows = Rows()
    for kind in KINDS:
        assert pair.tokenizer is not None
        prompt = prompt_of(kind, pair.tokenizer, context)
        for method in METHODS:
            if method == "autoregressive":
                found = _at_origin(pair, prompt, method, Speculation(), PLAIN_TOKENS)
                rows.append((kind, method, "", found.tokens_per_second, 0.0, ""))
                continue
            ways: dict[int | str, Speculation] = {
                gamma: Speculation(gamma=gamma, draft_gamma=3) for gamma in GRID
            }
            ways["auto"] = CHOSEN
            _at_origin(pair, prompt, method, CHOSEN, new_tokens)
            turns: dict[int | str, list[RunSummary]] = defaultdict(list)
            for turn in range(CHOSEN_TURNS):
                for gamma, speculation in ways.items():
                    if gamma == "auto" or turn < TURNS[method]:
                        found = _at_origin(pair, prompt, method, speculation, new_tokens)
                        turns[gamma].append(found)
            medians = {gamma: median_turn(found, _rate) for gamma, found in turns.items()}
            best = max(medians[gamma].tokens_per_second for gamma in GRID)
            for gamma, found in medians.items():
                rate = found.tokens_per_second
                share = f"{rate / best:.3f}"
                rows.append((kind, method, str(gamma), rate, found.accepted_per_round, share))
    headers = ("prompt", "method", "gamma", "tokens/s", "accepted per round", "of the best fixed")
    title = (
        f"{new_tokens} tokens after {context}, on-chip 15, resident 15, link origin (emulated)"
    )  # fmt: skip
    return f"{title}\n{table(headers, rows)}"


def _rate(summary: RunSummary) -> float:
    return summary.tokens_per_second


def _at_origin(
    pair: Pair, prompt: list[int], method: str, speculation: Speculation, new_tokens: int
) -> RunSummary:
    policy = KVPolicy(default_width(method), 15, 15)
    return generate(
        pair, prompt, method=method, new_tokens=new_tokens, policy=policy,
        speculation=speculation, sampling=GREEDY, link="origin",
    )  # fmt: skip
