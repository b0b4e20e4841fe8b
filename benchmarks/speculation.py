"""Speculation beside transformers' own: tokens per second by method, length and kind of prompt.

    python -m benchmarks.speculation --quick            # 1 k, few lengths
    python -m benchmarks.speculation                    # 4 k
    python -m benchmarks.speculation --origin           # the emulated link at `origin`
    python -m benchmarks.speculation --grid             # every method and length at `origin`
    python -m benchmarks.speculation --adaptive         # chosen lengths, in longer runs

Everything decodes greedily in this process, on the same weights and prompts. Prefill does not
count. Each table says whether its tokens are those of transformers' plain ``generate``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import Rows, machine, table
from benchmarks.workbench import GREEDY, Outcome, Peer, Way, Workbench
from benchmarks.workloads import KINDS, prompt_of
from mspeckv import KVPolicy, Pair, RunSummary, Speculation, generate, load_pair
from mspeckv.config import METHODS, default_width
from mspeckv.experiments.presets import CLASSROOM

VOCAB = 8192
GAMMAS = (2, 4, 8, 12, 16)
QUICK_GAMMAS = (2, 8)
GRID = (2, 4, 8, 16)
"""Fixed lengths that chosen ones are held to."""
GRID_CONTEXT = 512
GRID_TURNS = {"vanilla": 1, "triforce": 1, "mspeckv": 2}
CHOSEN = Speculation(gamma="auto", draft_gamma="auto")
PLAIN_TOKENS = 16
"""Tokens of plain decoding over a slow link: every one takes the same time."""
LENGTHS = (1, 2, 3, 5, 9, 13, 17)
ORIGIN_TARGETS = {512: 4.75, 1024: 8.0, 1536: 12.9, 2048: 14.5}


def ways(gammas: tuple[int, ...]) -> list[Way]:
    """Our nestings that are compared."""
    out = [Way((2,))]
    lengths: list[int | str] = [*gammas, "auto"]
    out += [Way((0, 2), "lookup", gamma) for gamma in lengths]
    out += [Way((0, 2), "draft", gamma, draft_vocab=VOCAB) for gamma in lengths]
    out += [Way((0, 2), "draft", "auto")]
    out += [Way((0, 1, 2), "draft", gamma, 3) for gamma in gammas]
    out += [Way((0, 1, 2), "draft", "auto", "auto", VOCAB)]
    return out


def link_off(
    pair: Pair, context: int, new_tokens: int, gammas: tuple[int, ...]
) -> tuple[str, dict[str, dict[str, float]]]:
    """Every way on every kind of prompt, all KV on the device."""
    rates: dict[str, dict[str, float]] = defaultdict(dict)
    parts = []
    for kind in KINDS:
        assert pair.tokenizer is not None
        prompt = prompt_of(kind, pair.tokenizer, context)
        outcomes = _compare(pair, prompt, new_tokens, gammas)
        reference = outcomes["transformers generate"]
        rows = Rows()
        for name, found in outcomes.items():
            rates[kind][name] = found.rate
            same = "yes" if found.tokens == reference.tokens else "NO"
            rows.append((name, found.rate, found.rate / reference.rate, found.per_pass, same))
        headers = ("way", "tokens/s", "of plain", "tokens per pass", "same tokens")
        parts.append(f"{kind}, {context} tokens, link off (measured)\n{table(headers, rows)}")
    parts.append(_verdict(rates))
    return "\n\n".join(parts), rates


def _compare(
    pair: Pair, prompt: list[int], new_tokens: int, gammas: tuple[int, ...]
) -> dict[str, Outcome]:
    """Two turns each, peers and ours in between one another; the faster turn counts."""
    peer = Peer(pair, prompt, new_tokens)
    peers: dict[str, dict[str, Any]] = {
        "transformers generate": {},
        "transformers assisted": {"assistant_model": pair.draft},
        "transformers lookup": {"prompt_lookup_num_tokens": 10},
    }
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    with Workbench(pair, prompt, new_tokens) as bench:
        for _ in range(2):
            for name, arguments in peers.items():
                outcomes[name].append(peer.run(**arguments))
            for way in ways(gammas):
                outcomes[f"ours {way.name}"].append(bench.run(way))
    return {name: max(found, key=lambda one: one.rate) for name, found in outcomes.items()}


def _verdict(rates: dict[str, dict[str, float]]) -> str:
    """Ours against the best of transformers', kind by kind and on their geometric mean."""
    rows, ratios = [], []
    for kind, found in rates.items():
        ours = {name: rate for name, rate in found.items() if name.startswith("ours")}
        theirs = {name: rate for name, rate in found.items() if name not in ours}
        best, other = max(ours, key=ours.__getitem__), max(theirs, key=theirs.__getitem__)
        autos = {name: rate for name, rate in ours.items() if "auto" in name}
        auto = max(autos, key=autos.__getitem__)
        ratios.append(ours[best] / theirs[other])
        rows.append((kind, best, other, ratios[-1], auto, autos[auto] / ours[best]))
    headers = ("prompt", "our best", "their best", "ratio", "best auto", "auto of our best")
    mean = geometric_mean(ratios)
    return f"{table(headers, rows)}\ngeometric mean of the ratios: {mean:.3f}"


def adaptive(pair: Pair, context: int, new_tokens: int) -> str:
    """Chosen lengths beside the best fixed one of a small grid, over a text of some length.

    By tier 0, since that is the user's choice; three turns each, of which the fastest counts.
    """
    rows = Rows()
    for kind in KINDS:
        assert pair.tokenizer is not None
        prompt = prompt_of(kind, pair.tokenizer, context)
        with Workbench(pair, prompt, new_tokens) as bench:
            for tier0, vocab in (("lookup", 0), ("draft", VOCAB)):
                lengths: list[int | str] = [*GRID, "auto"]
                found: dict[int | str, float] = defaultdict(float)
                for _ in range(3):
                    for gamma in lengths:
                        way = Way((0, 2), tier0, gamma, draft_vocab=vocab)
                        found[gamma] = max(found[gamma], bench.run(way).rate)
                auto = found.pop("auto")
                best = max(found, key=found.__getitem__)
                rates = [found[gamma] for gamma in GRID]
                rows.append((kind, tier0, *rates, auto, best, auto / found[best]))
    headers = (
        "prompt", "tier 0", *(f"gamma {gamma}" for gamma in GRID), "auto", "best", "ratio"
    )  # fmt: skip
    title = f"Tokens/s over {new_tokens} tokens after {context}, link off (measured)"
    return f"{title}\n{table(headers, rows)}"


@torch.inference_mode()
def pass_times(pair: Pair, prompt: list[int]) -> str:
    """A tier-2 pass by length, and where its time goes."""
    rows = []
    with Workbench(pair, prompt, 32) as bench:
        top = bench.root.top
        for length in LENGTHS:
            tokens = prompt + prompt[1:length]

            def read(tokens: list[int] = tokens, length: int = length) -> None:
                top.read(tokens, length)
                top.settle(len(prompt) - 1)

            times = []
            for _ in range(7):
                start = time.perf_counter()
                read()
                times.append((time.perf_counter() - start) * 1e3)
            with profile(activities=[ProfilerActivity.CPU]) as trace:
                read()
            rows.append((length, median(times[1:]), *_shares(trace)))
    headers = (
        "tokens",
        "ms",
        "matmul ms",
        "attention ms",
        "other kernels ms",
        "outside kernels ms",
    )
    return f"A tier-2 pass after {len(prompt)} tokens (measured)\n{table(headers, rows)}"


def _shares(trace: Any) -> tuple[float, float, float, float]:
    """Milliseconds by kind of kernel, and what is left of the profiled pass: Python, mostly."""
    sums: dict[str, float] = defaultdict(float)
    for event in trace.key_averages():
        if not event.key.startswith(("aten::", "mkldnn::")):
            continue
        name = event.key.split("::")[1]
        kind = "other"
        if name in ("mm", "addmm", "bmm", "linear", "matmul", "_linear_pointwise"):
            kind = "matmul"
        elif "attention" in name:
            kind = "attention"
        sums[kind] += event.self_cpu_time_total / 1e3
    spans = [(e.time_range.start, e.time_range.end) for e in trace.events()]
    total = (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e3
    inside = sum(sums.values())
    return sums["matmul"], sums["attention"], sums["other"], max(0.0, total - inside)


def origin(pair: Pair, new_tokens: int) -> str:
    """Speed-ups over autoregressive at the emulated ``origin`` link, by context.

    ``classroom's`` is the ablations' setting: the same lengths, but the draft scores a short list
    and stops where it doubts.
    """
    rows = Rows()
    auto = Speculation(gamma="auto", draft_gamma="auto", draft_vocab=VOCAB)
    for context, wanted in ORIGIN_TARGETS.items():
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


def origin_grid(pair: Pair, context: int, new_tokens: int) -> str:
    """Every method at the emulated ``origin`` link, by kind of prompt and gamma.

    Chosen lengths have been run once before, to know what passes cost. Where passes wait for the
    link, one turn counts, else the fastest of two.
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
            rates: dict[int | str, float] = defaultdict(float)
            kept: dict[int | str, float] = {}
            for _ in range(GRID_TURNS[method]):
                for gamma, speculation in ways.items():
                    found = _at_origin(pair, prompt, method, speculation, new_tokens)
                    rates[gamma] = max(rates[gamma], found.tokens_per_second)
                    kept[gamma] = found.accepted_per_round
            best = max(rates[gamma] for gamma in GRID)
            for gamma in ways:
                share = f"{rates[gamma] / best:.3f}"
                rows.append((kind, method, str(gamma), rates[gamma], kept[gamma], share))
    headers = ("prompt", "method", "gamma", "tokens/s", "accepted per round", "of the best fixed")
    title = (
        f"{new_tokens} tokens after {context}, on-chip 15, resident 15, link origin (emulated)"
    )  # fmt: skip
    return f"{title}\n{table(headers, rows)}"


def _at_origin(
    pair: Pair, prompt: list[int], method: str, speculation: Speculation, new_tokens: int
) -> RunSummary:
    policy = KVPolicy(default_width(method), 15, 15)
    return generate(
        pair, prompt, method=method, new_tokens=new_tokens, policy=policy,
        speculation=speculation, sampling=GREEDY, link="origin",
    )  # fmt: skip


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 k of context, few lengths")
    parser.add_argument("--origin", action="store_true", help="only the emulated link")
    parser.add_argument("--grid", action="store_true", help="only the methods at `origin`")
    parser.add_argument("--adaptive", action="store_true", help="only chosen lengths")
    parser.add_argument("--context", type=int, help="prompt tokens (default 4096)")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--json", type=Path, help="also write the rates here")
    options = parser.parse_args()
    pair = load_pair()
    print(machine(pair.device), end="\n\n", flush=True)
    context = options.context or (1024 if options.quick else 4096)
    if options.adaptive:
        print(adaptive(pair, context, 4 * options.new_tokens))
        return
    if options.grid:
        print(origin_grid(pair, GRID_CONTEXT, 2 * options.new_tokens))
        return
    if not options.origin:
        gammas = QUICK_GAMMAS if options.quick else GAMMAS
        text, rates = link_off(pair, context, options.new_tokens, gammas)
        print(text, end="\n\n", flush=True)
        assert pair.tokenizer is not None
        print(pass_times(pair, prompt_of("prose", pair.tokenizer, context)), end="\n\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rates, indent=2), encoding="utf-8")
        print(adaptive(pair, context, 4 * options.new_tokens), end="\n\n", flush=True)
    print(origin(pair, options.new_tokens), end="\n\n", flush=True)
    if not options.quick:
        print(origin_grid(pair, GRID_CONTEXT, 2 * options.new_tokens))


if __name__ == "__main__":
    main()
