"""From text to checked token ids, and from token ids to text in whole characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mspeckv.models.pair import Pair
from mspeckv.settings import refuse

Prompt = str | Sequence[int]
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def encode_prompt(pair: Pair, prompt: Prompt) -> list[int]:
    """Token ids of a prompt.

    Raises:
        ValueError: an empty prompt, an id outside the vocabulary, or text without a tokenizer.
    """
    if isinstance(prompt, str):
        if pair.tokenizer is None:
            raise refuse("prompt", prompt[:40], "this pair has no tokenizer: pass token ids")
        tokens = list(pair.tokenizer(prompt)["input_ids"])
    else:
        tokens = _ids(prompt)
    if not tokens:
        raise refuse("prompt", prompt, "it needs at least one token")
    check_ids("prompt", tokens, pair)
    return tokens


def _ids(prompt: Any) -> list[int]:
    """Token ids of whatever holds one row of them: a list, an array, a tokenizer's answer."""
    given = prompt["input_ids"] if isinstance(prompt, Mapping) and "input_ids" in prompt else prompt
    if isinstance(given, (torch.Tensor, np.ndarray)):
        given = given.tolist()
    if isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], Sequence):
        given = given[0]
    try:
        return [index(token) for token in given]
    except TypeError:
        shown = f"{type(prompt).__name__} {str(prompt)[:40]}"
        allowed = "use text, token ids, or one row of them as a tokenizer gives it"
        raise refuse("prompt", shown, allowed) from None


def check_ids(field: str, tokens: Sequence[int], pair: Pair) -> None:
    """Refuse token ids outside the vocabulary."""
    wrong = next((token for token in tokens if not 0 <= token < pair.vocab_size), None)
    if wrong is not None:
        raise refuse(field, wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")


class TextStream:
    """Turns settled tokens into text, holding back a character whose bytes are not all there.

    Tokens are decoded together with those of the last finished piece, because a tokenizer may
    join them (leading spaces, byte-level characters). `tokenizers.DecodeStream` does so too, but
    for tokenizers in Rust alone, and tells nobody what it holds back.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer = tokenizer
        self.text = ""
        self._context: list[int] = []
        self._pending: list[int] = []
        self._shown = 0

    def push(self, tokens: Sequence[int]) -> str:
        """Add tokens; returns what they add to the text."""
        self._pending += tokens
        return self._show(held_back=_UNFINISHED)

    def finish(self) -> str:
        """No more tokens will come: what was held back, as the tokenizer shows it."""
        return self._show(held_back="")

    def _show(self, held_back: str) -> str:
        """Pending tokens' text, but for characters at its end that are ``held_back``."""
        if self.tokenizer is None or not self._pending:
            return ""
        before, after = self._decode(self._context), self._decode(self._context + self._pending)
        whole = after[len(before) :]
        stable = whole.rstrip(held_back)
        new = stable[self._shown :]
        self._shown += len(new)
        if stable == whole:
            self._context, self._pending, self._shown = self._pending, [], 0
        self.text += new
        return new

    def _decode(self, tokens: list[int]) -> str:
        assert self.tokenizer is not None
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
