"""What else an engine promises: ends, penalties, seeds, batches, and the logprobs that it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from mspeckv.settings import Sampling
from mspeckv.verification.asking import Asking
from mspeckv.verification.engine import Engine, NotOffered
from mspeckv.verification.findings import Finding
from mspeckv.verification.greedy import GREEDY, compared, rounding

TOKENS, ROWS = 24, 3
PENALTY = 1.3


def judge_contracts(
    engine: Engine, against: Engine, ask: Asking, prompt: list[int], sampling: Sampling
) -> list[Finding]:
    """A finding for each; one that the engine does not offer is said to be so."""
    both = engine, against, ask, prompt
    penalty = replace(GREEDY, repetition_penalty=PENALTY)
    parts: dict[str, Callable[[str], Finding]] = {
        "end of sequence inside a round": lambda name: _end_token(name, *both),
        "stop string inside a round": lambda name: _stop_string(name, *both),
        "repetition penalty inside a round": lambda name: _same_as_plain(name, *both, penalty),
        "seeds": lambda name: _seeds(name, *both, sampling),
        "equal rows of a batch": lambda name: _rows(name, *both),
        "logprobs": lambda name: _logprobs(name, *both),
    }
    found = []
    for name, judged in parts.items():
        try:
            found.append(judged(name))
        except NotOffered as why:
            told = str(why) or "the engine has no such setting"
            found.append(Finding(name, "not offered", told))
    return found


def _same_as_plain(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int], setting: Sampling
) -> Finding:
    """The same greedy text under a setting; planted: an engine that ignores it."""
    right = ask(against, prompt, setting, TOKENS).tokens
    found = ask(engine, prompt, setting, TOKENS).tokens
    ignored = ask(against, prompt, GREEDY, TOKENS).tokens
    # nobody knows whether a server takes a setting, but from a server that does
    unknown = right if against.ignores_unknown else found
    if engine.ignores_unknown and unknown == ignored:
        raise NotOffered("the server says the same without that setting")
    if setting.stop_strings and found == right[:-1]:
        found = right  # a stop string may be left out, as OpenAI's servers do
    seen = compared(engine, against, prompt, found, right, setting)
    return Finding.of(check, seen.faulty, seen.told, ignored != right, "a setting that is ignored")


def _late(tokens: tuple[int, ...]) -> int:
    """A token that first comes well into the text."""
    return max(range(len(tokens)), key=lambda at: (tokens.index(tokens[at]) == at, -abs(at - 9)))


def _end_token(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int]
) -> Finding:
    text = ask(against, prompt, GREEDY, TOKENS).tokens
    ends = replace(GREEDY, stop_tokens=(text[_late(text)],))
    return _same_as_plain(check, engine, against, ask, prompt, ends)


def _stop_string(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int]
) -> Finding:
    tokenizer = engine.tokenizer or against.tokenizer
    if tokenizer is None:
        raise NotOffered
    text = ask(against, prompt, GREEDY, TOKENS).tokens
    word = tokenizer.decode([text[_late(text)]])
    return _same_as_plain(
        check, engine, against, ask, prompt, replace(GREEDY, stop_strings=(word,))
    )


def _seeds(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int], sampling: Sampling
) -> Finding:
    """A seed asked for twice, and others; planted: one text for all seeds."""
    ask.check()
    drawn = [replace(sampling, seed=seed) for seed in (7, 8, 9)]
    texts = [engine.say(prompt, one, TOKENS).tokens for one in (drawn[0], *drawn)]
    again, others = texts[0] == texts[1], len(set(texts[1:])) > 1
    vary = others or len({ask(against, prompt, one, TOKENS).tokens for one in drawn}) > 1
    told = "one seed, one text" if again else "one seed gave two texts"
    told += "; other seeds, other texts" if others else "; other seeds gave the same text"
    return Finding.of(check, not again or (vary and not others), told, vary, "the seed ignored")


def _rows(check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int]) -> Finding:
    """Equal rows say what one says; planted: a row that is one place off."""
    ask.check()
    alone = ask(engine, prompt, GREEDY, TOKENS).tokens
    rows = [one.tokens for one in engine.rows(prompt, GREEDY, TOKENS, ROWS)]
    seen = [compared(engine, against, prompt, row, alone) for row in rows]
    odd = [one for one in seen if one.equal < len(alone) or one.faulty]
    told = f"{ROWS} equal rows say what one says"
    if odd:
        told = f"{len(odd)} of {ROWS} rows are not the text of one alone: {odd[0].told}"
    faulty = any(one.faulty for one in odd) or (None if odd and odd[0].faulty is None else False)
    shifted = (*alone[1:], alone[0])
    return Finding.of(check, faulty, told, shifted != alone, "a row one place off")


def _logprobs(
    check: str, engine: Engine, against: Engine, ask: Asking, prompt: list[int]
) -> Finding:
    """What the engine tells of its tokens, computed anew; planted: those of the place before."""
    said = ask(engine, prompt, GREEDY, TOKENS // 2, logprobs=True)
    logits = [against.logits(prompt, said.tokens[:at]) for at in range(len(said.tokens))]
    if len(said.logprobs) != len(said.tokens) or any(row is None for row in logits):
        raise NotOffered
    rows = torch.stack([row.float() for row in logits if row is not None])
    right = rows.log_softmax(-1)[range(len(rows)), list(said.tokens)]
    told = torch.tensor(said.logprobs)
    # each side is known to the rounding alone
    allowed = 2 * rounding(rows, engine, against)
    off = float((told - right).abs().max())
    shifted = float((told.roll(1) - right).abs().max())
    words = f"{len(rows)} tokens, off by {off:.2g} at most; rounding {allowed:.2g}"
    planted = "those of the place before"
    return Finding.of(check, not off <= allowed, words, shifted > allowed, planted, off=off)
