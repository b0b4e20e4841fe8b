"""Every acceleration may be left out: the text stays the same, with none, with each, with all."""

from __future__ import annotations

import copy
import gc
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch

import mspeckv
from mspeckv import KVPolicy, Pair, Sampling, Speculation, generate
from mspeckv.accelerate.graphs import Direct
from mspeckv.accelerate.workspace import plug_runners
from mspeckv.api import ACCELERATIONS, SWITCH, chosen, engine_of, hooks_for
from mspeckv.decoding.hooks import Engine, Hooks
from tests.random_models import random_pair, random_prompt

PACKAGE = Path(mspeckv.__file__).parent
GUESSES = Speculation(
    gamma=5, draft_gamma=2, budget=64, chunk=8, recent=16, refresh=6, window=32, draft_vocab=32
)
POLICIES = {
    "full": KVPolicy("full", on_chip=1),
    "int8": KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
    "int4, lru": KVPolicy(4, resident=2, block=16, residency="lru"),
}
SAMPLINGS = {
    "greedy": Sampling(0, stop_at_eos=False),
    "sampled": Sampling(0.8, top_p=0.9, seed=3, stop_at_eos=False),
}


def hooks_of(names: tuple[str, ...]) -> Hooks:
    """What is plugged in; on a CPU static passes stand for the graphs that replay them."""
    hooks = hooks_for(random_pair(layers=4), names)
    return plug_runners(hooks, Direct) if "workspace" in names else hooks


def tokens(names: tuple[str, ...], **settings: Any) -> tuple[int, ...]:
    """A run with only these accelerations."""
    pair = random_pair(layers=4)
    engine = engine_of(pair)
    before, engine.hooks = engine.hooks, hooks_of(names)
    try:
        # keys long enough to be cut into pieces
        prompt = random_prompt(1100)
        summary = generate(pair, prompt, new_tokens=24, speculation=GUESSES, **settings)
    finally:
        engine.give_back()
        engine.hooks = before
    return summary.tokens


@pytest.mark.parametrize("name", ["all", *ACCELERATIONS])
@pytest.mark.parametrize(("policy", "sampling"), list(product(POLICIES, SAMPLINGS)))
def test_a_text_is_the_same_as_without_any(name: str, policy: str, sampling: str) -> None:
    names = ACCELERATIONS if name == "all" else (name,)
    settings = {"policy": POLICIES[policy], "sampling": SAMPLINGS[sampling]}
    # a short list changes what a draft proposes, and so which random numbers decide what
    method = "autoregressive" if sampling == "sampled" else "mspeckv"
    assert tokens(names, method=method, **settings) == tokens((), method=method, **settings)


def test_greedy_text_without_any_is_that_of_transformers() -> None:
    pair, prompt = random_pair(layers=4), random_prompt(60)
    ids = torch.tensor([prompt])
    plain = pair.target.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    engine = engine_of(pair)
    before, engine.hooks = engine.hooks, hooks_of(())
    try:
        found = generate(
            pair, prompt, new_tokens=20, policy=POLICIES["full"], sampling=SAMPLINGS["greedy"]
        )
    finally:
        engine.hooks = before
    assert found.tokens == tuple(plain[0, 60:].tolist())


def test_without_accelerations_nothing_is_plugged_in_but_lengths_and_lookup() -> None:
    bare, hooks = Hooks(), hooks_of(())
    same = {"kernels", "show", "restore", "products", "copy_bytes", "head", "lend", "accord"}
    assert {name for name in same if getattr(hooks, name) == getattr(bare, name)} == same
    assert hooks.choose is not None
    assert Engine().hooks == bare


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, names in {
        "": ACCELERATIONS, "all": ACCELERATIONS, "none": (), "short_head, split_keys":
        ("split_keys", "short_head"),
    }.items():  # fmt: skip
        monkeypatch.setenv(SWITCH, value)
        assert chosen() == names
    monkeypatch.setenv(SWITCH, "warp")
    with pytest.raises(ValueError, match=f"^{SWITCH}: 'warp' is not allowed; use all, none"):
        chosen()


DECODE = """
import sys
from pathlib import Path
# an editable install would find what the copy lacks
sys.meta_path[:] = [one for one in sys.meta_path if "Editable" not in getattr(one, "__name__", "")]
import mspeckv
assert Path(mspeckv.__file__).parent.parent == Path.cwd(), mspeckv.__file__
from tests.random_models import random_pair, random_prompt
greedy = mspeckv.Sampling(0, stop_at_eos=False)
for method in ("autoregressive", "mspeckv"):
    for policy in (mspeckv.KVPolicy(8, on_chip=1, resident=1, block=16), mspeckv.KVPolicy("full")):
        found = mspeckv.generate(
            random_pair(), random_prompt(80), method=method, policy=policy, new_tokens=12,
            sampling=greedy,
        )
        print(*found.tokens)
try:
    mspeckv.generate(
        random_pair(), random_prompt(60), policy=mspeckv.KVPolicy(8, nibble=True),
        speculation=mspeckv.Speculation(tier1="nibble"),
    )
except ValueError as refused:
    assert "tier1: 'nibble' is not allowed; use one of retrieval" in str(refused), refused
else:
    raise AssertionError("what no acceleration serves is not refused")
assert not [name for name in sys.modules if name.startswith("mspeckv.accelerate")]
"""


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "switched off"])
def test_the_package_decodes_without_the_folder(tmp_path: Path, gone: bool) -> None:
    wanted = "\n".join(
        " ".join(
            map(
                str,
                generate(
                    random_pair(), random_prompt(80), method="autoregressive", policy=policy,
                    new_tokens=12, sampling=SAMPLINGS["greedy"],
                ).tokens,
            )
        )
        for policy in (KVPolicy(8, on_chip=1, resident=1, block=16), KVPolicy("full"))
    )  # fmt: skip
    leave = ["accelerate"] if gone else []
    shutil.copytree(
        PACKAGE, tmp_path / "mspeckv", ignore=shutil.ignore_patterns("__pycache__", *leave)
    )
    (tmp_path / "tests").symlink_to(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), SWITCH: "all" if gone else "none"}
    done = subprocess.run(
        [sys.executable, "-c", DECODE], cwd=tmp_path, env=environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    assert [first, second] == [third, fourth] == wanted.splitlines()


def test_an_engine_lives_as_long_as_its_pair() -> None:
    pair = Pair.of(copy.deepcopy(random_pair().target))
    generate(pair, random_prompt(40), method="autoregressive", new_tokens=4)
    engine = ref(engine_of(pair))
    assert engine() is not None
    del pair
    gc.collect()
    assert engine() is None
