"""One model over two processes on this CPU: the same tokens as in one, and the same on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from mspeckv import api
from mspeckv.accelerate import workspace
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.shared_draft import own_weights, shared_draft
from mspeckv.parallel import Ranks, tensor_parallel
from mspeckv.parallel import ranks as parallel
from mspeckv_study.cli import main
from tests.conftest import build_llama, build_qwen2
from tests.random_models import random_pair
from tests.rank_cases import run_cases
from tests.test_models import save, word_tokenizer

ROOT = Path(__file__).resolve().parents[1]
WORDS = " ".join(f"w{index}" for index in range(63))
SHAPE = {"heads": 8, "kv_heads": 4}
COMMAND = [
    "generate", "--prefill", "150", "--new-tokens", "12", "--temperature", "0", "--kv-bits", "8",
    "--on-chip", "1", "--resident", "1", "--block", "16", "--tail", "16", "--link", "0.5",
    "--budget", "64", "--chunk", "8", "--recent", "16", "--json", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with a tokenizer of one word a token, and a text."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer, target = word_tokenizer(WORDS), build_llama(**SHAPE)
    save(target, tokenizer, folder / "llama")
    # the target, slightly off: often right
    draft, generator = build_llama(**SHAPE), torch.Generator().manual_seed(1)
    for weight in draft.parameters():
        weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    save(draft, tokenizer, folder / "draft")
    save(build_qwen2(**SHAPE), tokenizer, folder / "qwen2")
    save(build_llama(hidden=96, heads=6, kv_heads=3), tokenizer, folder / "three")
    save_file(own_weights(shared_draft(target, 4)), folder / "draft.safetensors")
    (folder / "text.txt").write_text(" ".join(f"w{n * n % 63}" for n in range(400)))
    return folder


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two ranks by torchrun, on the CPU."""
    # a free port for each: tests run two at a time
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def cases(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Every case in one process, on rank 0 and on rank 1."""
    done = launch("tests.rank_cases", str(folder))
    assert done.returncode == 0, done.stderr
    alone = json.loads(json.dumps(run_cases(folder, None)))
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return alone, ranks[0], ranks[1]


@pytest.mark.parametrize("case", ["autoregressive", "mspeckv", "shared head", "qwen2"])
def test_greedy_tokens_are_those_of_one_process(
    case: str, cases: tuple[dict[str, Any], ...]
) -> None:
    alone, first, second = cases
    assert alone[case]["tokens"] == first[case]["tokens"] == second[case]["tokens"]
    assert len(set(alone[case]["tokens"])) > 2
    # a draft or a tier 1 that came out otherwise would be believed more or less often
    for count in ("proposed", "accepted"):
        assert alone[case][count] == first[case][count] == second[case][count]


@pytest.mark.parametrize("case", ["mspeckv", "shared head"])
def test_some_of_the_draft_is_accepted(case: str, cases: tuple[dict[str, Any], ...]) -> None:
    _, first, _ = cases
    assert 0 < first[case]["accepted"][0] <= first[case]["proposed"][0]


@pytest.mark.parametrize("case", ["sampled", "misled"])
def test_ranks_sample_the_same_tokens_with_the_same_lengths(
    case: str, cases: tuple[dict[str, Any], ...]
) -> None:
    _, first, second = cases
    assert len(first[case]["tokens"]) == 12
    for field in ("tokens", "plans", "gbps"):
        assert first[case][field] == second[case][field]


def test_a_rank_holds_the_kv_of_its_own_heads(cases: tuple[dict[str, Any], ...]) -> None:
    alone, first, second = cases
    share = alone["mspeckv"]["offloaded"] // 2
    assert share > 0
    assert first["mspeckv"]["offloaded"] == second["mspeckv"]["offloaded"] == share
    # norms and the draft are whole on both
    assert first["weight bytes"] + second["weight bytes"] < 2 * alone["weight bytes"]


def test_one_rank_that_wishes_to_stop_stops_all(cases: tuple[dict[str, Any], ...]) -> None:
    alone, first, second = cases
    assert first["cancelled"] == second["cancelled"]
    assert first["cancelled"]["cancelled"]
    assert 1 <= len(first["cancelled"]["tokens"]) < 12
    whole = alone["autoregressive"]["tokens"]
    assert whole[: len(first["cancelled"]["tokens"])] == first["cancelled"]["tokens"]


def test_what_one_rank_refuses_all_refuse(cases: tuple[dict[str, Any], ...]) -> None:
    _, first, second = cases
    assert first["one refuses"] == second["one refuses"]
    assert first["one refuses"].startswith("prompt + new_tokens: '150 + 1000000'")
    assert first["other prompts"] == second["other prompts"]
    assert first["other prompts"].startswith("prompt and settings: not the same on every rank")


def test_the_command_prints_one_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--target", str(folder / "llama"), "--draft", str(folder / "draft")]
    arguments = [*COMMAND, *models, "--document", str(folder / "text.txt")]
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    done = launch("mspeckv", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] == alone["tokens"]
    assert (alone["config"]["ranks"], found["config"]["ranks"]) == (1, 2)
    for name in ("on_chip_bytes", "resident_bytes", "offloaded_bytes"):
        assert 2 * found["memory"][name] == alone["memory"][name]
    assert 2 * found["link"]["to_host_bytes"] == alone["link"]["to_host_bytes"]


def test_the_command_refuses_heads_that_cannot_be_shared_out(folder: Path) -> None:
    done = launch("mspeckv", *COMMAND, "--target", str(folder / "three"), "--draft", "none")
    assert done.returncode != 0
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("mspeckv: ")]
    assert lines == [
        "mspeckv: ranks: 2 is not allowed; the target has 3 KV heads, which they must divide: "
        "use one of 1, 3"
    ]
    # torchrun's own report of what each rank ended with
    assert done.stderr.count("exitcode  : 2") >= 1


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (LlamaConfig(num_attention_heads=8, num_key_value_heads=4), 8, "use one of 1, 2, 4"),
        (GPT2Config(n_head=4, n_embd=64), 2, "no plan that splits gpt2 by heads"),
    ],
)
def test_what_cannot_be_split(config: PretrainedConfig, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensor_parallel.Split(Ranks(0, size, size)).check(config)


def test_each_rank_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    pair, crowd = Ranks(0, 2, 2), Ranks(0, 4, 4)
    for device, ranks, message in (
        ("cpu", pair, "use cuda"),
        ("cuda:1", pair, "a GPU of its own"),
        ("cuda", crowd, "has 2 GPUs"),
    ):
        with pytest.raises(ValueError, match=message):
            tensor_parallel.Split(ranks).own_device(torch.device(device))


def test_without_torchrun_there_are_no_ranks() -> None:
    assert parallel.join() is None
    with parallel.together(None):
        parallel.leave(None)


def test_what_was_captured_is_let_go_before_ranks_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs a graph that holds a collective would keep its group alive for ever."""
    done: list[str] = []
    told: list[Callable[[], None]] = []
    monkeypatch.setattr(api, "before_leaving", told)
    monkeypatch.setattr(api, "ranks_in", lambda pair: Ranks(0, 2, 2))
    monkeypatch.setattr(workspace, "forget_all", lambda: done.append("graphs"))
    pair = random_pair()
    on_gpu = workspace.plug(Hooks(), torch.device("cuda"))
    monkeypatch.setattr(workspace, "plug", lambda hooks, _: replace(hooks, forget=on_gpu.forget))
    for _ in range(2):
        assert api.hooks_for(pair).accord is not None
    assert told == [on_gpu.forget]
    monkeypatch.setattr(parallel, "before_leaving", told)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: done.append("group"))

    def add(self: Ranks, values: Sequence[float]) -> list[float]:
        done.append("all")
        return list(values)

    monkeypatch.setattr(Ranks, "add", add)
    parallel.leave(Ranks(0, 2, 2))
    assert done == ["all", "graphs", "group"]
