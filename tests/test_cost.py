"""The cost model: its parts against what they stand for, and against the published tables."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, Qwen2Config

import mspeckv
from mspeckv import KVPolicy, RunConfig, Speculation
from mspeckv.adaptive.lengths import expected_tokens as by_place
from mspeckv.api import engine_of
from mspeckv.decoding.fits import predict
from mspeckv.settings import Width
from mspeckv_study.cli import main
from mspeckv_study.whatif import (
    HARDWARE,
    MODELS,
    STEPS,
    Acceptance,
    Hardware,
    ModelShape,
    expected_tokens,
    hardware,
    inner_passes,
    model_shape,
    origin_machine,
    plan,
    rate_of,
    this_machine,
    what_if,
)
from mspeckv_study.whatif.machines import Loop, MeasuredPasses
from mspeckv_study.whatif.origin import cells, curve, errors
from tests.calls import python_calls
from tests.random_models import random_pair
from tools.cost_document import document

ROOT = Path(__file__).parent.parent


def simple(**changes: Any) -> Hardware:
    """A machine whose times can be worked out by hand: 1 GB/s, launches for nothing."""
    given: dict[str, Any] = {
        "name": "simple", "source": "a test", "kind": "gpu", "memory_gb": 1000.0,
        "memory_gbps": 1.0, "matrix_gflops": 1e9, "link_gbps": 1.0, "launch_us": 0.0,
    }  # fmt: skip
    return Hardware(**{**given, **changes})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("qwen2.5-7b", 7_615_616_512),
        ("mistral-7b", 7_248_023_552),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_catalogue_has_the_published_numbers_of_weights(name: str, params: int) -> None:
    assert MODELS[name].own_params == params


def test_a_configuration_gives_the_catalogues_shape() -> None:
    sizes = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "tie_word_embeddings": False,
    }  # fmt: skip
    found, known = ModelShape.of(Qwen2Config(**sizes)), MODELS["qwen2.5-7b"]
    for field in ("layers", "kv_heads", "head_dim", "layer_params", "head_params", "own_params"):
        assert getattr(found, field) == getattr(known, field)


def test_tied_weights_are_counted_once() -> None:
    pair = random_pair("llama", layers=3)
    shape = ModelShape.of(pair.target.config)
    assert shape.own_params == sum(p.numel() for p in pair.target.parameters())
    tied = LlamaConfig(**{**pair.target.config.to_dict(), "tie_word_embeddings": True})
    assert shape.own_params - ModelShape.of(tied).own_params == shape.head_params


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize(("gamma", "draft_gamma"), [(1, 3), (8, 1), (8, 3), (5, 7), (6, 0)])
def test_rounds_are_as_long_as_simulated_ones(rate: float, gamma: int, draft_gamma: int) -> None:
    random = np.random.default_rng(1)
    settled, middle, draft, read = [], [], [], []
    for _ in range(4000):
        wanted, passes, guesses, tokens = gamma, 0, 0, 0
        while wanted:
            depth = min(draft_gamma, wanted - 1)
            misses = random.random(depth) >= rate
            kept = int(misses.argmax()) if misses.any() else depth
            wanted, passes = wanted - kept - 1, passes + 1
            guesses, tokens = guesses + depth, tokens + depth + 1
        misses = random.random(gamma) >= rate
        settled.append((int(misses.argmax()) if misses.any() else gamma) + 1)
        middle.append(passes)
        draft.append(guesses)
        read.append(tokens)
    found = inner_passes(rate, draft_gamma, gamma)
    for simulated, value in (
        (settled, expected_tokens(rate, gamma)),
        (middle, found.middle),
        (draft, found.draft),
        (read, found.read),
    ):
        slack = 5 * np.std(simulated) / np.sqrt(len(simulated)) + 1e-9
        assert abs(np.mean(simulated) - float(value)) <= slack


def test_the_closed_form_is_the_sum_that_decoding_takes() -> None:
    for rate in (0.0, 0.3, 0.95, 1.0):
        assert expected_tokens(rate, np.arange(17)) == pytest.approx(by_place([rate], 16))


def test_the_rate_of_a_number_of_kept_guesses_gives_that_number() -> None:
    gamma = np.array([1, 4, 8, 8, 16])
    kept = np.array([0.4, 0.0, 6.61, 8.0, 3.2])
    assert np.allclose(expected_tokens(rate_of(kept, gamma), gamma) - 1, kept, atol=1e-6)
    with pytest.raises(ValueError, match="accepted"):
        rate_of(9, 8)


def test_a_layer_takes_its_bytes_over_the_bandwidth() -> None:
    shape = MODELS["llama-2-7b"]
    found = what_if(shape, simple(), method="autoregressive", on_chip=32, prefill=4000,
                    new_tokens=192)  # fmt: skip
    read = 2 * (32 * shape.layer_params + shape.head_params) + 32 * 4096 * 16384
    assert found.ms_per_token == pytest.approx(read / 1e6)
    slow = what_if(shape, simple(matrix_gflops=1e-3), method="autoregressive", on_chip=32)
    operations = 2 * (32 * shape.layer_params + shape.head_params)
    operations += 32 * 4 * (16384 + 128) * 4096
    assert slow.ms_per_token == pytest.approx(operations / 1e-3 / 1e6)


def test_packed_weights_are_read_in_their_own_width() -> None:
    shape, cpu = MODELS["smollm2-135m"], simple(kind="cpu", dtype="float32")
    asked: dict[str, Any] = {"method": "autoregressive", "on_chip": 30, "new_tokens": 256}
    norms = 4 * 30 * 2 * shape.hidden
    products = 30 * shape.layer_params - norms / 4
    for weights, bits in (("int4", 4), ("int8", 8)):
        ms = {
            prefill: what_if(shape, cpu, weights=weights, prefill=prefill, **asked).ms_per_token
            for prefill in (872, 3872)
        }
        # a group of 32 codes has two scales in half precision; the head is in 8 bits
        read = products * (bits + 1) / 8 + norms + shape.head_params * 9 / 8
        kv = 30 * shape.kv(cpu.torch_dtype).token_bytes
        assert ms[872] == pytest.approx((read + 1000 * kv) / 1e6)
        assert ms[3872] - ms[872] == pytest.approx(3000 * kv / 1e6)
    plain, packed = (plan(shape, cpu, weights=form) for form in ("float", "int4"))
    assert packed.choice.ms_per_token < plain.choice.ms_per_token
    assert packed.choice.device_bytes < plain.choice.device_bytes


@pytest.mark.parametrize(
    ("machine", "weights"), [("h100", "int4"), ("laptop-cpu", "int3"), (simple(kind="cpu"), "int8")]
)
def test_weights_that_no_pair_holds_there_are_refused(
    machine: str | Hardware, weights: str
) -> None:
    with pytest.raises(ValueError, match=f"weights: '{weights}' is not allowed; use "):
        what_if("smollm2-135m", machine, weights=weights)


def test_steps_add_up_to_the_time_of_a_token() -> None:
    random = np.random.default_rng(0)
    for method in ("autoregressive", "vanilla", "triforce", "mspeckv"):
        found = what_if(
            method=method,
            on_chip=random.integers(0, 16, 50),
            link_gbps=random.uniform(0.1, 60, 50),
            gamma=random.integers(1, 12, 50),
        )
        assert tuple(found.steps) == STEPS
        assert np.allclose(sum(found.steps.values()), found.ms_per_token)
        assert np.allclose(found.round_ms / found.tokens_per_round, found.ms_per_token)


@pytest.mark.parametrize("layers", [1, 2, 5, 30])
@pytest.mark.parametrize("transfer", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("ahead", [2, 4])
@pytest.mark.parametrize("on_chip", [0, 3])
def test_overlap_is_that_of_a_simulated_pipeline(
    layers: int, transfer: float, ahead: int, on_chip: int
) -> None:
    """The closed form against the queue that `mspeckv.kv.offloaded.Pipeline` runs."""
    target = MODELS["llama-2-7b"]
    shape = ModelShape(**{
        **{name: getattr(target, name) for name in target.__dataclass_fields__},
        "layers": layers + on_chip,
    })  # fmt: skip
    machine = simple(memory_gbps=1000.0, link_gbps=1.0)
    asked: dict[str, Any] = {
        "method": "autoregressive", "prefill": 4096, "new_tokens": 2, "bits": 8, "tail": 0,
        "on_chip": on_chip, "ahead": ahead,
    }  # fmt: skip
    probe = what_if(shape, machine, **asked)
    link = probe.link_bytes_per_token / layers / 1e6 / transfer
    found = what_if(shape, machine, link_gbps=link, **asked)
    steps = found.steps
    outside = 2 * shape.head_params / machine.memory_gbps / 1e6
    compute = (steps["tier 2 compute"] - outside) / (layers + on_chip)
    unpack = steps["tier 2 unpack"] / layers
    # layers arrive one after the other, each into a slot; a slot is free once it is unpacked
    link_free, now, arrivals = 0.0, on_chip * compute, []
    for _ in range(min(ahead, layers)):
        link_free += transfer
        arrivals.append(link_free)
    for layer in range(layers):
        now = max(now, arrivals[layer]) + unpack
        if len(arrivals) < layers:
            link_free = max(link_free, now) + transfer
            arrivals.append(link_free)
        now += compute
    assert found.ms_per_token == pytest.approx(now + outside, rel=1e-6)


def test_lru_hits_nothing_until_everything_fits() -> None:
    resident = np.arange(0, 33)
    lru = what_if(on_chip=0, resident=resident, residency="lru")
    static = what_if(on_chip=0, resident=resident)
    assert len(set(lru.link_bytes_per_token[:32])) == 1
    assert lru.link_bytes_per_token[32] == 0
    assert all(more > less for more, less in pairwise(static.link_bytes_per_token))


def random_settings(count: int) -> list[tuple[RunConfig, int]]:
    random = np.random.default_rng(3)

    def one_of(*values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    out = []
    for _ in range(count):
        method = one_of("autoregressive", "vanilla", "triforce", "mspeckv")
        on_chip = int(random.integers(0, 5))
        nibble = method == "mspeckv" and bool(random.integers(2))
        bits: Width = "full" if method == "triforce" else 8 if nibble else one_of(8, 4, 2, "full")
        lru = not nibble and bool(random.integers(2))
        policy = KVPolicy(
            bits=bits,
            on_chip=on_chip,
            resident=int(random.integers(0, 5 - on_chip)),
            block=one_of(16, 64),
            tail=one_of(0, 32),
            ahead=one_of(2, 3),
            nibble=nibble,
            residency="lru" if lru else "static",
        )
        speculation = Speculation(
            gamma=int(random.integers(1, 9)),
            budget=one_of(64, 256),
            window=one_of(32, 100),
            tier1="nibble" if nibble else "retrieval",
            tier0=one_of("draft", "lookup"),
            draft_vocab=one_of(0, 16),
        )
        new_tokens = int(random.integers(1, 99))
        out.append(
            (RunConfig(method, new_tokens, policy, speculation), int(random.integers(9, 700)))
        )
    return out


def test_memory_is_what_a_run_is_checked_against() -> None:
    pair = random_pair("llama")
    assert pair.draft is not None
    shape, draft = ModelShape.of(pair.target.config), ModelShape.of(pair.draft.config)
    cpu = simple(kind="cpu", dtype="float32")
    for config, prompt in random_settings(60):
        known = predict(engine_of(pair), pair, config, prompt)
        found = what_if(
            shape, cpu, draft=draft, method=config.method, prefill=prompt,
            new_tokens=config.new_tokens, policy=config.policy, speculation=config.speculation,
        )  # fmt: skip
        assert found.device_bytes == known.device, config
        assert found.host_bytes == known.offloaded, config


def test_equal_memory_is_the_most_that_fits() -> None:
    shape, where = MODELS["llama-2-7b"], HARDWARE["a100-80"]
    for on_chip, bits in ((16, 8), (0, 4), (32, "full")):
        found = what_if(shape, where, on_chip=on_chip, bits=bits, budget=4096)
        control = found.equal_memory
        assert control is not None
        plain = [
            what_if(shape, where, method="autoregressive", draft=None, on_chip=k)
            for k in range(33)
        ]  # fmt: skip
        fitting = [k for k in range(33) if plain[k].device_bytes <= found.device_bytes]
        assert control.fits == bool(fitting)
        if fitting:
            assert control.on_chip == max(fitting)
            assert control.ms_per_token == pytest.approx(plain[max(fitting)].ms_per_token)
            assert control.speedup == pytest.approx(control.ms_per_token / found.ms_per_token)


def test_arrays_are_the_same_as_one_by_one() -> None:
    widths = np.array([8, 4, "full", 2], dtype=object)
    on_chip = np.array([0, 8, 16, 3])
    rate = np.array([0.2, 0.5, 0.9, 1.0])
    whole = what_if(
        bits=widths, on_chip=on_chip, resident=4, gamma=[2, 4, 8, 16],
        acceptance=Acceptance(rate, 0.9), prefill=[[8192], [32768]],
    )  # fmt: skip
    assert whole.ms_per_token.shape == (2, 4)
    for row, prefill in enumerate((8192, 32768)):
        for place in range(4):
            one = what_if(
                bits=widths[place], on_chip=int(on_chip[place]), resident=4,
                gamma=[2, 4, 8, 16][place], acceptance=Acceptance(rate[place], 0.9),
                prefill=prefill,
            )  # fmt: skip
            assert isinstance(one.ms_per_token, float)
            assert whole.ms_per_token[row, place] == pytest.approx(one.ms_per_token)
            assert whole.device_bytes[row, place] == one.device_bytes


def test_many_settings_are_predicted_at_once() -> None:
    def asked(count: int) -> dict[str, Any]:
        random = np.random.default_rng(0)
        return {
            "prefill": random.integers(1024, 131072, count),
            "on_chip": random.integers(0, 16, count),
            "resident": random.integers(0, 16, count),
            "gamma": random.integers(1, 16, count),
            "draft_gamma": random.integers(1, 6, count),
            "bits": random.choice([8, 4, 2], count),
            "budget": random.integers(256, 8192, count),
            "link_gbps": random.uniform(1, 60, count),
            "acceptance": Acceptance(random.random(count), random.random(count)),
        }

    found = what_if(**asked(10_000))
    assert found.ms_per_token.shape == (10_000,)
    assert bool(np.all(np.isfinite(found.ms_per_token)))
    # arrays do it: ten thousand take a tenth of a second, and hardly more calls than ten
    few, many = (python_calls(partial(what_if, **asked(count))) for count in (10, 10_000))
    assert many < 2 * few


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"model": "llama-9"}, "model"),
        ({"machine": "abacus"}, "hardware"),
        ({"method": "magic"}, "method"),
        ({"on_chip": [1, 33]}, "on_chip"),
        ({"on_chip": 30, "resident": [1, 3]}, "on_chip"),
        ({"on_chip": 1.5}, "on_chip"),
        ({"prefill": 1}, "prefill"),
        ({"gamma": [1, 0]}, "gamma"),
        ({"gamma": "auto"}, "gamma: 'auto' .* mspeckv.plan chooses lengths"),
        ({"budget": [4096, 10]}, "budget"),
        ({"bits": [8, 5]}, "bits"),
        ({"method": "triforce", "bits": 8}, "bits"),
        ({"tier1": "nibble"}, "tier1"),
        ({"link_gbps": [1.0, 0.0]}, "link_gbps"),
        ({"acceptance": (2.0,)}, "draft_middle"),
        ({"colour": 1}, "colour"),
        ({"on_chip": [1, 2], "gamma": [1, 2, 3]}, "broadcast"),
        ({"method": "vanilla", "draft": None}, "draft"),
    ],
)
def test_bad_settings_are_refused(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        if "acceptance" in asked:
            asked = {"acceptance": Acceptance(*asked["acceptance"])}
        what_if(**asked)


def test_more_of_anything_good_is_never_slower() -> None:
    def faster(**fields: Any) -> None:
        ms = what_if(on_chip=8, resident=8, **fields).ms_per_token
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(ms)), fields

    rates = np.linspace(0, 1, 11)
    faster(acceptance=Acceptance(middle_full=rates))
    faster(acceptance=Acceptance(draft_middle=rates), draft_gamma=1)
    faster(link_gbps=np.geomspace(0.1, 100, 20))
    faster(ahead=[2, 3, 4, 8])
    ms = [what_if(machine=HARDWARE[name]).ms_per_token for name in ("a100-40", "a100-80", "h100")]
    assert ms == sorted(ms, reverse=True)


def test_measured_passes_stand_in_for_the_roofline() -> None:
    table = MeasuredPasses(32, (1, 9), (0, 1000), ((40.0, 50.0), (80.0, 130.0)))
    assert table.at(1, 500) == pytest.approx(45)
    assert table.at(5, 1000) == pytest.approx(90)
    assert table.at(17, 0) == pytest.approx(120)
    assert table.at(1, 2000) == pytest.approx(60)
    machine = simple(passes={"target": table})
    found = what_if("llama-2-7b", machine, method="autoregressive", on_chip=32, prefill=999,
                    new_tokens=2)  # fmt: skip
    assert found.ms_per_token == pytest.approx(50.0)


def test_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    pair = random_pair("llama")
    here = this_machine("cpu", pair)
    assert here.kind == "cpu"
    assert here.passes["target"].layers == pair.layers
    assert all(ms > 0 for row in here.passes["target"].ms for ms in row)
    assert set(here.unpack_ns) == {"8", "4", "3", "2", "full", "nibble"}
    # codes that attention reads as they are need no unpacking, and take less than floats
    assert min(here.unpack_ns.values()) >= 0
    assert here.unpack_ns["full"] > 0
    assert here.row_us > 0
    assert here.choose_us > 0
    shape = ModelShape.of(pair.target.config)
    found = what_if(shape, here, method="autoregressive", on_chip=4, prefill=128, new_tokens=2)
    assert found.ms_per_token >= here.passes["target"].at(1, 128)


def test_the_origin_is_fitted_on_autoregressive_cells_alone() -> None:
    machine = origin_machine()
    assert 11 < machine.link_gbps < 12.5
    fitted = [cell for cell in cells() if cell.fitted]
    assert [(c.table, c.method) for c in fitted] == [("A1", "autoregressive")] * 4
    assert max(abs(cell.error) for cell in fitted) < 0.03
    assert machine.loop == Loop(False, 128, True, 1)
    assert hardware("origin") is machine


def test_published_cells_are_predicted_within_a_fifth() -> None:
    off = errors(cells())
    assert len(off) == 36
    assert float(np.median(off)) <= 0.2
    assert float(off.max()) < 0.25


def test_the_cliff_of_b1_is_lrus() -> None:
    places = [4, 8, 12, 16, 18]
    lru = curve("B1", "mspeckv", places)
    static = curve("B1", "mspeckv", places, residency="static")
    assert lru[3] > 1.4 * lru[2]
    assert np.allclose(lru[3:], static[3:], rtol=1e-6)
    assert static[2] > 1.3 * lru[2]
    with pytest.raises(ValueError, match="table"):
        curve("C1", "mspeckv", [1])


def test_the_page_about_the_tables_is_fresh() -> None:
    kept = (ROOT / "docs" / "cost-model.md").read_text(encoding="utf-8")
    assert kept == document() + "\n", "python -m tools.cost_document > docs/cost-model.md"


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["whatif", "--target", "llama-3-8b", "--on-chip", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == "modelled"
    known = mspeckv.what_if("llama-3-8b", prefill=32768, on_chip=8, gamma=8, draft_gamma=3,
                            budget=4096)  # fmt: skip
    assert found["ms_per_token"] == pytest.approx(known.ms_per_token)
    assert found["memory"]["peak_device_bytes"] == known.device_bytes
    assert main(["whatif"]) == 0
    assert "modelled" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target", "nothing"],
        ["--on-chip", "40"],
        ["--kv-bits", "5"],
        ["--method", "other"],
        ["--hardware", "abacus"],
        ["--prefill", "many"],
        ["--middle-full", "1.5"],
    ],
)
def test_the_command_refuses_bad_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whatif", *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_folder_gives_a_shape(tmp_path: Path) -> None:
    pair = random_pair("llama")
    pair.target.config.save_pretrained(tmp_path)
    assert model_shape(str(tmp_path)).own_params == ModelShape.of(pair.target.config).own_params
