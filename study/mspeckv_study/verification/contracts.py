"""What else an engine promises: ends, penalties, seeds, batches, and the logprobs that it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mspeckv.settings import Sampling
from mspeckv_study.verification.asking import Asking
from mspeckv_study.verification.engine import NotOffered
from mspeckv_study.verification.findings import Finding
from mspeckv_study.verification.greedy import GREEDY, compared, rounding

TOKENS, ROWS = 24, 3
PENALTY = 1.3


def judge_contracts(ask: Asking, prompt: list[int], sampling: Sampling) -> list[Finding]:
    """A finding for each; one that the engine does not offer is said to be so."""
    parts: dict[str, Callable[[str, Asking, list[int]], Finding]] = {
        "end of sequence inside a round": _end_token,
        "stop string inside a round": _stop_string,
        "repetition penalty inside a round": partial(_same_as_plain, repetition_penalty=PENALTY),
        "seeds": partial(_seeds, sampling=sampling),
        "equal rows of a batch": _rows,
        "logprobs": _logprobs,
    }
    found = []
    for name, judged in parts.items():
        try:
            found.append(judged(name, ask, prompt))
        except NotOffered as why:
            told = str(why) or "the engine has no such setting"
            found.append(Finding(name, "not offered", told))
    return found


def _same_as_plain(check: str, ask: Asking, prompt: list[int], **changed: Any) -> Finding:
    """The same greedy text under a setting; planted: an engine that ignores it."""
    setting = replace(GREEDY, **changed)
    right = ask(ask.against, prompt, setting, TOKENS).tokens
    found = ask(ask.engine, prompt, setting, TOKENS).tokens
    ignored = ask(ask.against, prompt, GREEDY, TOKENS).tokens
    # nobody knows whether a server takes a setting, but from a server that does
    unknown = right if ask.against.ignores_unknown else found
    if ask.engine.ignores_unknown and unknown == ignored:
        raise NotOffered("the server says the same without that setting")
    if setting.stop_strings and found == right[:-1]:
        found = right  # a stop string may be left out, as OpenAI's servers do
    seen = compared(ask, prompt, found, right, setting)
    return Finding.of(check, seen.faulty, seen.told, ignored != right, "a setting that is ignored")


def _late(ask: Asking, prompt: list[int]) -> int:
    """A token that first comes well into plain decoding's text."""
    text = ask(ask.against, prompt, GREEDY, TOKENS).tokens
    late = max(range(len(text)), key=lambda at: (text.index(text[at]) == at, -abs(at - 9)))
    return text[late]


def _end_token(check: str, ask: Asking, prompt: list[int]) -> Finding:
    return _same_as_plain(check, ask, prompt, stop_tokens=(_late(ask, prompt),))


def _stop_string(check: str, ask: Asking, prompt: list[int]) -> Finding:
    tokenizer = ask.engine.tokenizer or ask.against.tokenizer
    if tokenizer is None:
        raise NotOffered
    word = tokenizer.decode([_late(ask, prompt)])
    return _same_as_plain(check, ask, prompt, stop_strings=(word,))


def _seeds(check: str, ask: Asking, prompt: list[int], sampling: Sampling) -> Finding:
    """A seed asked for twice, and others; planted: one text for all seeds."""
    ask.check()
    drawn = [replace(sampling, seed=seed) for seed in (7, 8, 9)]
    texts = [ask.engine.say(prompt, one, TOKENS).tokens for one in (drawn[0], *drawn)]
    again, others = texts[0] == texts[1], len(set(texts[1:])) > 1
    vary = others or len({ask(ask.against, prompt, one, TOKENS).tokens for one in drawn}) > 1
    told = "one seed, one text" if again else "one seed gave two texts"
    told += "; other seeds, other texts" if others else "; other seeds gave the same text"
    return Finding.of(check, not again or (vary and not others), told, vary, "the seed ignored")


def _rows(check: str, ask: Asking, prompt: list[int]) -> Finding:
    """Equal rows say what one says; planted: a row that is one place off."""
    ask.check()
    alone = ask(ask.engine, prompt, GREEDY, TOKENS).tokens
    rows = ask.engine.rows(prompt, GREEDY, TOKENS, ROWS)
    seen = [compared(ask, prompt, row.tokens, alone) for row in rows]
    odd = [one for one in seen if one.equal < len(alone) or one.faulty]
    told = f"{ROWS} equal rows say what one says"
    if odd:
        told = f"{len(odd)} of {ROWS} rows are not the text of one alone: {odd[0].told}"
    faulty = any(one.faulty for one in odd) or (None if odd and odd[0].faulty is None else False)
    shifted = (*alone[1:], alone[0])
    return Finding.of(check, faulty, told, shifted != alone, "a row one place off")


def _logprobs(check: str, ask: Asking, prompt: list[int]) -> Finding:
    """What the engine tells of its tokens, computed anew; planted: those of the place before."""
    said = ask(ask.engine, prompt, GREEDY, TOKENS // 2, logprobs=True)
    logits = [ask.against.logits(prompt, said.tokens[:at]) for at in range(len(said.tokens))]
    if len(said.logprobs) != len(said.tokens) or any(row is None for row in logits):
        raise NotOffered
    rows = torch.stack([row.float() for row in logits if row is not None])
    right = rows.log_softmax(-1)[range(len(rows)), list(said.tokens)]
    told = torch.tensor(said.logprobs)
    # each side is known to the rounding alone
    allowed = 2 * rounding(rows, ask)
    off = float((told - right).abs().max())
    shifted = float((told.roll(1) - right).abs().max())
    words = f"{len(rows)} tokens, off by {off:.2g} at most; rounding {allowed:.2g}"
    planted = "those of the place before"
    return Finding.of(check, not off <= allowed, words, shifted > allowed, planted, off=off)
