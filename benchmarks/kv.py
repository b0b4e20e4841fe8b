"""The KV store beside the KV caches of transformers: bytes, time per step, quality, overlap.

    python -m benchmarks.kv --quick          # 1 k only
    python -m benchmarks.kv                  # 1 k, 4 k, 8 k
    python -m benchmarks.kv --device cuda --dtype float16

The peers' packages come with the extra ``bench``. Every figure is measured in this process, on the
same model and text; the throttled link of the overlap table is emulated, and that table and the one
of peak memory are a CPU's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import mean, median

import torch

from benchmarks.caches import Ours, Stock, Subject, subjects
from benchmarks.report import machine, median_ms, table, wait
from mspeckv import KVPolicy, Pair, documents, load_pair
from mspeckv.events import Pass
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape

UNSEEN, PASS, WARM, STEPS, TURN = 512, 16, 2, 128, 16
"""Tokens judged, tokens per judged pass, tokens before timing, steps timed, steps per turn.

The steps are as many as the peers keep unquantized by default, so that each cache's upkeep, which
comes once in so many tokens, is in the mean time of a step. The other counts are even because HQQ
packs two int4 values at a time over all tokens together.
"""


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 k of context only")
    parser.add_argument("--contexts", help="such as 1024,4096,7680")
    parser.add_argument("--widths", default="8,4,2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    pair = load_pair(draft="none", device=options.device, dtype=options.dtype, weights="float")
    default = "1024" if options.quick else "1024,4096,7680"
    contexts = [int(n) for n in (options.contexts or default).split(",")]
    widths = tuple(int(n) for n in options.widths.split(","))
    print(machine(pair.device), end="\n\n")
    tokens = documents.load_document("python-reference", pair.tokenizer, max(contexts) + UNSEEN)
    with torch.inference_mode():
        for context in contexts:
            print(compare(pair, tokens[: context + UNSEEN], widths), end="\n\n")
        for context in contexts:
            print(verification(pair, tokens[:context]), end="\n\n")
        print(codec_speed(pair, 4096, widths))
        if pair.device.type == "cpu":
            print("\n" + overlap(pair, tokens[:1024]))
    if pair.device.type == "cpu":
        print("\n" + peak_memory(contexts))


def compare(pair: Pair, tokens: list[int], widths: tuple[int, ...]) -> str:
    """Bytes, time and quality of every cache after one prompt."""
    prompt, unseen = tokens[:-UNSEEN], tokens[-UNSEEN:]
    made: dict[str, Subject] = {}
    rows: list[Sequence[object]] = []
    for name, make in subjects(pair, len(tokens), widths).items():
        try:
            subject = make()
            subject.prefill(prompt)
        except ImportError as error:
            rows.append((name, f"needs {error.name}", "", "", "", ""))
        except RuntimeError as error:
            rows.append((name, f"fails: {str(error).splitlines()[0][:40]}", "", "", "", ""))
        else:
            made[name] = subject
    stored = {name: subject.stored_bytes() / len(prompt) for name, subject in made.items()}
    steps, logits, failed = _read_in_turns(made, unseen)
    rows += [(name, stored[name], "", reason, "", "") for name, reason in failed.items()]
    reference = next(iter(logits.values())).float().softmax(-1)
    floats = pair.layers * KVShape.of(pair.target.config, pair.dtype).token_bytes
    for name, found in logits.items():
        probs = found.float().softmax(-1)
        variation = float((probs - reference).abs().sum(-1).mean() / 2)
        agreement = float((probs.argmax(-1) == reference.argmax(-1)).float().mean())
        size = stored[name]
        rows.append((name, size, size / floats, steps[name], variation, agreement))
    for subject in made.values():
        subject.close()
    headers = (
        "cache", "bytes/token", "of float", "ms/step", "total variation", "top-1 agreement"
    )  # fmt: skip
    title = f"{len(prompt)} tokens of context, {UNSEEN} unseen tokens judged (measured)"
    return f"{title}\n{table(headers, rows)}"


def _read_in_turns(
    made: dict[str, Subject], unseen: list[int]
) -> tuple[dict[str, float], dict[str, torch.Tensor], dict[str, str]]:
    """Mean step time in ms, upkeep included; the logits of the unseen tokens; who failed and why.

    The caches take turns, some steps each, so that a slow spell of the machine slows all of them.
    A peer that fails on the way, as HQQ at 2 bits does at most lengths, loses its row, not the run.
    """
    failed: dict[str, str] = {}
    logits = {name: [subject.read(unseen[:WARM])] for name, subject in made.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    turns = [unseen[first : first + TURN] for first in range(WARM, WARM + STEPS, TURN)]
    rest = [unseen[at : at + PASS] for at in range(WARM + STEPS, len(unseen), PASS)]
    for number, turn in enumerate([*turns, unseen[WARM + STEPS :]]):
        timed = number < len(turns)
        for name in [name for name in made if name not in failed]:
            try:
                for tokens in ([token] for token in turn) if timed else rest:
                    start = time.perf_counter()
                    logits[name].append(made[name].read(tokens))
                    wait()
                    if timed:
                        times[name].append((time.perf_counter() - start) * 1e3)
            except RuntimeError as error:
                failed[name] = f"fails: {str(error).splitlines()[0][:40]}"
                del logits[name], times[name]
    steps = {name: mean(found) for name, found in times.items()}
    return steps, {name: torch.cat(found) for name, found in logits.items()}, failed


def verification(pair: Pair, prompt: list[int]) -> str:
    """A pass over several guesses: ours (all on-chip) against stock transformers."""
    from transformers import DynamicCache

    rows = []
    for count in (1, 5, 9, 17):
        ours = Ours(pair, KVPolicy("full", on_chip=pair.layers), len(prompt) + 32)
        ours.prefill(prompt[:-count])
        stock = Stock(pair.target, DynamicCache())
        stock.prefill(prompt[:-count])

        def our_pass(ours: Ours = ours, count: int = count) -> None:
            ours.reader.read(prompt, rows=count)
            ours.reader.settle(len(prompt) - count)

        def stock_pass(stock: Stock = stock, count: int = count) -> None:
            stock.read(prompt[-count:])
            stock.crop(count)

        our_ms, stock_ms = median_ms(our_pass, 9), median_ms(stock_pass, 9)
        ours.close()
        rows.append((count, our_ms, stock_ms, our_ms / stock_ms))
    headers = ("tokens", "ours ms", "transformers ms", "ratio")
    return f"Verification pass at {len(prompt)} tokens (measured)\n{table(headers, rows)}"


def codec_speed(pair: Pair, tokens: int, widths: tuple[int, ...]) -> str:
    """Packing and unpacking one layer against copying its floats."""
    shape = KVShape.of(pair.target.config, pair.dtype)
    floats_of = (2, 1, shape.heads, tokens, shape.dim)
    key, value = torch.randn(floats_of, dtype=shape.dtype, device=pair.device).unbind(0)
    outs = torch.empty_like(key), torch.empty_like(value)
    floats = tokens * shape.token_bytes

    def copy() -> None:
        outs[0].copy_(key)
        outs[1].copy_(value)

    copy_ms = median_ms(copy, 30)
    rows = []
    for bits in widths:
        codec = BlockCodec(shape, KVPolicy(bits))
        records = codec.encode(key, value)
        encode_ms = median_ms(lambda codec=codec: codec.encode(key, value), 20)  # type: ignore[misc]
        decode_ms = median_ms(
            lambda codec=codec, records=records: codec.decode(records, *outs),  # type: ignore[misc]
            20,
        )
        rows.append(
            (f"int{bits}", encode_ms, decode_ms, decode_ms / copy_ms, floats / decode_ms / 1e6)
        )
    headers = ("width", "quantize ms", "dequantize ms", "of a float copy", "GB/s of floats out")
    title = f"One layer, {tokens} tokens; copying its floats takes {copy_ms:.2f} ms (measured)"
    return f"{title}\n{table(headers, rows)}"


def overlap(pair: Pair, prompt: list[int]) -> str:
    """Double buffering: a pass over offloaded layers against max and sum of its two parts."""
    policy = KVPolicy(8)
    compute = _pass_ms(pair, policy, prompt, None)[0]
    rows = []
    for ratio in (0.5, 1.0, 2.0, 4.0):
        probe = Ours(pair, policy, len(prompt) + 16)
        moved = pair.layers * probe.cache.pipeline.record_bytes * (len(prompt) - 32) // policy.block
        probe.close()
        gbps = moved / (ratio * compute / 1e3) / 1e9
        total, transfer = _pass_ms(pair, policy, prompt, gbps)
        longest, added = max(compute, transfer), compute + transfer
        rows.append((gbps, compute, transfer, total, total / longest, total / added))
    headers = ("GB/s", "compute ms", "transfer ms", "pass ms", "of max", "of sum")
    title = f"Overlap at {len(prompt)} tokens, int8, all layers offloaded (emulated link)"
    return f"{title}\n{table(headers, rows)}"


def _pass_ms(
    pair: Pair, policy: KVPolicy, prompt: list[int], gbps: float | None
) -> tuple[float, float]:
    """Median pass time, and median time from a pass's first transfer to its last, in ms."""
    subject = Ours(pair, policy, len(prompt) + 16, gbps)
    subject.prefill(prompt[:-12])
    passes: list[Pass] = []
    busy = []
    for token in prompt[-12:]:
        start = time.perf_counter()
        subject.read([token])
        ms = (time.perf_counter() - start) * 1e3
        transfers = subject.recorder.take().transfers
        fetched = [t for t in transfers if t.direction == "to_device"]
        busy.append(sum(t.ms for t in fetched))
        passes.append(Pass(2, "decode", 1, 0, 0.0, ms))
    subject.close()
    return median(p.ms for p in passes[2:]), median(busy[2:])


def peak_memory(contexts: list[int]) -> str:
    """Peak resident memory of whole runs, each in a fresh process, against the prediction."""
    rows = []
    for context in contexts:
        for method, width, on_chip, resident in (
            ("autoregressive", "full", 30, 0),
            ("mspeckv", "8", 15, 15),
            ("mspeckv", "8", 0, 0),
        ):
            command = [sys.executable, "-m", "benchmarks.peak", str(context), method, width]
            command += [str(on_chip), str(resident)]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            measured, predicted = map(int, out.stdout.split()[-2:])
            rows.append(
                (context, method, f"{width} {on_chip}+{resident}", measured / 1e6, predicted / 1e6,
                 predicted / measured)
            )  # fmt: skip
    headers = ("context", "method", "policy", "measured MB", "predicted MB", "ratio")
    title = "Peak resident memory of a run, over the imports' (measured, modelled)"
    return f"{title}\n{table(headers, rows)}"


if __name__ == "__main__":
    main()
