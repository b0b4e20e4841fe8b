"""Long prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mspeckv.models.pair import Pair
from mspeckv_study.documents import DOCUMENTS, load_document, needle_in_haystack, text_tokens


@pytest.fixture(scope="session")
def tokenizer(pair: Pair) -> PreTrainedTokenizerBase:
    assert pair.tokenizer is not None
    return pair.tokenizer


@pytest.mark.parametrize("name", DOCUMENTS)
def test_built_in_documents_are_long_enough(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(load_document(name, tokenizer, 8192)) == 8192


@given(tokens=st.integers(1, 3000))
@settings(max_examples=20, deadline=None)
def test_shorter_is_a_prefix_of_longer(tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
    longer = load_document("python-reference", tokenizer, 4096)
    assert load_document("python-reference", tokenizer, tokens) == longer[:tokens]


def test_file(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\ufeffCafé, naïve and 漢字. " * 50, encoding="utf-8")
    ids = load_document(str(path), tokenizer, 100)
    assert len(ids) == 100
    assert tokenizer.decode(ids).startswith("Café, naïve")


def test_whole_file_can_be_asked_for(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one two three", encoding="utf-8")
    have = len(text_tokens("one two three", tokenizer))
    assert len(load_document(str(path), tokenizer, have)) == have
    with pytest.raises(ValueError, match=rf"text.txt has {have} tokens"):
        load_document(str(path), tokenizer, have + 1)


def test_missing_file(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="document: 'nowhere.txt' is not allowed; .*No such file"):
        load_document("nowhere.txt", tokenizer, 10)


def test_folder_is_no_document(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="document: "):
        load_document(str(tmp_path), tokenizer, 10)


def test_not_utf8(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(b"abc\xff\xfe")
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 3\)"):
        load_document(str(path), tokenizer, 2)


def test_empty_file(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="at least one character"):
        load_document(str(path), tokenizer, 1)


@pytest.mark.parametrize("tokens", [0, -1, True])
def test_bad_length(tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="prefill: "):
        load_document("python-reference", tokenizer, tokens)


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_needle_lies_at_its_depth(depth: float, tokenizer: PreTrainedTokenizerBase) -> None:
    needle, question = "The secret number is 4172.", "What is the secret number?"
    ids = needle_in_haystack(needle, depth, tokenizer, 600, question=question)
    assert len(ids) == 600
    text = tokenizer.decode(ids)
    assert text.endswith(question)
    assert text.count(needle) == 1
    place = text.index(needle) / (len(text) - len(needle) - len(question))
    assert place == pytest.approx(depth, abs=0.1)


def test_needle_needs_room(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="needle and question need at least"):
        needle_in_haystack("a b c d e f g", 0.5, tokenizer, 5)
    with pytest.raises(ValueError, match="depth: "):
        needle_in_haystack("a", 1.5, tokenizer, 500)
