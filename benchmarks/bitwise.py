"""Are a token's logits the same bits by every method, and what does that cost.

    python -m benchmarks.bitwise --out results/          # everything; some five minutes on an H100
    python -m benchmarks.bitwise equal --pairs small     # one part, one pair
    python -m benchmarks.bitwise --pairs tiny --device cpu --contexts 200 --dtypes bfloat16

Pairs: ``small`` is SmolLM2-135M with its draft, past 8 k by YaRN; ``large`` the same in the shape
of a Llama-2-7B (`benchmarks.inflate`), by YaRN for 16 k at every context; ``untrained`` has that
shape, with a small draft, both of random weights, for bits and times that hang on shapes alone;
``tiny`` is random.

*equal* compares every bit of tier 2's logits under ``exact="bitwise"`` with plain decoding's, over
settings drawn at random; as a control it counts, without the option, the logits that differ.
*price* is the time of a token, a round and a pass of tier 2 with and without: median of three
turns, graphs captured before, and apart from them the first run of all, which captures.

A line of JSON for each comparison goes to ``--out``; what stands there already is not run again.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.accelerations import random_llama
from benchmarks.bitwise_tables import tables
from benchmarks.inflate import LLAMA_2_7B, inflate, stretch
from benchmarks.report import machine
from benchmarks.workloads import KINDS, prompt_of
from mspeckv import KVPolicy, Pair, RunConfig, RunSummary, Sampling, Speculation, load_pair, stream
from mspeckv.api import release
from mspeckv.events import Round
from mspeckv.testing import tiny_pair, tiny_prompt
from mspeckv.testing.logits import Decoded, decoded

GREEDY = Sampling(temperature=0, stop_at_eos=False)
DRAWN = Sampling(temperature=0.6, top_p=0.9, seed=1, stop_at_eos=False)
CONTEXTS = {
    "tiny": (200,), "small": (4096, 16384), "large": (8192, 16384), "untrained": (8192, 32768),
}  # fmt: skip
PRICED = {**CONTEXTS, "large": (16384,), "untrained": (32768,)}
NEW_TOKENS = {"tiny": (24, 24), "small": (48, 128), "large": (24, 96), "untrained": (24, 48)}
"""Of a comparison, and of a run that is timed."""
LONGEST = 16384
TURNS = 3
SPARE = 256
"""Positions of a context that the prompt leaves over, at least."""

Row = dict[str, Any]
Group = tuple[str, str, int, str]
"""Pair, dtype, context, placement: one plain text for all that is compared."""


def make_pair(name: str, dtype: str, device: str, context: int) -> Pair:
    """A pair whose target takes so long a context."""
    if name == "tiny":
        whole = tiny_pair(layers=4)
        models = [copy.deepcopy(model).to(device, getattr(torch, dtype)) for model in whole.models]
        return Pair.of(models[0], models[1])
    if name == "untrained":
        target, draft = (
            random_llama(shape, device, getattr(torch, dtype), 32000)
            for shape in ("32x4096", "2x512")
        )
        return Pair.of(target, draft)
    pair = load_pair(device=device, dtype=dtype, weights="float")
    target = pair.target
    if name == "large":
        target = inflate(stretch(target, LONGEST), LLAMA_2_7B)
    elif context > pair.max_positions:
        target = stretch(target, context)
    return Pair.of(target, pair.draft, pair.tokenizer)


def placements(layers: int) -> dict[str, KVPolicy]:
    """Floats on the device; three places; everything packed and away; and its halves apart."""
    third = layers // 3
    return {
        "full, on-chip": KVPolicy("full", on_chip=layers),
        "int8, thirds": KVPolicy(8, on_chip=third, resident=third),
        "int4, 0 + 0": KVPolicy(4),
        "nibble, 0 + 0": KVPolicy(8, nibble=True),
    }


def prompt_for(pair: Pair, context: int, dice: random.Random) -> list[int]:
    """A text of some kind, nearly as long as the context."""
    if pair.tokenizer is None:
        return tiny_prompt(context - dice.randint(0, 40), pair.vocab_size, dice.randint(0, 9))
    length = context - SPARE - dice.randint(0, 63)
    return prompt_of(dice.choice(KINDS), pair.tokenizer, length)


def guesses(dice: random.Random, tiny: bool) -> Speculation:
    """Tiers below, at random; a round may ask for more guesses than a pass has rows."""
    sizes = (48, 96) if tiny else (256, 1024, 4096)
    return Speculation(
        gamma=dice.choice([1, 2, 3, 5, 8, 12, 15, 20, "auto"]),
        draft_gamma=dice.choice([1, 2, 3, "auto"]),
        budget=dice.choice(sizes), chunk=dice.choice([4, 8, 16]), recent=dice.choice([8, 16]),
        refresh=dice.choice([0, 4, 8]), window=dice.choice([24, 252]),
    )  # fmt: skip


def equality(pair: Pair, group: Group, control: bool) -> Iterator[Row]:
    """Every way against plain decoding, bit by bit; ``control`` once more without the option."""
    name, _, context, placement = group
    dice = random.Random(f"{name} {context} {placement}")
    policy, prompt = placements(pair.layers)[placement], prompt_for(pair, context, dice)
    count = NEW_TOKENS[name][0]
    base = RunConfig("autoregressive", count, policy, sampling=GREEDY, exact="bitwise")
    plain = decoded(pair, prompt, base)
    ways: dict[str, RunConfig] = {}
    if control:
        ways["more tokens"] = replace(base, new_tokens=count + count // 3)
        ways["plain, no graphs"] = replace(base, graphs=False)
    methods = {"lookup": "vanilla", "three tiers": "mspeckv"}
    if name != "large":
        methods["draft"] = "vanilla"
    if policy.lossless:
        methods["triforce"] = "triforce"
    for way, method in methods.items():
        guess = guesses(dice, name == "tiny")
        if way == "lookup":
            guess = replace(guess, tier0="lookup")
        if policy.nibble and way == "three tiers":
            guess = replace(guess, tier1="nibble")
        ways[way] = replace(base, method=method, speculation=guess)
    for way, config in ways.items():
        yield {"way": way, **compared(plain, partial(decoded, pair, prompt, config))}
    if control:
        loose = {way: replace(ways[way], exact="tokens") for way in ("lookup", "three tiers")}
        alone = decoded(pair, prompt, replace(base, exact="tokens"))
        for way, config in loose.items():
            found = compared(alone, partial(decoded, pair, prompt, config))
            yield {"way": f"{way}, exact=tokens", **found}
        yield {"way": "three tiers, drawn, elsewhere", **drawn(pair, prompt, ways["three tiers"])}


def drawn(pair: Pair, prompt: list[int], config: RunConfig) -> Row:
    """Sampled text with KV on the device and away: rounds align, so the draws are the same."""
    guess = replace(config.speculation, gamma=5, draft_gamma=2)
    here = replace(config, sampling=DRAWN, speculation=guess)
    away = replace(here, policy=KVPolicy("full", on_chip=pair.layers // 2))
    return compared(decoded(pair, prompt, here), partial(decoded, pair, prompt, away))


def compared(plain: Decoded, way: Callable[[], Decoded]) -> Row:
    """What differs from plain decoding, and how many rows of logits do up to the first token."""
    start = time.perf_counter()
    found = way()
    count = min(len(plain.tokens), len(found.tokens))
    pairs = zip(plain.tokens, found.tokens, strict=False)
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), count)
    # from the first other token on, texts go on apart
    rows = slice(0, min(same + 1, count))
    apart = (plain.logits[rows] != found.logits[rows]).any(1)
    return {
        "tokens": count, "rounds": len(found.rounds), "same_tokens": same,
        "rows_compared": len(apart), "rows_apart": int(apart.sum()),
        "first_bit_at": found.differs_at(plain), "seconds": time.perf_counter() - start,
    }  # fmt: skip


def price_ways(layers: int, name: str) -> Mapping[str, tuple[str, KVPolicy, Speculation]]:
    """The runs that are timed: method, KV and guesses."""
    here, half = KVPolicy("full", on_chip=layers), layers // 2
    guess = Speculation(gamma=8, draft_gamma=3, budget=96 if name == "tiny" else 4096, refresh=0)
    out = {
        "plain, on-chip": ("autoregressive", here, guess),
        "lookup 8, on-chip": ("vanilla", here, replace(guess, tier0="lookup")),
        "mspeckv 8/3, on-chip": ("mspeckv", here, guess),
    }
    if name != "small":
        packed = KVPolicy(8, on_chip=half, resident=layers - half)
        out["plain, int8 half + half"] = "autoregressive", packed, guess
        out["mspeckv 8/3, int8 half + half"] = "mspeckv", packed, guess
        out["mspeckv 15/3, int8 0 + 0"] = "mspeckv", KVPolicy(8), replace(guess, gamma=15)
    return out


def timed(pair: Pair, prompt: list[int], config: RunConfig) -> dict[str, float]:
    """Milliseconds of a token, of a round and of a pass of tier 2."""
    events = list(stream(pair, prompt, config))
    rounds = [event for event in events if isinstance(event, Round)]
    assert isinstance(events[-1], RunSummary)
    ms = sum(one.ms for one in rounds)
    passes = [one.ms for event in rounds for one in event.passes if one.tier == 2]
    return {
        "ms_token": ms / len(events[-1].tokens), "ms_round": ms / len(rounds),
        "ms_pass": median(passes), "tokens_round": len(events[-1].tokens) / len(rounds),
    }  # fmt: skip


def prices(pair: Pair, group: Group, way: str, turns: int) -> Iterator[Row]:
    """A way with and without the option, the turns of one after those of the other."""
    name, _, context, _ = group
    prompt = prompt_for(pair, context, random.Random(0))
    method, policy, guess = price_ways(pair.layers, name)[way]
    config = RunConfig(method, NEW_TOKENS[name][1], policy, guess, GREEDY)
    found: dict[str, list[dict[str, float]]] = {}
    for exact in ("tokens", "bitwise"):
        one = replace(config, exact=exact)
        found[exact] = [timed(pair, prompt, one) for _ in range(1 + turns)]
    row: Row = {"way": way}
    for exact, runs in found.items():
        row[f"{exact}_first_ms_token"] = runs[0]["ms_token"]
        for key in runs[0]:
            row[f"{exact}_{key}"] = median(run[key] for run in runs[1:])
    yield row


def groups(options: argparse.Namespace) -> Iterator[tuple[str, Group]]:
    """What is asked for, so that a pair is made as seldom as can be."""
    for name in options.pairs:
        for dtype in options.dtypes:
            for context in options.contexts or CONTEXTS[name]:
                if "equal" in options.parts:
                    for place in PLACES:
                        yield "equal", (name, dtype, context, place)
                priced = options.contexts or PRICED[name]
                if "price" in options.parts and context in priced and dtype == options.dtypes[0]:
                    for place in price_ways(2, name):
                        yield "price", (name, dtype, context, place)


PLACES = tuple(placements(3))


def run(options: argparse.Namespace, rows: list[Row], keep: Callable[[Row], None]) -> None:
    """Everything that is asked for, and not in ``rows`` yet."""
    done = {(row["part"], row["pair"], row["dtype"], row["context"], row["group"]) for row in rows}
    deadline = time.monotonic() + options.seconds
    pair: Pair | None = None
    made: object = None
    begin: Callable[[], Iterator[Row]] | None = None
    for part, group in groups(options):
        name, dtype, context, place = group
        chosen = not options.places or any(one in place for one in options.places)
        if (part, *group) in done or not chosen:
            continue
        if time.monotonic() > deadline:
            print("out of time before", part, *group, flush=True)
            return
        wanted = name, dtype, context if name == "small" else 0
        if wanted != made:
            pair = begin = None
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
            pair, made = make_pair(name, dtype, options.device, context), wanted
        assert pair is not None
        begin = partial(prices, pair, group, place, options.turns)
        if part == "equal":
            begin = partial(equality, pair, group, place == PLACES[0])
        try:
            for row in list(begin()):
                keep({"part": part, "pair": name, "dtype": dtype, "context": context,
                      "group": place, **row})  # fmt: skip
        except (torch.OutOfMemoryError, ValueError) as error:
            print(part, *group, "failed:", str(error).splitlines()[0], flush=True)
        release(pair)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables; write a line of JSON per comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["equal", "price"], metavar="PART")
    parser.add_argument("--pairs", nargs="+", default=["small", "large"], choices=list(CONTEXTS))
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--contexts", type=int, nargs="+", help="default: those of the pair")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each timed way")
    parser.add_argument("--places", nargs="+", help="groups whose name contains one of these")
    parser.add_argument("--seconds", type=float, default=3600, help="begin nothing after these")
    parser.add_argument("--out", type=Path, help="folder of bitwise.jsonl; run again to go on")
    options = parser.parse_args(arguments)
    file = options.out / "bitwise.jsonl" if options.out is not None else None
    rows: list[Row] = []
    if file is not None and file.exists():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    print(machine(torch.device(options.device)), end="\n\n", flush=True)

    def keep(row: Row) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        if file is not None:
            with file.open("a", encoding="utf-8") as lines:
                lines.write(f"{json.dumps(row)}\n")

    run(options, rows, keep)
    print(f"\n{tables(rows)}")


if __name__ == "__main__":
    main()
