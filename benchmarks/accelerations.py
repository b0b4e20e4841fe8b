"""What each acceleration of `mspeckv.accelerate` saves: the same run with it, and without it alone.

    python -m benchmarks.accelerations                 # four minutes on two cores
    python -m benchmarks.accelerations --prefill 8192

Each is timed where it applies, over real prose, link off. The two ways take turns; a figure is the
median of all but the first turn, with the range beside it. Time is a run's milliseconds per token,
prefill not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.report import Rows, machine, table
from mspeckv import KVPolicy, Pair, RunConfig, RunSummary, Sampling, Speculation, load_pair, stream
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import chosen, engine_of, hooks_for
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.documents import load_document

GREEDY = Sampling(temperature=0, stop_at_eos=False)


@dataclass(frozen=True)
class Case:
    """Where an acceleration applies.

    Attributes:
        name: its module.
        where: in words.
        config: the run.
    """

    name: str
    where: str
    config: RunConfig


def cases(pair: Pair, new_tokens: int) -> list[Case]:
    """One for each acceleration that this pair's device has."""
    on_chip = KVPolicy("full", on_chip=pair.layers)
    plain = RunConfig("autoregressive", new_tokens, on_chip, sampling=GREEDY)
    resident = KVPolicy(4, resident=pair.layers)
    packed = RunConfig("autoregressive", new_tokens, resident, sampling=GREEDY)
    guess = Speculation(gamma=4)
    vanilla = RunConfig("vanilla", new_tokens, on_chip, guess, GREEDY)
    short = Speculation(gamma=4, draft_vocab=8192)
    shorter = RunConfig("vanilla", new_tokens, on_chip, short, GREEDY)
    if pair.device.type == "cuda":
        return [
            Case("workspace", "plain decoding, float KV", plain),
            Case("triton_unpack", "plain decoding, int4 residents", packed),
            Case("short_head", "a draft that scores 8192 tokens", shorter),
        ]
    return [
        Case("split_keys", "plain decoding, float KV", plain),
        Case("packed_attention", "plain decoding, int4 residents", packed),
        Case("weight_copies", "plain decoding, float KV", plain),
        Case("weight_copies", "a draft guesses 4", vanilla),
        Case("short_head", "a draft that scores 8192 tokens", shorter),
    ]


def compare(
    pair: Pair, prompt: Sequence[int], case: Case, turns: int, prefills: Prefills
) -> tuple[object, ...]:
    """A row: medians and ranges with and without, and the saving."""
    engine = engine_of(pair)
    before = engine.hooks
    others = tuple(name for name in chosen() if name != case.name)
    ways: dict[str, Hooks] = {"with": before, "without": hooks_for(pair, others)}
    found: dict[str, list[RunSummary]] = {way: [] for way in ways}
    try:
        for _ in range(turns + 1):
            for way, hooks in ways.items():
                engine.give_back()
                engine.hooks = hooks
                *_, last = stream(pair, prompt, case.config, prefills=prefills)
                assert isinstance(last, RunSummary)
                found[way].append(last)
    finally:
        engine.give_back()
        engine.hooks = before
    same = len({one.tokens for runs in found.values() for one in runs}) == 1
    times = {way: [one.ms_per_token for one in runs[1:]] for way, runs in found.items()}
    on, off = (median(times[way]) for way in ("with", "without"))
    spans = [f"{min(times[way]):.1f} - {max(times[way]):.1f}" for way in ("with", "without")]
    return (
        case.name, case.where, on, spans[0], off, spans[1], f"{1 - on / off:+.0%}",
        "same" if same else "another",
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefill", type=int, default=4096)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5, help="of each way, besides the first")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pair = load_pair(device=options.device)
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, options.prefill)
    print(machine(pair.device))
    print(f"{options.prefill} tokens of prompt, {options.new_tokens} new ones, greedy", end="\n\n")
    rows, prefills = Rows(), Prefills()
    for case in cases(pair, options.new_tokens):
        rows.append(compare(pair, prompt, case, options.turns, prefills))
    headers = (
        "acceleration", "where", "ms/token", "range", "without", "range", "saves", "text",
    )  # fmt: skip
    print(table(headers, rows))


if __name__ == "__main__":
    main()
