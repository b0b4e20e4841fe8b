"""What each acceleration of `mspeckv.accelerate` saves: the same run with it, and without it alone.

    python -m benchmarks.accelerations                 # four minutes on two cores
    python -m benchmarks.accelerations --prefill 8192
    python -m benchmarks.accelerations --weights int4  # what packed weights have of their own
    python -m benchmarks.accelerations --untrained 8x4096 --device cuda --prefill 32000

Each is timed where it applies, over real prose, link off. The two ways take turns; a figure is the
median of all but the first turn, with the range beside it. Time is a run's milliseconds per token,
prefill not counted. ``--untrained`` takes random weights of a shape, which change no time, where
the model is not at hand or too small for the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.report import Rows, machine, table
from mspeckv import KVPolicy, Pair, RunConfig, RunSummary, Sampling, Speculation, load_pair, stream
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import chosen, engine_of, hooks_for
from mspeckv.models.packed import BITS, form_of
from mspeckv_study.documents import load_document

GREEDY = Sampling(temperature=0, stop_at_eos=False)


@dataclass(frozen=True)
class Case:
    """Where an acceleration applies.

    Attributes:
        name: its module.
        where: in words.
        config: the run.
        beside: another that would take its place, left out of both ways.
    """

    name: str
    where: str
    config: RunConfig
    beside: str = ""


def cases(pair: Pair, new_tokens: int) -> list[Case]:
    """One for each acceleration that this pair's device has."""
    on_chip = KVPolicy("full", on_chip=pair.layers)
    plain = RunConfig("autoregressive", new_tokens, on_chip, sampling=GREEDY)
    resident = KVPolicy(4, resident=pair.layers)
    packed = RunConfig("autoregressive", new_tokens, resident, sampling=GREEDY)
    planes = RunConfig("autoregressive", new_tokens, KVPolicy(8, nibble=True), sampling=GREEDY)
    guess = Speculation(gamma=4)
    vanilla = RunConfig("vanilla", new_tokens, on_chip, guess, GREEDY)
    short = Speculation(gamma=4, draft_vocab=8192)
    shorter = RunConfig("vanilla", new_tokens, on_chip, short, GREEDY)
    if pair.device.type == "cuda":
        found = [
            Case("workspace", "plain decoding, float KV", plain),
            Case("triton_unpack", "plain decoding, int4 residents", packed, "decode_attention"),
            Case("decode_attention", "plain decoding, float KV", plain),
            Case("decode_attention", "plain decoding, int4 residents", packed),
        ]
        if pair.draft is not None:
            found.append(Case("short_head", "a draft that scores 8192 tokens", shorter))
        return found
    if form_of(pair.target) != "float":
        three = RunConfig("mspeckv", new_tokens, resident, Speculation(gamma=6), GREEDY)
        return [
            Case("whole_layers", "plain decoding, float KV", plain),
            Case("whole_layers", "a draft guesses 4", vanilla),
            Case("whole_layers", "three tiers, int4 residents", three),
        ]
    return [
        Case("split_keys", "plain decoding, float KV", plain),
        Case("packed_attention", "plain decoding, int4 residents", packed),
        Case("packed_attention", "plain decoding, nibble planes", planes),
        Case("weight_copies", "plain decoding, float KV", plain),
        Case("weight_copies", "a draft guesses 4", vanilla),
        Case("short_head", "a draft that scores 8192 tokens", shorter),
    ]


def untrained(shape: str, device: str) -> Pair:
    """A pair of random weights; of widths from 2048 on without a draft."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    target = random_llama(shape, device, dtype)
    width = shape.split("x")[1]
    return Pair.of(
        target, None if int(width) >= 2048 else random_llama(f"2x{width}", device, dtype)
    )


def random_llama(
    shape: str, device: str, dtype: torch.dtype, vocab: int | None = None
) -> LlamaForCausalLM:
    """A model of random weights: ``30x576`` is layers and width, in heads of 64 or 128.

    Widths from 2048 on have Llama 2's proportions, smaller ones SmolLM2's; ``vocab`` if not theirs.
    """
    layers, width = map(int, shape.split("x"))
    large = width >= 2048
    heads = width // (128 if large else 64)
    config = LlamaConfig(
        vocab_size=vocab or (32000 if large else 49152),
        hidden_size=width, num_hidden_layers=layers,
        intermediate_size=width * 43 // 16 if large else width * 8 // 3,
        num_attention_heads=heads, num_key_value_heads=heads if large else max(1, heads // 3),
        max_position_embeddings=1 << 16, initializer_range=0.05,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    made: LlamaForCausalLM = model.eval()
    return made


def compare(
    pair: Pair, prompt: Sequence[int], case: Case, turns: int, prefills: Prefills
) -> tuple[object, ...]:
    """A row: medians and ranges with and without, and the saving."""
    engine = engine_of(pair)
    before = engine.hooks
    all_but = [name for name in chosen() if name != case.beside]
    others = tuple(name for name in all_but if name != case.name)
    ways = {"with": hooks_for(pair, tuple(all_but)), "without": hooks_for(pair, others)}
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
    parser.add_argument("--weights", default="float", choices=tuple(BITS))
    parser.add_argument("--untrained", metavar="LAYERSxWIDTH", help="random weights of this shape")
    options = parser.parse_args()
    if options.untrained:
        pair, what = untrained(options.untrained, options.device), f"random {options.untrained}"
        prompt = [(7 * place * place + place) % pair.vocab_size for place in range(options.prefill)]
    else:
        pair = load_pair(device=options.device, weights=options.weights)
        what = f"the default pair, weights {options.weights}"
        assert pair.tokenizer is not None
        prompt = load_document("python-reference", pair.tokenizer, options.prefill)
    print(machine(pair.device))
    print(f"{what}, {options.prefill} tokens of prompt, {options.new_tokens} new ones, greedy\n")
    rows, prefills = Rows(), Prefills()
    for case in cases(pair, options.new_tokens):
        rows.append(compare(pair, prompt, case, options.turns, prefills))
    headers = (
        "acceleration", "where", "ms/token", "range", "without", "range", "saves", "text",
    )  # fmt: skip
    print(table(headers, rows))


if __name__ == "__main__":
    main()
