"""Speed on a GPU: ceilings first, then the published ablations' settings, then peers.

    python -m benchmarks.gpu --out results/          # everything; some 20 minutes on an H200
    python -m benchmarks.gpu a1 --contexts 32768     # one part

The target has the *cost* of a Llama-2-7B in float16, and the *acceptance* of SmolLM2-135M-Instruct,
which `benchmarks.inflate` embeds in its shape; contexts past 8 k by YaRN. Nothing here says
how well a real 7B would be guessed. Decoding is greedy over the Python language reference. A
way's time per token is that of its rounds, prefill not counted, graphs captured before.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import gpu_cases as cases
from benchmarks.attention import copy_rate
from benchmarks.gpu_cases import Case
from benchmarks.gpu_lengths import chosen_lengths
from benchmarks.inflate import LLAMA_2_7B, inflate, stretch
from benchmarks.report import machine, table
from mspeckv import Pair, load_pair
from mspeckv.api import release
from mspeckv.models.documents import load_document

PARTS = ("ceilings", "exact", "lengths", "agreement", "peers", "a1", "a2", "b1", "b2")
LONGEST = 32768 + 2048


def make_pair(positions: int = LONGEST) -> Pair:
    """The default pair on the GPU, its target stretched and in a Llama-2-7B's shape, float16."""
    small = load_pair(device="cuda", dtype="float16")
    target = inflate(stretch(small.target, positions), LLAMA_2_7B)
    return Pair.of(
        target, small.draft, small.tokenizer,
        target_id="SmolLM2-135M-Instruct inflated to Llama-2-7B", draft_id=small.draft_id,
    )  # fmt: skip


def ceilings() -> str:
    """What the machine can do at most: copies over the link and in memory, launches, weights."""
    size = 1 << 29
    on_host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    pageable = torch.ones(size, dtype=torch.uint8)
    one, other = torch.empty(2, size, dtype=torch.uint8, device="cuda").unbind(0)
    weight = torch.randn(4096, 11008, dtype=torch.float16, device="cuda")
    row = torch.randn(1, 4096, dtype=torch.float16, device="cuda")
    small = torch.zeros(8, device="cuda")
    rows = [
        ("pinned host to device, GB/s", size / seconds(lambda: one.copy_(on_host, True)) / 1e9),
        ("device to pinned host, GB/s", size / seconds(lambda: on_host.copy_(one, True)) / 1e9),
        ("pageable host to device, GB/s", size / seconds(lambda: one.copy_(pageable)) / 1e9),
        ("device copy, read and written, GB/s", 2 * size / seconds(lambda: one.copy_(other)) / 1e9),
        ("weights through a product of one row, GB/s",
         weight.nbytes / seconds(lambda: row @ weight) / 1e9),
        ("one small kernel, us", seconds(lambda: small.add_(1)) * 1e6),
    ]  # fmt: skip
    return "Ceilings (measured)\n" + table(("what", "figure"), rows)


def seconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Mean device time of a call, enqueued back to back."""
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats


def exact() -> str:
    """The real small pair in float32: every method's tokens against autoregressive's."""
    pair = load_pair(device="cuda", dtype="float32")
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, 4096)
    rows = []
    for name, policy in cases.EXACT_POLICIES.items():
        plain = cases.run(pair, prompt, Case("", "autoregressive", policy, new_tokens=96))
        for method in ("vanilla", "mspeckv"):
            for graphs in (True, False):
                case = Case("", method, policy, new_tokens=96, graphs=graphs)
                found = cases.run(pair, prompt, case)
                how = "graphs" if graphs else "launches"
                rows.append((name, method, how, found.ms, "yes" if found.tokens == plain.tokens
                             else f"no, from {cases.first_difference(found, plain)}"))  # fmt: skip
    release(pair)
    headers = ("KV", "method", "passes", "ms/token", "tokens of autoregressive")
    return f"Greedy tokens, float32, 4096 + 96 (measured)\n{table(headers, rows)}"


def compare(
    pair: Pair, context: int, chosen: Sequence[Case], deadline: float, rate: float
) -> Iterator[str]:
    """Cases over one prompt, the first being what the others are compared with."""
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, context)
    base: float | None = None
    print(f"{context} tokens", flush=True)
    for case in chosen:
        if time.monotonic() > deadline:
            print("out of time before", case.name, flush=True)
            return
        try:
            found = cases.run(pair, prompt, case)
        except (torch.OutOfMemoryError, ValueError) as error:
            print(case.name, "failed:", str(error).splitlines()[0], flush=True)
            continue
        base = base or found.ms
        print(found.line(case.name, base, rate), flush=True)
        yield json.dumps({"context": context, "case": case.name, **found.to_json()})
    release(pair)
    gc.collect()


def main() -> None:
    """Print tables; write a line of JSON per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 16384, 24576, 32768])
    parser.add_argument("--only", help="only cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no case after these")
    parser.add_argument("--out", type=Path, help="folder for gpu.jsonl")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    print(machine(torch.device("cuda")), end="\n\n", flush=True)
    if "ceilings" in options.parts:
        print(ceilings(), end="\n\n", flush=True)
    if "exact" in options.parts:
        print(exact(), end="\n\n", flush=True)
    if "lengths" in options.parts:
        print(chosen_lengths(load_pair(device="cuda", dtype="float16")), end="\n\n", flush=True)
    wanted = list(cases.of_parts(options.parts, options.contexts))
    if not wanted and not {"agreement", "peers"} & set(options.parts):
        return
    rate = copy_rate()
    pair = make_pair()
    if "agreement" in options.parts:
        print(cases.agreement(pair, max(options.contexts)), end="\n\n", flush=True)
        release(pair)
    if "peers" in options.parts:
        for context in options.contexts:
            print(cases.peers(pair, context), end="\n\n", flush=True)
    for part, context, chosen in wanted:
        named = [c for c in chosen if options.only is None or options.only in c.name]
        print(f"{part.upper()} (measured)", end=", ", flush=True)
        for line in compare(pair, context, named, deadline, rate):
            if options.out is not None:
                with (options.out / "gpu.jsonl").open("a") as file:
                    file.write(f"{line}\n")
        print(flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
