"""Speed on a GPU: ceilings first, then the published ablations' settings, then peers.

    python -m benchmarks.gpu --out results/          # a card's tables; some 25 minutes on an H200
    python -m benchmarks.gpu --out results/ --budget-seconds 400     # as far as that goes; again
    python -m benchmarks.gpu a1 --contexts 32768     # one part

The target has the *cost* of a Llama-2-7B in float16, and the *acceptance* of SmolLM2-135M-Instruct,
which `benchmarks.inflate` embeds in its shape; contexts past 8 k by YaRN. Nothing here says
how well a real 7B would be guessed. Decoding is greedy over the Python language reference. A
way's time per token is that of its rounds, prefill not counted, graphs captured before. Beside a
tier's time stands its share of the limit: the time in which a device copy moves as many bytes as
its passes read.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import attention, bitwise
from benchmarks import gpu_cases as cases
from benchmarks.attention import copy_rate
from benchmarks.gpu_cases import Case, Found
from benchmarks.gpu_lengths import chosen_lengths
from benchmarks.gpu_peers import peers
from benchmarks.inflate import LLAMA_2_7B, inflate, stretch
from benchmarks.report import machine, table
from mspeckv import Pair, load_pair
from mspeckv.api import release
from mspeckv.settings import refuse
from mspeckv_study.documents import load_document

PARTS = (
    "ceilings", "attention", "a1", "a2", "b1", "b2", "peers", "agreement", "exact", "lengths",
    "bitwise",
)  # fmt: skip
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


Key = tuple[str, int, str]
"""Part, context, and name of a case."""
Row = dict[str, Any]


@dataclass
class Card:
    """What was measured on one machine, kept in a file as it comes, and gone on with.

    Args:
        folder: of ``gpu.jsonl``; None to keep nothing.
        only: part of a case's name.
        budget: seconds after which nothing is begun.

    Raises:
        ValueError: the file is another machine's.
    """

    folder: Path | None
    only: str | None
    budget: float

    def __post_init__(self) -> None:
        self.rows: list[Row] = []
        self.deadline = time.monotonic() + self.budget
        self.late: list[Key] = []
        self.file = self.folder / "gpu.jsonl" if self.folder is not None else None
        if self.file is not None and self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines()
            self.rows = [json.loads(line) for line in lines]
        here = machine(torch.device("cuda"))
        before = self.find(("machine", 0, ""))
        if before is not None and before["text"] != here:
            raise refuse("out", str(self.file), f"it is of {before['text']}: use another folder")
        self.keep(("machine", 0, ""), lambda: {"text": here})

    def find(self, key: Key) -> Row | None:
        """The row that is there already."""
        return next(
            (row for row in self.rows if (row["part"], row["context"], row["case"]) == key), None
        )

    def keep(self, key: Key, work: Callable[[], Row]) -> Row | None:
        """Measure, print and write a row, unless it is there or time is up."""
        found = self.find(key)
        if found is not None or (self.only is not None and self.only not in key[2]):
            return found
        if time.monotonic() > self.deadline:
            self.late.append(key)
            return None
        try:
            row = work()
        except (torch.OutOfMemoryError, ValueError) as error:
            print(*key, "failed:", str(error).splitlines()[0], flush=True)
            return None
        part, context, case = key
        row = {"part": part, "context": context, "case": case, **row}
        self.rows.append(row)
        print(row.get("text") or self.line(row), end="\n\n" if "text" in row else "\n", flush=True)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(row)}\n")
        return row

    def line(self, row: Row) -> str:
        """A case's line, beside the first of its part and context."""
        alike = (one for one in self.rows if one["part"] == row["part"])
        base = next(one for one in alike if one["context"] == row["context"])
        rate = self.find(("rate", 0, ""))
        return Found.of(row).line(row["case"], base["ms"], rate["rate"] if rate else 1e12)

    def print(self) -> None:
        """Everything there is, by part and context."""
        print("\n--- the card ---")
        last: object = None
        for row in self.rows:
            if "text" in row:
                print(f"\n{row['text']}")
            elif "ms" in row:
                if (row["part"], row["context"]) != last:
                    last = row["part"], row["context"]
                    print(f"\n{row['part'].upper()}, {row['context']} tokens (measured)")
                print(self.line(row))
        if self.late:
            print(f"\nnot begun in time: {', '.join(' '.join(map(str, key)) for key in self.late)}")


def measure(card: Card, parts: Sequence[str], contexts: Sequence[int]) -> None:
    """Every part that is asked for, the large pair made once."""

    def text(part: str, make: Callable[[], str], context: int = 0) -> None:
        if part in parts:
            card.keep((part, context, ""), lambda: {"text": make()})

    card.keep(("rate", 0, ""), lambda: {"rate": copy_rate(), "text": "rate of a device copy: kept"})
    text("ceilings", ceilings)
    text("attention", attention.tables)
    text("exact", exact)
    text("lengths", lambda: chosen_lengths(load_pair(device="cuda", dtype="float16")))
    pair = Lazy()
    text("agreement", lambda: cases.agreement(pair.made(), max(contexts)), max(contexts))
    for context in contexts:
        text("peers", partial(_peers, pair, context), context)
    for part, context, chosen in cases.of_parts(parts, contexts):
        for case in chosen:
            card.keep((part, context, case.name), partial(_run, pair, context, case))
        pair.release()
    if "bitwise" in parts and time.monotonic() < card.deadline:
        pair.drop()
        left = card.deadline - time.monotonic()
        out = ["--out", str(card.folder)] if card.folder is not None else []
        bitwise.main(["--seconds", str(left), *out])


class Lazy:
    """The large pair, made when it is first wanted."""

    def __init__(self) -> None:
        self._pair: Pair | None = None

    def made(self) -> Pair:
        """The pair."""
        self._pair = self._pair or make_pair()
        return self._pair

    def release(self) -> None:
        """Give back caches and graphs."""
        if self._pair is not None:
            release(self._pair)
        gc.collect()

    def drop(self) -> None:
        """Give back everything."""
        self.release()
        self._pair = None
        gc.collect()
        torch.cuda.empty_cache()


def _peers(pair: Lazy, context: int) -> str:
    pair.release()
    return peers(pair.made(), context)


def _run(pair: Lazy, context: int, case: Case) -> Row:
    whole = pair.made()
    assert whole.tokenizer is not None
    prompt = load_document("python-reference", whole.tokenizer, context)
    return cases.run(whole, prompt, case).to_json()


def main() -> None:
    """Measure what is asked for and not there yet; print the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 16384, 24576, 32768])
    parser.add_argument("--only", help="only cases whose name contains this")
    parser.add_argument("--budget-seconds", type=float, default=3600, help="begin nothing after")
    parser.add_argument("--out", type=Path, help="folder of gpu.jsonl; run again to go on")
    options = parser.parse_args()
    card = Card(options.out, options.only, options.budget_seconds)
    measure(card, options.parts, options.contexts)
    card.print()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
