"""Counted work is the same whatever else the process does."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.calls import python_calls


def _work() -> None:
    for _ in range(50):
        _nothing([[] for _ in range(100)])


def _nothing(kept: list[list[int]]) -> None:
    del kept


@pytest.fixture
def watched_often() -> Iterator[list[str]]:
    """Garbage is collected often, and somebody is told of each collection."""
    told: list[str] = []

    def tell(phase: str, detail: dict[str, int]) -> None:
        told.append(phase)

    before = gc.get_threshold()
    gc.callbacks.append(tell)
    gc.set_threshold(70)
    yield told
    gc.set_threshold(*before)
    gc.callbacks.remove(tell)


def test_calls_of_the_work_are_counted_and_no_others(watched_often: list[str]) -> None:
    _work()
    assert watched_often, "this work does have garbage collected"
    watched_often.clear()
    # itself, its fifty calls, and the fifty lists as Python 3.11 counts a comprehension
    assert python_calls(_work) in {51, 101}
    assert not watched_often
    assert gc.isenabled()


def test_what_it_found_is_put_back() -> None:
    def wrong() -> None:
        raise KeyError

    gc.disable()
    try:
        with pytest.raises(KeyError):
            python_calls(wrong)
        assert not gc.isenabled()
    finally:
        gc.enable()
