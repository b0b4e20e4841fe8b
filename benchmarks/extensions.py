"""What the methods of `mspeckv.extensions` are worth beside the engine's own.

    python -m benchmarks.extensions codecs       # ten minutes on two cores
    python -m benchmarks.extensions retrieval    # fifteen
    python -m benchmarks.extensions chunks       # ten

Everything here is counted, not timed: acceptance, tokens and bytes. The last column says whether
greedy text is that of tier 2 alone over the same KV, as it must be.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.report import Rows, machine, table
from benchmarks.workloads import KINDS, prompt_of
from mspeckv import (
    KVPolicy,
    KVProbe,
    Pair,
    Prefill,
    Round,
    RunConfig,
    RunSummary,
    Sampling,
    Speculation,
    load_pair,
    stream,
)
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.extensions.hot_chunks import RECALL, HotChunkCache
from mspeckv.kv.sizes import ChunkPlan
from mspeckv.kv.tier1 import tier1_caches
from mspeckv.settings import Width

GREEDY = Sampling(temperature=0, stop_at_eos=False)
CODECS = ("kivi", "rotated", "lloyd", "rotated-sketch", "lloyd-sketch")
BITS: tuple[Width, ...] = (4, 3, 2)
BUDGETS = (128, 256, 512, 1024)
CHOICES: dict[str, dict[str, Any]] = {
    "attention": {"chunk": 8, "refresh": 8},
    "attention, chosen anew each time": {"chunk": 8, "refresh": 1},
    "attended": {"chunk": 1, "refresh": 1},
    "attended, chunks of 8": {"chunk": 8, "refresh": 1},
    "newest": {"chunk": 8, "refresh": 0},
}
"""Chunk policies, each as its paper has it or beside it; the first is the engine's default."""
ROOMS = (1, 2, 4)
"""Chunks in the device's buffer for each one chosen."""


_prompts = Prefills()


def decode(pair: Pair, prompt: list[int], config: RunConfig) -> tuple[RunSummary, list[Round]]:
    """A whole run; a prompt that the last one has read alike is taken up."""
    events = list(stream(pair, prompt, config, prefills=_prompts))
    last = events[-1]
    assert isinstance(last, RunSummary)
    assert isinstance(events[0], Prefill)
    return last, [event for event in events if isinstance(event, Round)]


def alone(config: RunConfig) -> RunConfig:
    """Tier 2 by itself, over the same KV."""
    return replace(config, method="autoregressive")


def kept(rounds: list[Round], tier: int) -> float:
    """Share of a tier's guesses that the tier above kept."""
    counts = [count for one in rounds for count in one.tiers if count.tier == tier]
    proposed = sum(count.proposed for count in counts)
    return sum(count.accepted for count in counts) / proposed if proposed else float("nan")


def same(one: RunSummary, other: RunSummary) -> str:
    """Whether two texts are the same."""
    return "same" if one.tokens == other.tokens else "ANOTHER"


def compare_codecs(pair: Pair, context: int, new_tokens: int) -> str:
    """Acceptance, by the model over float KV, of what it would say over packed KV.

    Over all kinds of prompts; in int4 one run over prose as well, with both tiers below.
    """
    assert pair.tokenizer is not None
    prompts = {kind: prompt_of(kind, pair.tokenizer, context) for kind in KINDS}
    probes = {kind: KVProbe(pair, prompt, asked=64) for kind, prompt in prompts.items()}
    rows = Rows()
    for bits in BITS:
        for codec in CODECS:
            policy = KVPolicy(bits, resident=pair.layers, codec=codec)
            found = [probe.over(policy) for probe in probes.values()]
            acceptance = sum(one.acceptance for one in found) / len(found)
            error = sum(one.error**2 for one in found) ** 0.5 / len(found)
            run: tuple[object, ...] = ("", "", "")
            if bits == 4:
                config = RunConfig("mspeckv", new_tokens, policy, Speculation(gamma=4), GREEDY)
                last, rounds = decode(pair, prompts["prose"], config)
                text, _ = decode(pair, prompts["prose"], alone(config))
                run = kept(rounds, 1), new_tokens / len(rounds), same(last, text)
            size = found[0].bytes / (context - 64)
            rows.append((bits, codec, size, acceptance, error, 1 - acceptance, *run))
    headers = (
        "bits", "codec", "bytes/token", "acceptance", "+-", "total variation",
        "tier 1 kept", "tokens/round", "greedy text",
    )  # fmt: skip
    return table(headers, rows)


def compare_choices(pair: Pair, context: int, new_tokens: int) -> str:
    """Tier 1 guesses alone; how much of it tier 2 keeps, by what it sees of the prompt."""
    assert pair.tokenizer is not None
    prompts = [prompt_of(kind, pair.tokenizer, context) for kind in KINDS]
    policy = KVPolicy(8, on_chip=pair.layers)
    rows = Rows()
    texts = [
        decode(pair, one, RunConfig("autoregressive", new_tokens, policy, sampling=GREEDY))[0]
        for one in prompts
    ]
    for budget in BUDGETS:
        for name, settings in CHOICES.items():
            guess = Speculation(
                gamma=4, budget=budget, tier0="none", retrieval=name.split(",")[0], **settings
            )
            config = RunConfig("mspeckv", new_tokens, policy, guess, GREEDY)
            runs = [decode(pair, prompt, config) for prompt in prompts]
            rounds = [one for _, several in runs for one in several]
            verdicts = {same(last, text) for (last, _), text in zip(runs, texts, strict=True)}
            shares = [f"{kept(several, 1):.3f}" for _, several in runs]
            rows.append(
                (
                    budget, name, kept(rounds, 1), ", ".join(shares),
                    len(prompts) * new_tokens / len(rounds), "/".join(verdicts),
                )
            )  # fmt: skip
    headers = "budget", "policy", "kept", ", ".join(KINDS), "tokens/round", "greedy text"
    return table(headers, rows)


def roomier(room: int) -> str:
    """The name of a hot-chunk cache with a buffer of another size, registered for this table."""
    name = f"hot chunks x{room}"
    tier1_caches.register(name)(type("Roomier", (HotChunkCache,), {"room_for_each": room}))
    return name


def compare_rooms(pair: Pair, context: int, new_tokens: int) -> str:
    """Chosen chunks found in a buffer of several sizes, and layers in one of as many bytes."""
    assert pair.tokenizer is not None
    prompt = prompt_of(KINDS[0], pair.tokenizer, context)
    rows = Rows()
    for budget in BUDGETS[1:]:
        for refresh in (1, 8):
            for room in ROOMS:
                guess = Speculation(
                    gamma=4, draft_gamma=2, budget=budget, refresh=refresh, tier1=roomier(room)
                )
                config = RunConfig("mspeckv", new_tokens, KVPolicy(8), guess, GREEDY)
                rows.append(tuple(_found(pair, prompt, config, room)))
    headers = (
        "budget", "refresh", "room for", "found", "KB chosen", "KB recalled/round",
        "KB verified/round", "greedy text",
    )  # fmt: skip
    half = KVPolicy(8, resident=pair.layers // 2, residency="lru")
    last, rounds = decode(pair, prompt, RunConfig("mspeckv", new_tokens, half, sampling=GREEDY))
    layers = last.residency.hit_rate
    return table(headers, rows) + (
        f"\nlayers, least recently used, half of them on the device: {layers:.0%} found in "
        f"{len(rounds)} passes (counted)"
    )


def _found(pair: Pair, prompt: list[int], config: RunConfig, room: int) -> Iterator[object]:
    """A row of `compare_rooms`."""
    guess = config.speculation
    last, rounds = decode(pair, prompt, config)
    passes = [one for event in rounds for one in event.passes if one.tier == 1]
    hits, misses = (sum(getattr(one, name) for one in passes) for name in ("hits", "misses"))
    plan = ChunkPlan.of(guess, len(prompt) - 1)
    recalled = sum(event.link_bytes(RECALL) for event in rounds)
    chosen = pair.layers * plan.chosen * plan.chunk * pair.kv_shape.token_bytes
    yield from (guess.budget, guess.refresh, f"{room} x")
    yield hits / (hits + misses)
    yield chosen / 1e3
    yield recalled / len(rounds) / 1e3
    yield sum(event.link_bytes("verify") for event in rounds) / len(rounds) / 1e3
    yield same(last, decode(pair, prompt, alone(config))[0])


def main() -> None:
    """Print a table."""
    tables = {"codecs": compare_codecs, "retrieval": compare_choices, "chunks": compare_rooms}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tables)
    parser.add_argument("--prefill", type=int, help="default 2048; 1024 for codecs")
    parser.add_argument("--new-tokens", type=int, default=32)
    options = parser.parse_args()
    options.prefill = options.prefill or (1024 if options.what == "codecs" else 2048)
    pair = load_pair(weights="float")
    print(machine(pair.device))
    print(f"{options.what}: {options.prefill} tokens of prompt, {options.new_tokens} new ones")
    kinds = KINDS[:1] if options.what == "chunks" else KINDS
    print(f"prompts: {', '.join(kinds)}; greedy (counted)", end="\n\n")
    print(tables[options.what](pair, options.prefill, options.new_tokens))


if __name__ == "__main__":
    main()
