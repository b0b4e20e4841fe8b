"""Text in whole characters, and where a run ends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mspeckv import Pair, RunConfig, Sampling, generate, stream
from mspeckv.decoding.ending import Ending
from mspeckv.events import Round, RunSummary
from mspeckv.models.text import TextStream
from tests.random_models import random_pair, random_prompt

TEXTS = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("aé東🙂👩‍🔬ß\n ")),
    min_size=1,
    max_size=30,
)
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=150)


def token_ids(pair: Pair, text: str) -> list[int]:
    assert pair.tokenizer is not None
    return list(pair.tokenizer(text, add_special_tokens=False)["input_ids"])


@RELAXED
@given(text=TEXTS, cuts=st.lists(st.integers(1, 4), max_size=40))
def test_pieces_add_up_to_the_text(pair: Pair, text: str, cuts: list[int]) -> None:
    tokens, out, at = token_ids(pair, text), TextStream(pair.tokenizer), 0
    pieces = []
    for size in [*cuts, len(tokens)]:
        pieces.append(out.push(tokens[at : at + size]))
        at += size
    pieces.append(out.finish())
    # a few bytes are not in the vocabulary, so the text may not survive the tokenizer itself
    text = pair.tokenizer.decode(tokens)  # type: ignore[union-attr]
    assert "".join(pieces) == out.text == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@RELAXED
@given(before=TEXTS, stop=st.text("ab東🙂é", min_size=1, max_size=3), after=TEXTS)
def test_text_ends_right_after_the_first_stop_string(
    pair: Pair, before: str, stop: str, after: str
) -> None:
    tokens = token_ids(pair, before + stop + after)
    whole = pair.tokenizer.decode(tokens)  # type: ignore[union-attr]
    assert stop in whole
    ending = Ending(len(tokens) + 1, (), (stop,), TextStream(pair.tokenizer))
    at, pieces = 0, []
    while not ending.over and at < len(tokens):
        kept, piece = ending.take(tokens[at : at + 3])
        at += len(kept)
        pieces.append(piece)
    assert ending.over
    assert ending.text == "".join(pieces) == whole[: whole.index(stop) + len(stop)]
    # the tokens end with the one that completed it, and hold nothing further
    assert stop not in TextStream(pair.tokenizer).push(tokens[: len(ending.tokens) - 1])
    assert ending.tokens == tokens[: len(ending.tokens)]


def test_a_text_that_ends_inside_a_character_shows_so(pair: Pair) -> None:
    tokens = token_ids(pair, "🙂")
    assert len(tokens) > 1
    ending = Ending(len(tokens) - 1, (), (), TextStream(pair.tokenizer))
    ending.take(tokens)
    assert ending.text == "\N{REPLACEMENT CHARACTER}"


def test_stop_tokens_end_a_run() -> None:
    pair, prompt = random_pair(), random_prompt(40)
    whole = generate(pair, prompt, new_tokens=30, sampling=Sampling(0)).tokens
    last = whole[12]
    cut = generate(pair, prompt, new_tokens=30, sampling=Sampling(0, stop_tokens=(last,))).tokens
    assert cut == whole[: whole.index(last) + 1]


@pytest.mark.slow
def test_stop_strings_end_a_run(pair: Pair) -> None:
    sampling = Sampling(0, stop_at_eos=False)
    whole = generate(pair, "The capital of France is", new_tokens=24, sampling=sampling)
    word = whole.text[20:24]
    events = list(
        stream(
            pair,
            "The capital of France is",
            RunConfig.build(
                new_tokens=24,
                sampling=Sampling(0, stop_at_eos=False, stop_strings=("never there", word)),
            ),
        )
    )
    text = "".join(event.text for event in events if isinstance(event, Round))
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    assert text == summary.text == whole.text[: whole.text.index(word) + len(word)]
    assert whole.tokens[: len(summary.tokens)] == summary.tokens


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"stop_tokens": (64,)}, "stop_tokens: 64"),
        ({"stop_strings": ("x",)}, "stop_strings"),
        ({"stop_strings": ("",)}, "stop_strings"),
        ({"stop_tokens": "7"}, "stop_tokens"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
    ],
)
def test_what_cannot_be_met_is_refused(given_: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        generate(random_pair(), random_prompt(9), sampling=Sampling(0, **given_))  # type: ignore[arg-type]
