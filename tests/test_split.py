"""Attention over keys in pieces is attention over the keys."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mspeckv.accelerate import split_keys
from mspeckv.accelerate.split_keys import PIECE, attend_split, piece_mask, pieces
from mspeckv.kv.floats import Floats
from mspeckv.kv.scores import causal_mask

pytestmark = pytest.mark.skipif(
    split_keys._kernel is None, reason="this build of torch has no such kernel"
)


@settings(max_examples=60, deadline=None)
@given(
    heads=st.integers(1, 4),
    groups=st.integers(1, 4),
    length=st.integers(1, 20),
    step=st.integers(20, 90),
    rest=st.integers(0, 15),
    count=st.integers(2, 9),
    unused=st.integers(0, 5),
    scale=st.sampled_from([None, 0.3]),
)
def test_pieces_give_what_the_whole_gives(
    heads: int,
    groups: int,
    length: int,
    step: int,
    rest: int,
    count: int,
    unused: int,
    scale: float | None,
) -> None:
    keys = step * count + rest % count
    past, dim = keys - length, 16
    query = torch.randn(1, heads, groups * length, dim)
    # as in a cache, which has room for more: NaN there would show
    whole = torch.full((2, 1, heads, keys + unused, dim), float("nan"))
    whole[:, :, :, :keys] = torch.randn(2, 1, heads, keys, dim)
    key, value = whole[:, :, :, :keys].unbind(0)
    mask = causal_mask(length, past, groups, query) if length > 1 else None
    want = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    with patch.object(split_keys, "pieces", return_value=count):
        rows = query.reshape(1, heads * groups, length, dim)
        out = attend_split(rows, Floats(key, value), scale, {})
    torch.testing.assert_close(out, want.reshape(out.shape), rtol=1e-5, atol=1e-5)


def test_no_mask_where_there_is_nothing_to_hide() -> None:
    assert piece_mask(4, 1, 4095, 3, torch.empty(0)) is None
    assert piece_mask(4, 1, 4096, 3, torch.empty(0)) is not None


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("threads", [1, 2, 6, 16])
def test_every_thread_gets_as_many_tasks(
    monkeypatch: pytest.MonkeyPatch, heads: int, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    count = pieces(heads, 10**6)
    assert heads * count % threads == 0
    for past in (0, 1023, 1024, 5000):
        count = pieces(heads, past)
        assert 1 <= count <= max(1, past // PIECE)
