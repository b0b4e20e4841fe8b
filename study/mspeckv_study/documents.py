"""Long prompts, as token ids: a built-in document, a text file, pasted text, a hidden needle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mspeckv.settings import check_count, check_kind, check_number, refuse

DOCUMENTS = ("python-reference",)
"""Names that `load_document` knows; anything else is a path."""

_CHARACTERS_PER_TOKEN = 6
_MARGIN = 64
"""Tokens beyond the wanted ones: cutting text may change how its last tokens come out."""


def load_document(source: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[int]:
    """The first ``tokens`` token ids of a document.

    Args:
        source: ``"python-reference"`` (the topics of Python's own language reference, as
            shipped with this interpreter) or the path of a UTF-8 text file.

    Raises:
        ValueError: no such file, not UTF-8, or a text with fewer tokens.
    """
    check_count("prefill", tokens, 1)
    text = read_source(source)
    characters = tokens * _CHARACTERS_PER_TOKEN + 1024
    while True:
        ids = text_tokens(text[:characters], tokenizer)
        whole = characters >= len(text)
        if len(ids) >= tokens + (0 if whole else _MARGIN):
            return ids[:tokens]
        if whole:
            raise refuse("prefill", tokens, f"{source} has {len(ids)} tokens; use at most that")
        characters *= 2


def text_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of pasted text, with whatever the tokenizer puts before a text.

    Raises:
        ValueError: empty text.
    """
    if not text:
        raise refuse("text", text, "use text of at least one character")
    check_kind("tokenizer", tokenizer, Callable, "a pair that has one")
    # verbose=False: a text longer than the model's positions is the engine's to refuse.
    return [int(token) for token in tokenizer(text, verbose=False)["input_ids"]]


def needle_in_haystack(
    needle: str,
    depth: float,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    *,
    question: str = "",
) -> list[int]:
    """The reference of exactly ``tokens`` ids with a sentence hidden in it, a question at its end.

    Args:
        depth: where it goes: 0 is the document's beginning, 1 just before the question.

    Raises:
        ValueError: a depth outside 0 to 1, or no room for needle and question.
    """
    check_number("depth", depth, 0.0, 1.0)
    hidden = _inner_tokens(f"\n\n{needle.strip()}\n\n", tokenizer)
    asked = _inner_tokens(f"\n\n{question.strip()}", tokenizer) if question.strip() else []
    room = tokens - len(hidden) - len(asked)
    if room < 1:
        least = len(hidden) + len(asked) + 1
        raise refuse("prefill", tokens, f"needle and question need at least {least} tokens")
    hay = load_document("python-reference", tokenizer, room)
    # What the tokenizer puts before a text, such as a token of its beginning, stays first.
    start = text_tokens("a", tokenizer).index(_inner_tokens("a", tokenizer)[0])
    place = max(start, round(depth * room))
    return hay[:place] + hidden + hay[place:] + asked


def _inner_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [int(token) for token in ids]


def read_source(source: str) -> str:
    """A document's text; or it is refused, without a tokenizer at hand."""
    if source == "python-reference":
        from pydoc_data.topics import topics

        return "\n\n\n".join(topics[name].strip() for name in sorted(topics))
    check_kind("document", source, str, f"{', '.join(DOCUMENTS)} or a text file's path")
    path = Path(source)
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        allowed = f"it is not UTF-8 text (byte {error.start}); use a text file"
        raise refuse("document", str(path), allowed) from error
    except OSError as error:
        reason = error.strerror or "cannot be read"
        allowed = f"use {', '.join(DOCUMENTS)} or a readable text file ({reason})"
        raise refuse("document", str(path), allowed) from error
