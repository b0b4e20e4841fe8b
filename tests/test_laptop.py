"""`benchmarks.laptop` in a dry form: every table, the same text by every way of ours."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks import laptop, llama_cpp
from benchmarks.laptop import GOALS, LLAMA, OURS, WEIGHTS
from benchmarks.laptop_steps import hollow, prompt_gflop, weight_bytes
from mspeckv import load_pair
from mspeckv.models.packed import form_of


def rows(table: str) -> dict[str, list[str]]:
    """A table's lines below its rule, by what they begin with."""
    lines = table.splitlines()
    rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
    return {line.split("  ")[0]: line.split() for line in lines[rule + 1 :] if line}


@pytest.mark.usefixtures("one_thread")
def test_a_dry_run_fills_every_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    laptop.main(["--contexts", "96", "--kinds", "copy", "--new-tokens", "24", "--turns", "1"])
    head, rates, passes, prefill, steps, goals = capsys.readouterr().out.split("\n\n")
    assert "llama.cpp left out" in head
    ours = [f"ours {weights} {way}" for way in OURS for weights in WEIGHTS]
    peers = [f"transformers {way}" for way in ("generate", "assisted", "lookup")]
    found = rows(rates)
    assert list(found) == ours + peers
    for line in found.values():
        assert float(line[-2]) > 0
        assert line[-1] == "yes"
    counted = rows(passes)
    assert list(counted) == ours
    for name, (*_, tokens, word, steps_) in counted.items():
        assert word == "in"
        # rates are rounded to four digits, these to two places
        weights, _ = name.removeprefix("ours ").split()
        plain, own = (float(found[one][-2]) for one in (f"ours {weights} plain", name))
        assert float(tokens) / float(steps_) == pytest.approx(own / plain, rel=0.02)
    assert counted["ours float plain"][-3:] == ["1.00", "in", "1.00"]
    names = [f"ours {weights}" for weights in WEIGHTS]
    shares = [f"{name}, of a large product's rate" for name in names]
    assert list(rows(prefill)) == ["transformers", *names, *shares]
    # prompt and length, "ours" and its weights, then numbers
    floats, packed = (list(map(float, line.replace("%", "").split()[4:]))
                      for line in steps.splitlines()[3:])  # fmt: skip
    assert packed[0] < floats[0] / 5
    assert packed[1] == floats[1] > 0
    for megabytes, kv, ms, gbps, _, *parts, hollow_ms, reading, layers, cached in (floats, packed):
        assert gbps == pytest.approx((megabytes + kv) / ms, rel=0.01)
        assert sum(parts) == pytest.approx(ms, rel=0.01)
        assert reading == pytest.approx(megabytes / parts[0], rel=0.01)
        assert min(hollow_ms, layers, cached) > 0
    assert set(rows(goals)) == set(GOALS)


def test_a_prompts_arithmetic_and_a_hollow_model() -> None:
    pair = load_pair(weights="int4")
    # 106 M weights in the layers, two operations each; half of 100 tokens attended, by two products
    products = 30 * 2 * (576 * (576 + 2 * 192) + 576 * 576 + 3 * 576 * 1536)
    assert prompt_gflop(pair, 100) == pytest.approx(100 * (products + 30 * 2 * 576 * 100) / 1e9)
    shrunk = hollow(pair)
    assert shrunk.layers == pair.layers
    assert form_of(shrunk.target) == "int4"
    assert weight_bytes(shrunk) < weight_bytes(pair) / 100


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra bench is not installed"
)
def test_llama_cpp_reads_a_prompt_once_and_says_the_same_again() -> None:
    with llama_cpp.default_file() as gguf:
        prompt = list(range(1000, 1040)) * 2
        assert 90e6 < llama_cpp.weight_bytes(gguf) < 100e6
        for chosen in LLAMA.values():
            with llama_cpp.apart(gguf, 128, **chosen) as server:
                assert server.prefill(prompt)[0] == len(prompt)
                assert server.prefill(prompt)[0] == 1
                first, second = (server.run(prompt, 8) for _ in range(2))
                assert first.text == second.text
                assert first.rate > 0
