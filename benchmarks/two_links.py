"""One target over several GPUs, each with a link of its own: when that pays, and where time goes.

    python -m benchmarks.two_links make FOLDER                # the 7B shape, some 13 GB, once
    python -m benchmarks.two_links run FOLDER --out results/  # on one GPU
    torchrun --nproc-per-node 2 -m benchmarks.two_links run FOLDER --out results/
    python -m benchmarks.two_links table results/

*make* writes SmolLM2 in a Llama-2-7B's shape (`benchmarks.inflate`) and its draft, or with
``--untrained`` random weights of that shape: passes then take the same time, but guesses are seldom
right, so that a token's time says nothing, and a pass's all. ``--shape 4x384 --device cpu`` makes a
dry run. Greedy; a case is run again, four times at most, until no pass is captured in a run, and
the last run counts. Rank 0 writes a line of JSON for each case. ``--trace`` also takes passes
apart, kernel by kernel.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.accelerations import random_llama
from benchmarks.gpu_cases import GUESS, NAIVE_TOKENS, Case, run
from benchmarks.inflate import LLAMA_2_7B, inflate, stretch
from benchmarks.pass_kernels import KINDS, summary, traced
from benchmarks.report import machine, table
from mspeckv import KVPolicy, Pair, Speculation, load_pair, stream
from mspeckv.events import Round
from mspeckv.parallel import end, join
from mspeckv_study.documents import load_document

LONGEST = 32768 + 1024
FILE = "two_links.jsonl"


def cases(layers: int, budget: int) -> Iterator[Case]:
    """Every method, and what it is compared with; ``layers`` of the target."""
    guess = Speculation(gamma=8, draft_gamma=3, budget=budget, refresh=0)
    half = layers // 2
    places = {
        "streamed": KVPolicy("full"),
        "streamed int8": KVPolicy(8),
        "int8 half + half": KVPolicy(8, on_chip=half, resident=layers - half),
        "all on-chip": KVPolicy("full", on_chip=layers),
    }
    for place, policy in places.items():
        yield Case(f"plain, {place}", "autoregressive", policy, new_tokens=NAIVE_TOKENS)
    for place, policy in places.items():
        if not policy.lossless or place == "all on-chip":
            yield Case(f"mspeckv, {place}", "mspeckv", policy, guess, 96)
    yield Case("vanilla, all on-chip", "vanilla", places["all on-chip"], guess, 64)
    yield Case("triforce, streamed", "triforce", places["streamed"], guess, 64)


def make(options: argparse.Namespace) -> None:
    """Write a target and a draft."""
    dtype = getattr(torch, options.dtype)
    if options.untrained or options.shape:
        target = random_llama(options.shape or "32x4096", options.device, dtype, 32000)
        draft: Any = random_llama("2x512", options.device, dtype, 32000)
        inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32000)}, unk_token="w0"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0")
    else:
        pair = load_pair(device=options.device, dtype=dtype, weights="float")
        target = inflate(stretch(pair.target, LONGEST), LLAMA_2_7B)
        draft, tokenizer = pair.draft, pair.tokenizer
    for name, model in (("target", target), ("draft", draft)):
        model.save_pretrained(options.folder / name)
        tokenizer.save_pretrained(options.folder / name)


def measure(options: argparse.Namespace) -> None:
    """Run the cases on this rank, as torchrun's other ranks do."""
    ranks = join()
    first, size = ranks is None or ranks.first, 1 if ranks is None else ranks.size
    folder = options.folder
    pair = load_pair(
        str(folder / "target"), str(folder / "draft"), device=options.device,
        dtype=options.dtype, ranks=ranks,
    )  # fmt: skip
    if first:
        print(machine(pair.device), f"\n{size} of them, {options.context} tokens", flush=True)
    deadline = time.monotonic() + options.budget_seconds
    for context in options.context:
        prompt = prompt_of(pair, context)
        for case in cases(pair.layers, min(GUESS.budget, context // 2)):
            if not any(name in case.name for name in options.only):
                continue
            late = float(time.monotonic() > deadline)
            if (ranks is not None and ranks.add([late])[0]) or late:
                break
            found = run(pair, prompt, case)
            row = {"ranks": size, "context": context, "case": case.name,
                   "tokens": found.tokens, **found.to_json()}  # fmt: skip
            if options.trace:
                row["traced"] = taken_apart(pair, prompt, case)
            if first:
                print(found.line(case.name, found.ms, options.copy_rate), flush=True)
                with (options.out / FILE).open("a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(row)}\n")
    if ranks is not None:
        end(ranks, 0)


def taken_apart(pair: Pair, prompt: list[int], case: Case) -> dict[str, Any]:
    """A further run's passes in milliseconds, by tier and tokens, and one more's by kernel."""
    rounds = [event for event in stream(pair, prompt, case.config) if isinstance(event, Round)]
    out: dict[str, Any] = {
        f"t{tier}": [
            [step.tokens, round(step.ms, 3), step.builds]
            for event in rounds for step in event.passes if step.tier == tier
        ]
        for tier in (1, 2)
    }  # fmt: skip
    step = "decode" if case.method == "autoregressive" else "verify"
    spans = f"tier1/{step}", f"tier2/{step}"
    found = traced(lambda: list(stream(pair, prompt, case.config)), spans)
    return {**out, **{span: summary(passes) for span, passes in found.items() if passes}}


def prompt_of(pair: Pair, context: int) -> list[int]:
    """Prose, or for random weights any tokens."""
    assert pair.tokenizer is not None
    if len(pair.tokenizer) == 32000:
        return [(7 * place * place + place) % 32000 for place in range(context)]
    return load_document("python-reference", pair.tokenizer, context)


def tables(rows: list[dict[str, Any]]) -> str:
    """Several GPUs beside one: times, their parts, and kernels of passes that were taken apart."""
    last = {(row["context"], row["case"], row["ranks"]): row for row in rows}
    pairs = [
        (last[context, name, 1], row)
        for (context, name, ranks), row in last.items()
        if ranks > 1 and (context, name, 1) in last
    ]
    return "\n\n".join(part(pairs) for part in (faster, parts, kernels)).rstrip()


Both = list[tuple[dict[str, Any], dict[str, Any]]]
"""Rows of one GPU and of several."""


def faster(pairs: Both) -> str:
    """Times of a token and of a pass, and how many tokens agree."""
    out: list[list[object]] = []
    for alone, row in pairs:
        tokens = list(zip(alone["tokens"], row["tokens"], strict=False))
        by_tier = [
            f"t{tier} {alone['tier_ms'][tier] / alone['passes'][tier]:.2f} -> "
            f"{ms / row['passes'][tier]:.2f}"
            for tier, ms in row["tier_ms"].items()
        ]
        agree = sum(a == b for a, b in tokens) / len(tokens)
        times = alone["ms"], row["ms"], f"{alone['ms'] / row['ms']:.2f}x", ", ".join(by_tier)
        out.append([row["context"], row["case"], row["ranks"], *times, f"{agree:.0%}"])
    headers = (
        "context", "way", "GPUs", "one GPU, ms/token", "ms/token", "faster", "ms a pass, by tier",
        "tokens that agree",
    )  # fmt: skip
    return f"One target over several GPUs (measured)\n{table(headers, out)}"


def parts(pairs: Both) -> str:
    """Where a token's time goes."""
    out: list[list[object]] = []
    for found in pairs:
        line: list[object] = [found[1]["context"], found[1]["case"]]
        for tier in ("0", "1", "2"):
            line += [one["tier_ms"].get(tier, "") for one in found]
        line += [one["wait_ms"] or "" for one in found]
        out.append([*line, *(one["ms"] - sum(one["tier_ms"].values()) for one in found)])
    names = "tier 0", "tier 1", "tier 2", "of which waits", "between"
    headers = "context", "way", *(f"{name}, {gpus}" for name in names for gpus in ("one", "more"))
    title = "Of it, ms per token on one GPU and on more; between: of rounds, outside of passes"
    return f"{title} (measured)\n{table(headers, out)}"


def kernels(pairs: Both) -> str:
    """What a pass's time goes to, by kind of kernel."""
    out: list[list[object]] = []
    for found in pairs:
        for row in found:
            for span, one in row.get("traced", {}).items():
                if "busy_ms" not in one:
                    continue
                busy = [one["busy_ms"].get(kind, "") for kind in (*KINDS, "small")]
                late, gaps, whole = one["late_ms"], one["gaps_ms"], median(one["whole_ms"])
                about = row["context"], row["case"], span, row["ranks"], one["passes"]
                out.append([*about, whole, late, *busy, gaps, one["kernels"]])
    if not out:
        return ""
    headers = (
        "context", "way", "pass", "GPUs", "passes", "ms", "before the first", *KINDS,
        "small and copies", "gaps", "kernels",
    )  # fmt: skip
    title = "A pass by kernels, ms, medians, in a run that torch traces, which makes it longer"
    return f"{title} (measured)\n{table(headers, out)}"


def main() -> None:
    """Write a model, run its cases, or print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "run", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--untrained", action="store_true", help="make: random weights")
    parser.add_argument("--shape", help="make: layers and width of random weights")
    parser.add_argument("--context", type=int, nargs="+", default=[16384])
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name has one of these")
    parser.add_argument("--copy-rate", type=float, default=4.3e12, help="bytes per second")
    parser.add_argument("--trace", action="store_true", help="run: also take passes apart")
    parser.add_argument("--budget-seconds", type=float, default=3600, help="begin no case after")
    parser.add_argument("--out", type=Path, default=Path(), help=f"folder of {FILE}")
    options = parser.parse_args()
    if options.what == "table":
        lines = (options.folder / FILE).read_text(encoding="utf-8").splitlines()
        print(tables([json.loads(line) for line in lines]))
    elif options.what == "make":
        make(options)
    else:
        measure(options)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
