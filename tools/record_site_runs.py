"""Record the runs that the site replays: one prompt, one KV policy, three ways to decode it.

    python -m tools.record_site_runs [FOLDER]

Greedy, so that all ways write the same text; over the emulated link, so that a wait can be seen.
The files go where `mspeckv site build` reads them. Half a minute on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mspeckv import (
    KVPolicy,
    Link,
    Pair,
    Prefill,
    Round,
    RunConfig,
    Sampling,
    documents,
    load_pair,
    stream,
)
from mspeckv_widgets.charts.story import split_text
from mspeckv_widgets.record import Setting
from mspeckv_widgets.recording import Pieces, Recording
from mspeckv_widgets.site.films import PROMPT, RUNS, WAYS

DOCUMENT, PREFILL, NEW_TOKENS = "python-reference", 1024, 32
BEFORE = 28
"""Tokens of the prompt's end that are shown before the text."""
POLICY = KVPolicy(bits=8, on_chip=10, resident=10)


def record(pair: Pair, method: str) -> Recording:
    """One way of decoding, run now."""
    config = RunConfig.build(
        method=method,
        new_tokens=NEW_TOKENS,
        policy=POLICY,
        sampling=Sampling(temperature=0),
        link=Link("live"),
    )
    tokenizer: Any = pair.tokenizer
    prompt = documents.load_document(DOCUMENT, tokenizer, PREFILL)
    events = tuple(
        event for event in stream(pair, prompt, config) if isinstance(event, (Prefill, Round))
    )
    rounds = [event for event in events if isinstance(event, Round)]
    settled = [token for one in rounds for token in one.tokens]
    # rejected guesses are seen too; a settled token is written as it stands in the text
    guessed = {token for one in rounds for guess in one.guesses for token in guess.tokens}
    words = {token: str(tokenizer.decode([token])) for token in guessed}
    words |= {settled[place]: text for place, text in split_text(tokenizer, settled)}
    return Recording(Setting(DOCUMENT, PREFILL, config), events, Pieces(words))


def main() -> None:
    """Record them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    folder.mkdir(parents=True, exist_ok=True)
    pair = load_pair(weights="float")
    tokenizer: Any = pair.tokenizer
    prompt = documents.load_document(DOCUMENT, tokenizer, PREFILL)
    (folder / PROMPT).write_text(tokenizer.decode(prompt[-BEFORE:]), encoding="utf-8")
    for method in WAYS:
        record(pair, method).save(folder / f"{method}.json.gz")


if __name__ == "__main__":
    main()
