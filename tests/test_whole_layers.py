"""Packed Llama layers in two calls: the same numbers, of layers that are what they were."""

from __future__ import annotations

import copy
import ctypes
import pickle
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, generate
from mspeckv.accelerate import whole_layers
from mspeckv.accelerate.packed_weights import MOST_ROWS, PRODUCT, kernel
from mspeckv.api import engine_of
from mspeckv.context import Pass, Products, carrying
from mspeckv.decoding.attention import attend
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.checks import cache_argument
from mspeckv.models.packed import pack_model
from mspeckv.testing.exactness import chi_square, expect, sample
from mspeckv_study.profiling.session import operations
from tests.conftest import build_llama, build_qwen2

pytestmark = pytest.mark.skipif(kernel() is None, reason="there is no C++ compiler")


@pytest.fixture
def pair() -> Pair:
    """Packed, with grouped heads; plugged in."""
    target, draft = build_llama(layers=3, seed=5), build_llama(layers=1, seed=6)
    for model in (target, draft):
        pack_model(model, 4)
    made = Pair.of(target, draft)
    engine_of(made)
    return made


@pytest.fixture
def target(pair: Pair) -> PreTrainedModel:
    return pair.target


def whole(model: PreTrainedModel) -> Products:
    """What the passes of a run bring along."""
    return whole_layers.plug(Hooks(), torch.device("cpu")).products(model)


def answered(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every layer that is computed as a whole."""
    rows: list[int] = []
    compute = whole_layers.WholeLayer.compute

    def counted(self: Any, now: Pass, hidden: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
        rows.append(hidden.shape[1])
        return compute(self, now, hidden, named)

    monkeypatch.setattr(whole_layers.WholeLayer, "compute", counted)
    return rows


@torch.inference_mode()
def logits(
    model: PreTrainedModel, ids: torch.Tensor, products: Products | None = None
) -> torch.Tensor:
    """``[n, V]`` of a pass of ours over ids ``[n]``, after 20 that were read before."""
    held = {cache_argument(model): DynamicCache()}
    with carrying(Pass(attend, products=products or {})):
        model(input_ids=torch.arange(20)[None], **held)
        out: torch.Tensor = model(input_ids=ids[None], **held).logits[0]
    return out


@pytest.mark.parametrize("rows", [1, 2, 9, MOST_ROWS, MOST_ROWS + 1])
def test_layers_say_what_they_said(
    rows: int, target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(0, 64, (rows,), generator=torch.Generator().manual_seed(rows))
    seen = answered(target, monkeypatch)
    now = logits(target, ids, whole(target))
    assert seen == [20] * 3 + [rows] * 3 * (rows <= MOST_ROWS)
    torch.testing.assert_close(now, logits(target, ids), rtol=1e-4, atol=1e-3)


class Alone:
    """A cache without a past."""

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key, value


def by_itself(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attention of each token to itself alone: rows ``[1, n, H, D]`` that know no other."""
    groups = query.shape[1] // key.shape[1]
    found = query * key.repeat_interleave(groups, 1) + value.repeat_interleave(groups, 1)
    return found.transpose(1, 2).contiguous(), None


@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(target: PreTrainedModel) -> None:
    (known, *_) = whole(target).values()
    assert isinstance(known, whole_layers.WholeLayer)
    hidden = torch.randn(1, 17, 64, generator=torch.Generator().manual_seed(1))
    turns = target.model.rotary_emb(hidden, torch.arange(17)[None])

    def compute(rows: slice) -> torch.Tensor:
        angles = tuple(turn[:, rows].contiguous() for turn in turns)
        named = {"cache": Alone(), "position_embeddings": angles}
        return known.compute(Pass(by_itself), hidden[:, rows], named)

    together = compute(slice(None))
    for size in (1, 2, 9):
        for start in range(0, 17, size):
            rows = slice(start, start + size)
            assert torch.equal(compute(rows), together[:, rows])


def hook(model: PreTrainedModel) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda module, given, out: out + 1)


def exchange(model: PreTrainedModel) -> None:
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU()


def override(model: PreTrainedModel) -> None:
    model.model.layers[1].self_attn.o_proj.forward = lambda hidden: hidden * 2


def train(model: PreTrainedModel) -> None:
    model.model.layers[1].train()


def give_a_bias(model: PreTrainedModel) -> None:
    model.model.layers[1].mlp.down_proj.bias = torch.nn.Parameter(torch.ones(64), False)


@pytest.mark.parametrize("change", [hook, exchange, override, train, give_a_bias])
@pytest.mark.parametrize("again", [False, True])
def test_a_layer_that_was_changed_does_what_it_does(
    change: Any, again: bool, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, ids, products = answered(pair.target, monkeypatch), torch.arange(5), whole(pair.target)
    change(pair.target)
    now = logits(pair.target, ids, whole(pair.target) if again else products)
    assert seen == [20] * 2 + [5] * 2, "the other two layers"
    torch.testing.assert_close(now, logits(pair.target, ids), rtol=1e-4, atol=1e-3)


def replace_data(model: PreTrainedModel) -> None:
    norm = model.model.layers[1].input_layernorm.weight
    norm.data = norm.data * 3


def write(model: PreTrainedModel) -> None:
    model.model.layers[1].post_attention_layernorm.weight.data.mul_(3)


def move_codes(model: PreTrainedModel) -> None:
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.codes = weight.codes.flip(0).clone()


@pytest.mark.parametrize("change", [replace_data, write, move_codes])
def test_what_a_layer_reads_is_read_as_it_is_now(
    change: Any, target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, products = torch.arange(5), whole(target)
    before = logits(target, ids, products)
    change(target)
    seen = answered(target, monkeypatch)
    now = logits(target, ids, products)
    assert len(seen) == 6
    assert not torch.allclose(now, before, atol=1e-2)
    torch.testing.assert_close(now, logits(target, ids), rtol=1e-4, atol=1e-3)


@torch.inference_mode()
def test_outputs_that_were_asked_for_once_cost_nothing_later(
    target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(target(torch.arange(5)[None], output_hidden_states=True).hidden_states) == 4
    seen = answered(target, monkeypatch)
    logits(target, torch.arange(5), whole(target))
    assert len(seen) == 6


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_models_of_their_own(
    twin: Any, target: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    products, ids = whole(target), torch.arange(5)
    other, seen = twin(target), answered(target, monkeypatch)
    now = logits(other, ids, products)
    assert not seen, "these are the other model's"
    torch.testing.assert_close(now, logits(target, ids, products), rtol=1e-4, atol=1e-3)
    seen.clear()
    logits(other, ids, whole(other))
    assert len(seen) == 6


def test_other_layers_are_left_alone() -> None:
    others = build_llama(layers=1), build_qwen2(layers=1), build_llama(layers=1)
    for model in others[1:]:
        pack_model(model, 4)
    others[2].model.layers[0].input_layernorm.half()
    for model in others:
        assert not whole(model)
        assert "forward" not in vars(model.model.layers[0])


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Fields of the task that C++ is told otherwise."""
    fields: dict[str, int] = {}
    cpp = kernel()
    assert cpp is not None

    class Spoiling:
        def __getattr__(self, half: str) -> Any:
            def call(task: Any) -> int:
                given = ctypes.cast(task, ctypes.POINTER(whole_layers.Layer)).contents
                for name, value in fields.items():
                    setattr(given, name, value)
                return int(getattr(cpp, half)(task))

            return call

    monkeypatch.setattr(whole_layers, "kernel", Spoiling)
    return fields


@pytest.mark.parametrize(
    "field",
    ["rows", "threads", "width", "heads", "kv_heads", "size", "hidden_has", "cos_has", "out_has"],
)
def test_cpp_refuses_what_ends_too_soon(
    field: str, spoiled: dict[str, int], target: PreTrainedModel
) -> None:
    logits(target, torch.arange(5), whole(target))
    spoiled[field] = {"threads": 0, "rows": 1 << 20, "width": 96, "size": 6}.get(field, 1)
    with pytest.raises(ValueError, match="layer: .* its parts must fit"):
        logits(target, torch.arange(5), whole(target))


@torch.inference_mode()
def test_a_profiler_counts_the_same_operations(target: PreTrainedModel) -> None:
    def counted(products: Products) -> float:
        with torch.profiler.profile(record_shapes=True, with_flops=True) as taken:
            logits(target, torch.arange(5), products)
        return sum(operations(one) for one in taken.events() or () if one.name == PRODUCT)

    assert counted(whole(target)) == counted({}) > 0


@pytest.mark.parametrize("method", ["vanilla", "mspeckv"])
def test_every_method_says_what_plain_decoding_says(method: str, pair: Pair) -> None:
    prompt = list(range(40))
    ways: dict[str, Any] = {
        "speculation": Speculation(gamma=3, draft_gamma=2, budget=32, chunk=4, recent=8, window=8),
        "policy": KVPolicy(8, on_chip=1, resident=1, block=16), "new_tokens": 40,
    }  # fmt: skip
    greedy = Sampling(0, stop_at_eos=False)
    plain = generate(pair, prompt, method="autoregressive", sampling=greedy, **ways)
    assert generate(pair, prompt, method=method, sampling=greedy, **ways).tokens == plain.tokens


def test_draws_follow_the_target() -> None:
    target, draft = build_llama(vocab=8, layers=2, seed=3), build_llama(vocab=8, layers=1, seed=4)
    for model in (target, draft):
        pack_model(model, 4)
    tiny, prompt = Pair.of(target, draft), [1, 2, 3, 4, 5, 6, 7, 0] * 4
    config = RunConfig.build(
        method="vanilla", new_tokens=2, policy=KVPolicy("full", on_chip=2),
        speculation=Speculation(gamma=2), sampling=Sampling(1.0, stop_at_eos=False),
    )  # fmt: skip
    assert chi_square(sample(tiny, prompt, config, 2, 250), expect(tiny, prompt, config, 2)) > 1e-4
