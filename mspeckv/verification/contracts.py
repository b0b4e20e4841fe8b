"""What else an engine promises: ends, penalties, seeds, batches, and the logprobs that it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from mspeckv.settings import Sampling
from mspeckv.verification.asking import Asking
from mspeckv.verification.engine import Engine, NotOffered
from mspeckv.verification.findings import Finding
from mspeckv.verification.greedy import GREEDY, ROUNDING

TOKENS, ROWS = 24, 3
PENALTY = 1.3


def judge_contracts(
    engine: Engine, against: Engine, ask: Asking, prompt: list[int], sampling: Sampling
) -> list[Finding]:
    """A finding for each; one that the engine does not offer is said to be so."""
    parts: dict[str, Callable[[], Finding]] = {
        "end of sequence inside a round": lambda: _end_token(engine, against, ask, prompt),
        "stop string inside a round": lambda: _stop_string(engine, against, ask, prompt),
        "repetition penalty inside a round": lambda: _same_as_plain(
            "repetition penalty inside a round", engine, against, ask, prompt,
            replace(GREEDY, repetition_penalty=PENALTY),
        ),
        "seeds": lambda: _seeds(engine, ask, prompt, sampling),
        "equal rows of a batch": lambda: _rows(engine, ask, prompt),
        "logprobs": lambda: _logprobs(engine, against, ask, prompt),
    }  # fmt: skip
    found = []
    for name, judged in parts.items():
        try:
            found.append(judged())
        except NotOffered:
            found.append(Finding(name, "not offered", "the engine has no such setting"))
    return found


def _same_as_plain(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int], setting: Sampling
) -> Finding:
    """The same greedy text under a setting; planted: an engine that ignores it."""
    right = ask(against, prompt, setting, TOKENS).tokens
    found = ask(engine, prompt, setting, TOKENS).tokens
    ignored = ask(against, prompt, GREEDY, TOKENS).tokens
    same = found == right
    told = f"{len(right)} tokens, as of plain decoding" if same else f"{found}, not {right}"
    return Finding.of(check, not same, told, ignored != right, "a setting that is ignored")


def _late(tokens: tuple[int, ...]) -> int:
    """A token that first comes well into the text."""
    return max(range(len(tokens)), key=lambda at: (tokens.index(tokens[at]) == at, -abs(at - 9)))


def _end_token(engine: Engine, against: Engine, ask: Asking, prompt: list[int]) -> Finding:
    text = ask(against, prompt, GREEDY, TOKENS).tokens
    ends = replace(GREEDY, stop_tokens=(text[_late(text)],))
    return _same_as_plain("end of sequence inside a round", engine, against, ask, prompt, ends)


def _stop_string(engine: Engine, against: Engine, ask: Asking, prompt: list[int]) -> Finding:
    tokenizer = engine.tokenizer or against.tokenizer
    if tokenizer is None:
        raise NotOffered
    text = ask(against, prompt, GREEDY, TOKENS).tokens
    word = tokenizer.decode([text[_late(text)]])
    stops = replace(GREEDY, stop_strings=(word,))
    return _same_as_plain("stop string inside a round", engine, against, ask, prompt, stops)


def _seeds(engine: Engine, ask: Asking, prompt: list[int], sampling: Sampling) -> Finding:
    ask.check()
    texts = [
        engine.say(prompt, replace(sampling, seed=seed), TOKENS).tokens for seed in (7, 7, 8, 9)
    ]
    again, others = texts[0] == texts[1], len(set(texts[1:])) > 1
    told = "one seed, one text" if again else "one seed gave two texts"
    told += "; other seeds, other texts" if others else "; other seeds gave the same text"
    return Finding.of("seeds", not (again and others), told, others, "the seed ignored")


def _rows(engine: Engine, ask: Asking, prompt: list[int]) -> Finding:
    ask.check()
    alone = ask(engine, prompt, GREEDY, TOKENS).tokens
    rows = [one.tokens for one in engine.rows(prompt, GREEDY, TOKENS, ROWS)]
    same = all(row == alone for row in rows)
    told = f"{ROWS} equal rows say what one says" if same else f"rows differ: {rows}, not {alone}"
    shifted = (*alone[1:], alone[0])
    return Finding.of(
        "equal rows of a batch", not same, told, shifted != alone, "a row one place off"
    )


def _logprobs(engine: Engine, against: Engine, ask: Asking, prompt: list[int]) -> Finding:
    """What the engine tells of its tokens, computed anew; planted: those of the place before."""
    said = ask(engine, prompt, GREEDY, TOKENS // 2, logprobs=True)
    logits = [against.logits(prompt, said.tokens[:at]) for at in range(len(said.tokens))]
    if not said.logprobs or any(row is None for row in logits):
        raise NotOffered
    rows = torch.stack([row.float() for row in logits if row is not None])
    right = rows.log_softmax(-1)[range(len(rows)), list(said.tokens)]
    told = torch.tensor(said.logprobs)
    # each side is known to the rounding alone
    allowed = 2 * ROUNDING * torch.finfo(engine.dtype).eps * float(rows.abs().max())
    off = float((told - right).abs().max())
    shifted = float((told.roll(1) - right).abs().max())
    words = f"{len(rows)} tokens, off by {off:.2g} at most; rounding {allowed:.2g}"
    return Finding.of(
        "logprobs", off > allowed, words, shifted > allowed, "those of the place before", off=off
    )
