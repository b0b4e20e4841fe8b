"""A laptop's two cores: ours, transformers and llama.cpp, on the same prompts, in one run.

    python -m benchmarks.laptop                      # 1 k and 4 k: half an hour on two quiet cores
    python -m benchmarks.laptop --contexts 512 --kinds prose --new-tokens 16 --turns 1

Everything decodes greedily, after the same prompt tokens. Ours and transformers' read the same
weights, as floats; ours packed reads the file's own 4-bit groups, and so does llama.cpp, which
comes with the extra ``bench`` and is left out where it is not installed. Prefill is a table of its
own. A run's turns take turns with the others', and their median counts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import llama_cpp
from benchmarks.laptop_steps import Step, prompt_gflop, step_of
from benchmarks.llama_cpp import KV_BYTES, LlamaCpp
from benchmarks.report import machine, table
from benchmarks.workbench import Peer, Way, Workbench
from benchmarks.workloads import KINDS, VOCAB, prompt_of
from mspeckv import Pair, calibrate, load_pair
from mspeckv_study.profiling.ceilings import Ceilings

WEIGHTS = ("float", "int4")
OURS = {
    "plain": Way((2,)),
    "lookup": Way((0, 2), "lookup", "auto"),
    "draft": Way((0, 2), "draft", "auto", draft_vocab=VOCAB),
    "mspeckv": Way((0, 1, 2), "draft", "auto", "auto", VOCAB),
}
PEER_TURNS = 1
"""Of transformers' ways, two of which read the prompt anew each time."""
LLAMA: dict[str, dict[str, Any]] = {
    "llama.cpp plain": {"kv": "float16"},
    "llama.cpp n-gram": {"kv": "float16", "ngram": True},
    "llama.cpp plain int8 KV": {"kv": "int8"},
}
GOALS = {
    "plain of llama.cpp's plain": 1.0,
    "best of llama.cpp's best": 2.0,
    "prefill of llama.cpp's": 4.0,
    "int4 of floats, worst way": 1.0,
    "read of the copy rate": 0.7,
}
"""What packed weights are held to; a text's own are those of its kind."""


@dataclass
class Cell:
    """One prompt: each way's rates by turn, its text, prompt tokens per second, and steps.

    ``gflop_a_token`` is what a prompt token takes at least, ``per_pass`` our tokens by pass of the
    target over all its KV.
    """

    gflop_a_token: float
    rates: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    per_pass: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    prefill: dict[str, float] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """The median of a way's turns."""
        return median(self.rates[name])

    def add(self, name: str, rate: float, text: str) -> None:
        """One turn."""
        self.rates[name].append(rate)
        self.texts[name] = text

    def best(self, start: str) -> str:
        """The fastest way whose name begins so; empty if there is none."""
        names = [name for name in self.rates if name.startswith(start)]
        return max(names, key=self.rate, default="")


Cells = dict[tuple[int, str], Cell]


def measure(
    pairs: Mapping[str, Pair], servers: Mapping[str, LlamaCpp], prompt: list[int],
    new_tokens: int, turns: int,
) -> Cell:  # fmt: skip
    """Every way over one prompt."""
    floats = pairs["float"]
    cell = Cell(prompt_gflop(floats, len(prompt)) / len(prompt))
    tokenizer = floats.tokenizer
    assert tokenizer is not None

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens))

    for name, server in servers.items():
        count, seconds = server.prefill(prompt)
        if count > len(prompt) // 2:
            cell.prefill[name] = count / seconds
    peer = Peer(floats, prompt, new_tokens)
    cell.prefill["transformers"] = (len(prompt) - 1) / peer.prefill_seconds
    peers: dict[str, dict[str, Any]] = {
        "transformers generate": {},
        "transformers assisted": {"assistant_model": floats.draft},
        "transformers lookup": {"prompt_lookup_num_tokens": 10},
    }
    with ExitStack() as stack:
        benches = {}
        for weights, pair in pairs.items():
            bench = stack.enter_context(Workbench(pair, prompt, new_tokens))
            cell.prefill[f"ours {weights}"] = (len(prompt) - 1) / bench.prefill_seconds[2]
            benches[weights] = bench
        for turn in range(turns):
            for way, chosen in OURS.items():
                for weights, bench in benches.items():
                    found = bench.run(chosen)
                    cell.add(f"ours {weights} {way}", found.rate, text(found.tokens))
                    cell.per_pass[f"ours {weights} {way}"] = found.per_pass
            for name, server in servers.items():
                said = server.run(prompt, new_tokens)
                cell.add(name, said.rate, said.text)
            for name, arguments in peers.items() if turn < PEER_TURNS else ():
                found = peer.run(**arguments)
                cell.add(name, found.rate, text(found.tokens))
        for weights, bench in benches.items():
            cell.steps[f"ours {weights}"] = step_of(bench)
    return cell


def rates(cells: Cells) -> str:
    """Tokens per second, a column for each prompt; and how far each text is the float one's."""
    names = {name: None for cell in cells.values() for name in cell.rates}
    rows = []
    for name in names:
        same = [_common(cell.texts[name], cell.texts["ours float plain"])
                for cell in cells.values()]  # fmt: skip
        told = "yes" if min(same) == 1 else "to " + " ".join(f"{share:.0%}" for share in same)
        rows.append((name, *(cell.rate(name) for cell in cells.values()), told))
    headers = ("way", *(f"{kind} {context}" for context, kind in cells), "same text")
    return table(headers, rows)


def _common(one: str, other: str) -> float:
    """The share of ``other``'s characters up to which ``one`` is the same."""
    pairs = enumerate(zip(one, other, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    return same / max(1, len(other))


def passes(cells: Cells) -> str:
    """What guesses bring, as a ratio: tokens settled by a pass of tier 2, and what it took.

    That is its own time and all that led to it, in plain steps of the same weights.
    """
    rows: list[Sequence[object]] = []
    for name in next(iter(cells.values())).per_pass:
        plain = " ".join((*name.split()[:2], "plain"))
        counted = [cell.per_pass[name] for cell in cells.values()]
        took = [
            count * cell.rate(plain) / cell.rate(name)
            for count, cell in zip(counted, cells.values(), strict=True)
        ]
        rows.append((name, *(f"{n:.2f} in {t:.2f}" for n, t in zip(counted, took, strict=True))))
    return table(("way", *(f"{kind} {context}" for context, kind in cells)), rows)


def prefills(cells: Cells, matrix_gflops: float) -> str:
    """Prompt tokens per second; a prompt that llama.cpp had mostly read before has none.

    Ours also as a share of what a large float product does here.
    """
    names = {name: None for cell in cells.values() for name in cell.prefill}
    rows = [(name, *(cell.prefill.get(name, "") for cell in cells.values())) for name in names]
    for name in (name for name in names if name.startswith("ours")):
        shares = (
            cell.prefill[name] * cell.gflop_a_token / matrix_gflops for cell in cells.values()
        )
        rows.append((f"{name}, of a large product's rate", *(f"{share:.0%}" for share in shares)))
    return table(("who", *(f"{kind} {context}" for context, kind in cells)), rows)


def steps(cells: Cells, copy_gbps: float) -> str:
    """A plain step: what it reads, how fast, and where its time goes."""
    rows: list[Sequence[object]] = []
    for (context, kind), cell in cells.items():
        for name, step in cell.steps.items():
            parts: tuple[object, ...] = ("",) * 7
            if step.products_ms:
                rest = step.ms - step.products_ms - step.attention_ms
                reading = step.weight_bytes / step.products_ms / 1e6
                parts = (step.products_ms, step.attention_ms, rest, step.hollow_ms, reading,
                         step.layers_gbps, step.cached_gbps)  # fmt: skip
            gbps = step.gbps()
            rows.append((f"{kind} {context}", name, step.weight_bytes / 1e6, step.kv_bytes / 1e6,
                         step.ms, gbps, f"{gbps / copy_gbps:.0%}", *parts))  # fmt: skip
    headers = ("prompt", "who", "weights MB", "KV MB", "ms a step", "GB/s", "of copy",
               "products ms", "attention ms", "rest ms", "hollow step ms", "products' GB/s",
               "layers' GB/s", "in cache GB/s")  # fmt: skip
    return table(headers, rows)


def goals(cells: Cells, copy_gbps: float) -> str:
    """Each goal by prompt, as a ratio; an empty cell was not measured."""
    found: dict[str, list[float | None]] = {goal: [] for goal in GOALS}
    for cell in cells.values():
        plain, other = cell.rate("ours int4 plain"), cell.best("llama.cpp")
        ways = [cell.rate(f"ours int4 {way}") / cell.rate(f"ours float {way}") for way in OURS]
        theirs = cell.prefill.get("llama.cpp plain")
        values = (
            plain / cell.rate("llama.cpp plain") if other else None,
            cell.rate(cell.best("ours int4")) / cell.rate(other) if other else None,
            cell.prefill["ours int4"] / theirs if theirs else None,
            min(ways),
            cell.steps["ours int4"].gbps() / copy_gbps,
        )
        for goal, value in zip(GOALS, values, strict=True):
            found[goal].append(value)
    rows = []
    for goal, ratios in found.items():
        there = [ratio for ratio in ratios if ratio is not None]
        met = f"{sum(ratio >= GOALS[goal] for ratio in there)} of {len(there)}"
        rows.append((goal, GOALS[goal], *("" if one is None else one for one in ratios), met))
    headers = ("goal, int4", "at least", *(f"{kind} {context}" for context, kind in cells), "met")
    return table(headers, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", default="1024,4096", help="prompt tokens, with commas")
    parser.add_argument("--kinds", default="prose,copy,code", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3, help="an odd number; the median counts")
    parser.add_argument("--seconds", type=float, default=1e9, help="no prompt begun later")
    parser.add_argument("--gguf", type=Path, help="the default target's file, if it is there")
    options = parser.parse_args(given)
    contexts = [int(n) for n in options.contexts.split(",")]
    pairs = {form: load_pair(weights=form) for form in WEIGHTS}
    tokenizer = pairs["float"].tokenizer
    assert tokenizer is not None
    with ExitStack() as stack:
        servers: dict[str, LlamaCpp] = {}
        weights = 0
        version = "llama.cpp left out: install the extra bench"
        if llama_cpp.is_there():
            version = f"xllamacpp {importlib.metadata.version('xllamacpp')}"
            gguf = stack.enter_context(llama_cpp.default_file(options.gguf))
            weights = llama_cpp.weight_bytes(gguf)
            most = max(contexts) + options.new_tokens + 8
            for name, chosen in LLAMA.items():
                server = llama_cpp.apart(gguf, most, threads=torch.get_num_threads(), **chosen)
                servers[name] = stack.enter_context(server)
        print(f"{machine(torch.device('cpu'))}, {version}", end="\n\n", flush=True)
        ceilings = calibrate("cpu", again=True)
        cells: Cells = {}
        begun = time.perf_counter()
        # a copy comes right after the prose that it begins with: llama.cpp keeps its last prompt
        for context, kind in product(contexts, options.kinds.split(",")):
            if time.perf_counter() - begun > options.seconds:
                print(f"not begun in time: {kind} {context}")
                continue
            prompt = prompt_of(kind, tokenizer, context)
            cell = measure(pairs, servers, prompt, options.new_tokens, options.turns)
            for name in servers:
                if not LLAMA[name].get("ngram"):
                    floats = pairs["float"].layers * pairs["float"].kv_shape.token_bytes * context
                    kv = floats / 4 * KV_BYTES[LLAMA[name]["kv"]]
                    cell.steps[name] = Step(1e3 / cell.rate(name), 0, 0, weights, kv)
            cells[context, kind] = cell
            # a cancelled run loses nothing
            print(rates({(context, kind): cell}), end="\n\n", file=sys.stderr, flush=True)
    print(report(cells, ceilings, options.new_tokens, options.turns))


def report(cells: Cells, ceilings: Ceilings, new_tokens: int, turns: int) -> str:
    """Every table, with its title."""
    copy_gbps = ceilings.memory_gbps
    parts = {
        f"Tokens/s over {new_tokens} tokens, greedy, median of {turns} turns, of transformers' "
        f"{PEER_TURNS} (measured); last, which share of each text is that of ours float plain":
            rates(cells),
        "Tokens a pass of tier 2 settles, the last turn's (counted), in how many plain steps' time "
            "(measured)":
            passes(cells),
        "Prefill, tokens/s (measured); a large float product does "
            f"{ceilings.matrix_gflops:.0f} GFLOP/s (measured)":
            prefills(cells, ceilings.matrix_gflops),
        f"A plain step; a copy reads and writes {copy_gbps:.1f} GB/s (measured)":
            steps(cells, copy_gbps),
        "Goals (ratios of what is above)": goals(cells, copy_gbps),
    }  # fmt: skip
    return "\n\n".join(f"{title}\n{text}" for title, text in parts.items())


if __name__ == "__main__":
    main()
