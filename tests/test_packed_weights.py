"""Packed weights: a file's own groups, one result for a row, and every method's text the same."""

from __future__ import annotations

import copy
import ctypes
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import embedding, linear

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, api, generate
from mspeckv.accelerate import native, packed_weights
from mspeckv.accelerate.packed_weights import (
    MOST_ROWS,
    PRODUCT,
    Reading,
    Task,
    kernel,
    read_packed,
)
from mspeckv.accelerate.short_head import ShortHead, head_bytes
from mspeckv.context import Pass, carrying
from mspeckv.decoding.attention import attend
from mspeckv.decoding.fits import predict
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.kept import subject
from mspeckv.models.load import load_pair
from mspeckv.models.packed import Packed, form_of, pack, pack_model
from mspeckv.models.pair import own_part
from mspeckv.testing.exactness import chi_square, expect, sample
from mspeckv_study.cli import main
from mspeckv_study.documents import load_document
from mspeckv_study.profiling.session import _weights_read, operations
from mspeckv_study.whatif import what_if
from mspeckv_study.whatif.catalogue import model_shape
from mspeckv_widgets.panels.snippet import command_line, python_code
from mspeckv_widgets.record import Setting
from tests.conftest import build_llama, build_qwen2

needs_kernel = pytest.mark.skipif(kernel() is None, reason="there is no C++ compiler")
GREEDY = Sampling(temperature=0, stop_at_eos=False)


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@given(
    bits=st.sampled_from([4, 8]), outputs=st.integers(1, 70), groups=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 30.0]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_rounding_moves_a_weight_by_half_a_step_and_packed_ones_not_at_all(
    bits: int, outputs: int, groups: int, scale: float, seed: int
) -> None:
    weight = noise(outputs, 32 * groups, seed=seed) * scale
    once = pack(weight, bits)
    floats = once.floats()
    spread = weight.unflatten(1, (-1, 32)).abs().amax(-1).repeat_interleave(32, 1)
    # a step, and half precision's own rounding of the step and the lowest value
    assert ((floats - weight).abs() <= spread * (1.01 / ((1 << bits) - 1) + 2**-10)).all()
    assert torch.equal(pack(floats, bits).floats(), floats)
    some = torch.randint(outputs, (5,))
    assert torch.equal(once.take(some).floats(), floats[some])
    assert torch.equal(embedding(some[None], once), floats[some][None])


@needs_kernel
@given(
    bits=st.sampled_from([4, 8]), rows=st.integers(1, MOST_ROWS), beside=st.integers(1, MOST_ROWS),
    outputs=st.sampled_from([1, 31, 32, 96, 130]), groups=st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(
    bits: int, rows: int, beside: int, outputs: int, groups: int
) -> None:
    weight, hidden = pack(noise(outputs, 32 * groups), bits), noise(MOST_ROWS, 32 * groups, seed=1)
    few, many = (Reading([weight], [None]).multiply(hidden[:n])[0] for n in (rows, beside))
    common = min(rows, beside)
    assert torch.equal(few[:common], many[:common])
    exact = hidden.double() @ weight.floats().double().T
    torch.testing.assert_close(few, exact[:rows].float(), rtol=1e-5, atol=1e-4)
    alone = Reading([weight], [None]).multiply(hidden[rows - 1 : rows])[0]
    assert torch.equal(alone, few[rows - 1 :])


@needs_kernel
def test_threads_and_layers_multiplied_together_change_no_bit() -> None:
    weights = [pack(noise(size, 64, seed=size), 4) for size in (96, 32, 33)]
    hidden = noise(1, 9, 64)
    before = torch.get_num_threads()
    joint = Reading(weights, [None] * 3).multiply(hidden)
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        for weight, out in zip(weights, joint, strict=True):
            assert torch.equal(Reading([weight], [None]).multiply(hidden)[0], out)
    finally:
        torch.set_num_threads(before)


@needs_kernel
@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX512"), reason="AVX2")
def test_wider_vectors_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, hidden = pack(noise(96, 160), 4), noise(11, 160)
    reading = Reading([weight], [None])
    wide = reading.multiply(hidden)[0]
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-mno-avx512f"))
    narrow = ctypes.CDLL(str(native._built(packed_weights.SOURCE, native._compiler())))
    narrow.multiply.argtypes = [ctypes.c_void_p]
    assert torch.equal(reading.run(narrow.multiply, hidden)[0], wide)


@needs_kernel
@pytest.mark.parametrize("field", ["rows", "inputs", "bits", "threads", "parts", "work_has"])
def test_the_kernel_refuses_what_ends_too_soon(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = packed_weights.kernel()
    assert kernel is not None
    real = kernel.multiply

    def spoiled(task: ctypes._Pointer[Task]) -> int:
        given = ctypes.cast(task, ctypes.POINTER(Task)).contents
        setattr(given, field, {"bits": 5, "work_has": 1, "threads": 0}.get(field, 1 << 20))
        return int(real(task))

    with pytest.raises(ValueError, match="weights: .* they and the rows must fit"):
        Reading([pack(noise(32, 64), 4)], [None]).run(spoiled, noise(3, 64))


def test_packed_weights_are_read_only_and_can_be_copied() -> None:
    weight = torch.nn.Parameter(pack(noise(40, 64), 4), requires_grad=False)
    assert isinstance(weight, Packed)
    for twin in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        assert isinstance(twin, Packed)
        assert torch.equal(twin.floats(), weight.floats())
    writes: list[Callable[[], object]] = [
        lambda: weight.mul_(2), lambda: weight.data.add_(1), lambda: weight.__setitem__(0, 1.0),
        lambda: torch.mul(weight.floats(), 2, out=weight),
    ]  # fmt: skip
    for write in writes:
        with pytest.raises(ValueError, match="packed ones are only read"):
            write()
    assert own_part(weight).nbytes == 2 * 2 * 640
    assert weight.shape == (40, 64)


@needs_kernel
@pytest.mark.parametrize("build", [build_llama, build_qwen2])
@torch.no_grad()
def test_a_model_multiplies_by_the_kernel_inside_passes_and_out(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(vocab=70)
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and layer.bias is not None:
            layer.bias.normal_()
    pack_model(model, 4)
    assert form_of(model) == "int4"
    ids = torch.arange(9)[None]
    by_floats = model(input_ids=ids).logits
    read_packed(model)
    twin = copy.deepcopy(model)
    calls: list[int] = []
    real = Reading.run

    def counted(reading: Reading, *given: Any) -> list[torch.Tensor]:
        calls.append(len(reading.weights))
        return real(reading, *given)

    monkeypatch.setattr(Reading, "run", counted)
    out = model(input_ids=ids).logits
    torch.testing.assert_close(out, by_floats, rtol=1e-4, atol=1e-4)
    # queries, keys and values; what comes out; gate and up; down; and once the head
    assert calls == [3, 1, 2, 1] * 4 + [1]
    with carrying(Pass(attend)):
        assert torch.equal(model(input_ids=ids).logits, out)
    calls.clear()
    assert torch.equal(twin(input_ids=ids).logits, by_floats)
    assert not calls
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.floats() * 2)
    torch.testing.assert_close(model(input_ids=ids).logits, 2 * by_floats, rtol=1e-4, atol=1e-4)


@needs_kernel
def test_a_prompt_longer_than_the_kernels_rows_is_the_same_within_rounding() -> None:
    weight, bias, hidden = pack(noise(70, 64), 4), noise(70), noise(1, MOST_ROWS + 1, 64)
    (out,) = Reading([weight], [bias]).multiply(hidden)
    torch.testing.assert_close(out, linear(hidden, weight.floats(), bias), rtol=1e-5, atol=1e-5)


@needs_kernel
def test_weights_that_move_in_memory_are_found() -> None:
    weight, hidden = pack(noise(70, 64), 4), noise(3, 64)
    reading = Reading([weight], [None])
    (before,) = reading.multiply(hidden)
    other = pack(noise(96, 64, seed=9), 8)
    weight.codes.data = weight.codes.clone()
    kept = torch.full_like(weight.codes, 7)
    assert torch.equal(reading.multiply(hidden)[0], before)
    weight.codes.share_memory_()
    assert torch.equal(reading.multiply(hidden)[0], before)
    weight.codes, weight.bits = other.codes[:3].clone(), other.bits
    torch.testing.assert_close(reading.multiply(hidden)[0], hidden @ weight.floats().T)
    assert kept.eq(7).all()


@needs_kernel
def test_the_kernel_writes_floats_whatever_is_the_default() -> None:
    reading, hidden = Reading([pack(noise(256, 64), 4)], [None]), noise(9, 64)
    (before,) = reading.multiply(hidden)
    torch.set_default_dtype(torch.bfloat16)
    try:
        (again,) = reading.multiply(hidden)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again, before)


@needs_kernel
@torch.no_grad()
def test_a_compiled_model_multiplies_right() -> None:
    layers = [torch.nn.Linear(64, size, bias=False) for size in (64, 70)]
    weights = [pack(layer.weight.detach(), 4) for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    net = torch.nn.Sequential(*layers)
    read_packed(net)
    made = torch.compile(net, backend="eager")
    one = torch.compile(Reading(weights[:1], [None]).multiply, backend="eager")
    for rows in (3, 3, 9, 64, 2):
        hidden = noise(rows, 64, seed=rows)
        torch.testing.assert_close(made(hidden), net(hidden))
        # what C++ reads and writes lives until it is done
        torch.testing.assert_close(one(hidden)[0], layers[0](hidden))


@needs_kernel
def test_its_operations_are_counted() -> None:
    weights, hidden = [pack(noise(size, 64), 4) for size in (96, 33)], noise(1, 9, 64)
    with torch.profiler.profile(with_flops=True) as taken:
        Reading(weights, [None, None]).multiply(hidden)
    (event,) = (event for event in taken.events() or () if event.name == PRODUCT)
    assert operations(event) == 2 * 9 * 64 * (96 + 33)


@needs_kernel
def test_a_short_head_stays_packed() -> None:
    model = build_llama(vocab=70)
    pack_model(model, 4)
    head, hidden = ShortHead(model, torch.tensor([3, 69, 5])), noise(1, 2, 64)
    assert isinstance(head.weight, Packed)
    (scored,) = (product(hidden) for product in head.products.values())
    (whole,) = Reading([model.lm_head.weight], [None]).multiply(hidden)
    assert torch.equal(scored, whole[..., [3, 69, 5]])
    assert head_bytes(model, 32) == own_part(head.weight).nbytes


@pytest.fixture(scope="module")
def tiny() -> Pair:
    """A packed pair that shares nothing."""
    target, draft = build_llama(vocab=8, layers=2, seed=3), build_llama(vocab=8, layers=1, seed=4)
    for model in (target, draft):
        pack_model(model, 4)
    return Pair.of(target, draft)


def test_code_that_is_copied_packs_the_weights(tiny: Pair) -> None:
    setting = Setting("python-reference", 60, RunConfig())
    assert ', weights="int4")\n' in python_code(setting, tiny)
    assert " --weights int4 " in command_line(setting, tiny)


@needs_kernel
def test_samples_follow_the_packed_target(tiny: Pair) -> None:
    config = RunConfig(
        "mspeckv", 8, KVPolicy(8, resident=1, block=16, group=16, tail=8),
        Speculation(gamma=2, draft_gamma=2, budget=24, chunk=4, recent=8, sinks=2, window=16),
        Sampling(temperature=1.3, top_p=0.9, seed=11),
    )  # fmt: skip
    prompt = torch.randint(8, (61,), generator=torch.Generator().manual_seed(5)).tolist()
    seen = sample(tiny, prompt, config, 2, 250)
    assert chi_square(seen, expect(tiny, prompt, config, 2)) > 1e-4


@pytest.fixture(scope="module")
def packed_pair() -> Pair:
    """The default pair in its file's own groups."""
    return api.load_pair(weights="int4")


def test_the_packed_default_target_is_the_float_one_bit_by_bit(
    pair: Pair, packed_pair: Pair
) -> None:
    ours = dict(packed_pair.target.named_parameters())
    for name, weight in pair.target.named_parameters():
        held = ours[name]
        assert torch.equal(held.floats() if isinstance(held, Packed) else held, weight), name
    widths = {name: held.bits for name, held in ours.items() if isinstance(held, Packed)}
    assert {bits for name, bits in widths.items() if "layers" in name} == {4}
    assert packed_pair.target.lm_head.weight is packed_pair.target.model.embed_tokens.weight
    assert packed_pair.draft is not None
    assert packed_pair.draft.lm_head is packed_pair.target.lm_head
    assert packed_pair.weight_bytes < 110e6 < pair.weight_bytes / 4


def test_the_cost_model_counts_the_bytes_that_are_held(pair: Pair, packed_pair: Pair) -> None:
    shape = model_shape(packed_pair.target)
    assert shape == replace(model_shape(pair.target), name=shape.name, weights="int4")
    last_norm = shape.hidden * 4
    assert shape.read_bytes(torch.float32) + last_norm == _weights_read(packed_pair.target)
    config = RunConfig.build(speculation=Speculation(gamma=4, draft_gamma=2, draft_vocab=8192))
    found = what_if(
        packed_pair.target, "laptop-cpu", prefill=999, new_tokens=config.new_tokens,
        policy=config.policy, speculation=config.speculation,
    ).memory.parts  # fmt: skip
    known = predict(api.engine_of(packed_pair), packed_pair, config, 999)
    assert (found["weights"], found["head"]) == (known.weights, known.head)
    # and times that are kept of one are not taken for the other's
    kept = [subject(one, one.models, ()) for one in (pair, packed_pair)]
    assert kept[0] != kept[1]


@needs_kernel
def test_every_method_says_what_plain_decoding_says_over_packed_weights(packed_pair: Pair) -> None:
    assert packed_pair.tokenizer is not None
    prompt = load_document("python-reference", packed_pair.tokenizer, 256)
    ways = {
        "autoregressive": Speculation(),
        "vanilla": Speculation(gamma=8, draft_vocab=4096),
        "triforce": Speculation(gamma=5, draft_gamma=2, budget=128, recent=32),
        "mspeckv": Speculation("auto", "auto", tier0="lookup", budget=128, recent=32),
    }
    texts = {
        method: generate(
            packed_pair, prompt, method=method, new_tokens=40, speculation=speculation,
            policy=KVPolicy("full", on_chip=30), sampling=GREEDY,
        ).tokens
        for method, speculation in ways.items()
    }  # fmt: skip
    assert len(set(texts.values())) == 1


@needs_kernel
@torch.inference_mode()
def test_how_tokens_come_in_passes_changes_next_to_nothing(packed_pair: Pair) -> None:
    """Path independence: by rows of one, of nine, or of all, logits are the same to rounding."""
    ids = torch.arange(100, 119)[None]
    whole = packed_pair.target(input_ids=ids).logits[0]
    for size in (1, 9):
        cache, parts = None, []
        for start in range(0, 19, size):
            out = packed_pair.target(input_ids=ids[:, start : start + size], past_key_values=cache)
            cache = out.past_key_values
            parts.append(out.logits[0])
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-3)


MEMORY = """
import psutil
from mspeckv import generate, load_pair
before = psutil.Process().memory_full_info()
pair = load_pair(weights="int4")
generate(pair, list(range(200)), new_tokens=8)
after = psutil.Process().memory_full_info()
print(after.rss - before.rss)
"""


@needs_kernel
def test_a_packed_pair_takes_little_memory(packed_pair: Pair) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )  # fmt: skip
    # 106 MB of weights; the rest is the tokenizer, libraries' code and the run
    assert int(done.stdout) < 350e6


def test_what_is_not_allowed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="weights: 'int3' is not allowed; use .*int4"):
        load_pair(weights="int3")
    with pytest.raises(ValueError, match="weights: 'int4' is not allowed; use float, but for"):
        load_pair(weights="int4", dtype="bfloat16")
    assert main(["generate", "--weights", "int3"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("mspeckv: weights: 'int3' is not allowed; use ")


def test_a_gpu_has_nothing_plugged_in() -> None:
    hooks = Hooks()
    assert packed_weights.plug(hooks, torch.device("cuda")) is hooks


@needs_kernel
def test_the_default_target_is_packed_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, packed_pair: Pair
) -> None:
    usual = api.usual_weights
    assert form_of(api.load_pair().target) == usual("default") == "int4"
    assert usual("default", dtype="bfloat16") == usual("some/target") == "float"
    # a panel's code says what is not usual
    setting = Setting("python-reference", 64, RunConfig())
    assert "load_pair()" in python_code(setting, packed_pair)
    assert 'load_pair(weights="float")' in python_code(setting, pair)
    assert " --weights float " in command_line(setting, pair)
    monkeypatch.setattr(packed_weights, "kernel", lambda: None)
    assert usual("default") == "float"
    monkeypatch.undo()
    monkeypatch.setenv(api.SWITCH, "split_keys")
    assert usual("default") == "float"


def test_packed_weights_are_saved_by_nobody(packed_pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='weights: .* load with weights="float"'):
        packed_pair.target.save_pretrained(tmp_path)
