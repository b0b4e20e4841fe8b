"""Speculation beside transformers' own: tokens per second by method, length and kind of prompt.

    python -m benchmarks.speculation --quick            # 1 k, few lengths
    python -m benchmarks.speculation                    # 4 k
    python -m benchmarks.speculation --origin           # the emulated link at `origin`
    python -m benchmarks.speculation --grid             # every method and length at `origin`
    python -m benchmarks.speculation --adaptive         # chosen lengths, in short and longer runs

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

from benchmarks.origin import grid, origin
from benchmarks.report import Rows, machine, median_turn, table
from benchmarks.workbench import Outcome, Peer, Way, Workbench
from benchmarks.workloads import GRID, KINDS, VOCAB, prompt_of
from mspeckv import Pair, load_pair

GAMMAS = (2, 4, 8, 12, 16)
QUICK_GAMMAS = (2, 8)
TURNS, PEER_TURNS = 5, 3
"""Times that each of our ways is run, and each of transformers'; odd, since medians count."""
ADAPTIVE_TURNS = {1: 7, 4: 5}
"""Turns of chosen lengths beside fixed ones, by how many times ``--new-tokens`` are decoded: in a
short run a round more or less is a tenth."""
LENGTHS = (1, 2, 3, 5, 9, 13, 17)


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
    """The median turn of each, peers and ours in between one another.

    Ours have more turns, as they are shorter and chosen lengths learn in the first; the fastest of
    many would flatter what is timed often, which a median does not.
    """
    peer = Peer(pair, prompt, new_tokens)
    peers: dict[str, dict[str, Any]] = {
        "transformers generate": {},
        "transformers assisted": {"assistant_model": pair.draft},
        "transformers lookup": {"prompt_lookup_num_tokens": 10},
    }
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    with Workbench(pair, prompt, new_tokens) as bench:
        for turn in range(TURNS):
            for name, arguments in peers.items() if turn < PEER_TURNS else ():
                outcomes[name].append(peer.run(**arguments))
            for way in ways(gammas):
                outcomes[f"ours {way.name}"].append(bench.run(way))
    return {name: median_turn(found, _rate) for name, found in outcomes.items()}


def _rate(outcome: Outcome) -> float:
    return outcome.rate


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


def adaptive(pair: Pair, context: int, new_tokens: int, turns: int) -> str:
    """Chosen lengths beside the best fixed one of a small grid, over a text of some length.

    By tier 0, since that is the user's choice; the median turn of each counts.
    """
    rows = Rows()
    for kind in KINDS:
        assert pair.tokenizer is not None
        prompt = prompt_of(kind, pair.tokenizer, context)
        with Workbench(pair, prompt, new_tokens) as bench:
            for tier0, vocab in (("lookup", 0), ("draft", VOCAB)):
                lengths: list[int | str] = [*GRID, "auto"]
                outcomes: dict[int | str, list[Outcome]] = defaultdict(list)
                for _ in range(turns):
                    for gamma in lengths:
                        way = Way((0, 2), tier0, gamma, draft_vocab=vocab)
                        outcomes[gamma].append(bench.run(way))
                found = {gamma: _rate(median_turn(one, _rate)) for gamma, one in outcomes.items()}
                auto = found.pop("auto")
                best = max(found, key=found.__getitem__)
                rates = [found[gamma] for gamma in GRID]
                rows.append((kind, tier0, *rates, auto, best, auto / found[best]))
    headers = (
        "prompt", "tier 0", *(f"gamma {gamma}" for gamma in GRID), "auto", "best", "ratio"
    )  # fmt: skip
    title = (
        f"Tokens/s over {new_tokens} tokens after {context}, median of {turns} turns, link off "
        "(measured)"
    )  # fmt: skip
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
            rows.append((length, median(times[1:]), *shares(trace)))
    headers = (
        "tokens",
        "ms",
        "matmul ms",
        "attention ms",
        "other kernels ms",
        "outside kernels ms",
    )
    return f"A tier-2 pass after {len(prompt)} tokens (measured)\n{table(headers, rows)}"


def shares(trace: Any) -> tuple[float, float, float, float]:
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
    pair = load_pair(weights="float")
    print(machine(pair.device), end="\n\n", flush=True)
    context = options.context or (1024 if options.quick else 4096)
    if options.adaptive:
        _print_adaptive(pair, context, options.new_tokens)
        return
    if options.grid:
        print(grid(pair, 2 * options.new_tokens))
        return
    if not options.origin:
        gammas = QUICK_GAMMAS if options.quick else GAMMAS
        text, rates = link_off(pair, context, options.new_tokens, gammas)
        print(text, end="\n\n", flush=True)
        assert pair.tokenizer is not None
        print(pass_times(pair, prompt_of("prose", pair.tokenizer, context)), end="\n\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rates, indent=2), encoding="utf-8")
        _print_adaptive(pair, context, options.new_tokens)
    print(origin(pair, options.new_tokens), end="\n\n", flush=True)
    if not options.quick:
        print(grid(pair, 2 * options.new_tokens))


def _print_adaptive(pair: Pair, context: int, new_tokens: int) -> None:
    for times, turns in ADAPTIVE_TURNS.items():
        print(adaptive(pair, context, times * new_tokens, turns), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
