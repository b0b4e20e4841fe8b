r"""Acceptance against context: a draft that reads everything, one with a window, and tier 1.

    python -m benchmarks.draft_context --out labs/results/drafts-at-length.jsonl
    python -m benchmarks.draft_context --device cuda --dtype float16 --positions 32768 \
        --contexts 512 1024 2048 4096 8192 16384 32768 --places 10 --out rows.jsonl

The second line stretches the target to 32 k by YaRN (`benchmarks.inflate.stretch`).

At each place of the Python language reference the same tokens are asked after contexts of several
lengths, so that lengths are compared on one text; and after each context the target goes on by
itself. Nobody decodes: the target's distributions are compared with those of whoever guesses
(`mspeckv_widgets.guess_probe`). A row is a place, a context and a text. Rows that the file has are
not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.inflate import stretch
from mspeckv import Pair, load_pair
from mspeckv_study.documents import load_document
from mspeckv_study.experiments.rows import hardware, installed
from mspeckv_widgets.guess_probe import GuessProbe, Kept, Prefix, squeezed

CONTEXTS = (512, 1024, 2048, 4096, 8192)
"""Tokens that are read, the asked ones included: from the draft's windows in training to all of
the target's positions."""
BUDGETS = (128, 256, 512)
SINKS, WINDOW = 4, 252
"""Of a run's default."""
TRAINED = 512
"""Tokens of the windows that the draft was trained on."""
SEEN = 2 * WINDOW
"""Tokens that reach a guess through two layers of such a window."""
TEXTS = ("document", "own")


def ends(total: int, places: int, longest: int) -> list[int]:
    """Where the texts of each place end, evenly over the document.

    Every third comes first, so that those that are there when time is up are spread too.
    """
    found = [longest + (total - longest) * place // max(1, places - 1) for place in range(places)]
    return [place for start in range(3) for place in found[start::3]]


def far_sinks(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Sinks and window as a mask: the sinks stay where they are."""
    return (key < SINKS) | (query - key < WINDOW)


def guesses(probe: GuessProbe, budgets: Sequence[int]) -> Iterator[tuple[str, Kept]]:
    """Everybody's guesses over one text."""
    read = len(probe.tokens)
    yield "draft, all", probe.reading_all()
    squeezed_draft = squeezed(probe.draft, TRAINED, read)
    yield "draft, all, YaRN", probe.reading_all(squeezed_draft)
    yield "draft, sinks and window", probe.reading_window(SINKS, WINDOW)
    yield "draft, window", probe.reading_window(0, SINKS + WINDOW)
    near = range(max(SINKS, read - SEEN - probe.asked), read)
    yield "draft, far sinks and window", probe.reading_what(far_sinks, [*range(SINKS), *near])
    for budget in budgets:
        yield f"tier 1, {budget}", probe.tier1(budget)
        yield f"draft for tier 1, {budget}", probe.reading_window(SINKS, WINDOW, judge=budget)


def measure(probe: GuessProbe, budgets: Sequence[int]) -> dict[str, Any]:
    """What a row says of everybody: acceptance rates at temperatures 1 and 0."""
    return {
        name: {"sampled": round(kept.rate, 5), "greedy": round(kept.greedy_rate, 5)}
        for name, kept in guesses(probe, budgets)
    }


def known_rows(file: Path) -> set[tuple[Any, ...]]:
    """Place, context and text of the rows that are there."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = map(json.loads, lines)
    return {(row["place"], row["context"], row["text"]) for row in rows}


def main() -> None:
    """Add a line of JSON per row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of rows, added to")
    parser.add_argument("--contexts", type=int, nargs="+", default=list(CONTEXTS))
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--texts", nargs="+", default=list(TEXTS), choices=TEXTS)
    parser.add_argument("--places", type=int, default=12)
    parser.add_argument("--asked", type=int, default=64, help="places asked, the last of each text")
    parser.add_argument("--document", default="python-reference")
    parser.add_argument("--tokens", type=int, default=112_000, help="of the document")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--positions", type=int, help="stretch the target by YaRN")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after these")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    pair = load_pair(device=options.device, dtype=options.dtype, weights="float")
    if options.positions:
        target = stretch(pair.target, options.positions)
        pair = Pair.of(
            target, pair.draft, pair.tokenizer,
            target_id=f"{pair.target_id}, YaRN to {options.positions}", draft_id=pair.draft_id,
        )  # fmt: skip
    assert pair.tokenizer is not None
    document = load_document(options.document, pair.tokenizer, options.tokens)
    known = known_rows(options.out)
    same = {
        "target": pair.target_id, "draft": pair.draft_id, "document": options.document,
        "asked": options.asked, "dtype": options.dtype, "hardware": hardware(pair.device),
        "versions": {name: installed(name) for name in ("mspeckv", "torch", "transformers")},
    }  # fmt: skip
    for place in ends(len(document), options.places, max(options.contexts)):
        for context in options.contexts:
            texts = [text for text in options.texts if (place, context, text) not in known]
            if not texts or time.monotonic() > deadline:
                continue
            began = time.perf_counter()
            *before, first = document[place - context : place - options.asked + 1]
            prefix = Prefix(pair, before, options.budgets, options.asked)
            for text in texts:
                asked = document[place - options.asked : place]
                probe = GuessProbe(prefix, asked if text == "document" else prefix.write(first))
                seconds = round(time.perf_counter() - began, 2)
                row = {
                    "place": place, "context": context, "text": text,
                    "kept": measure(probe, options.budgets), "seconds": seconds,
                    "started": datetime.now(UTC).isoformat(timespec="seconds"), **same,
                }  # fmt: skip
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(place, context, text, f"{seconds} s", flush=True)


if __name__ == "__main__":
    main()
