"""Models that tests share: the real default pair, and tiny random ones made from configurations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mspeckv.accelerate.ordered_weights import SWITCH
from mspeckv.models.load import load_pair
from mspeckv.models.pair import Pair

# one arithmetic on every machine, whatever its processor gains by it
os.environ.setdefault(SWITCH, "1")

Build = Callable[..., PreTrainedModel]


LAB_PARTS = {
    "test_ablation", "test_accelerations_say", "test_acceptance_explorer", "test_badges",
    "test_chi_square", "test_class_guesses", "test_compared", "test_confidence", "test_cost",
    "test_course", "test_course_build", "test_course_export", "test_course_graders",
    "test_course_notes", "test_course_result", "test_decode_attention", "test_distil",
    "test_docs", "test_documents", "test_exercises_ablations", "test_exercises_liars",
    "test_exercises_tiers", "test_exercises_what_if", "test_experiments",
    "test_experiments_cluster", "test_extensions", "test_failing_checks", "test_figure",
    "test_gpu_card", "test_hints", "test_inflate", "test_kernel_memory", "test_lab_ends",
    "test_lab_folder", "test_last_picture", "test_leaderboard", "test_link", "test_live_labels",
    "test_live_prediction", "test_live_states", "test_moving_round", "test_native",
    "test_native_sanitized", "test_notebooks", "test_packaging", "test_plan",
    "test_planner_simulated", "test_predict", "test_profile_view", "test_profiling",
    "test_quant_explorer", "test_quantize", "test_reading", "test_recording", "test_report",
    "test_retrieval_explorer", "test_site", "test_slower_machine", "test_statistics",
    "test_store", "test_tensorboard", "test_testing_kit", "test_text_table", "test_tiled",
    "test_token_story", "test_verification", "test_what_if_widget", "test_widgets",
}  # fmt: skip
"""Files of tests that have nothing to do with which transformers there is."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the lab's own parts."""
    for item in items:
        if item.path.stem in LAB_PARTS:
            item.add_marker("lab_parts")


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> Iterator[None]:
    """Two cores are what the project is about: for one test after the other, or one for each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads wait for each other longer than such models compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_folder() -> Iterator[None]:
    """A test that goes into another folder comes back, since others follow it in its process."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before, "a test has changed the folder: use monkeypatch.chdir"


@pytest.fixture(scope="session", autouse=True)
def _measured_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Times of tests' models are not this machine's."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mspeckv.models.kept.cache_folder", lambda: folder)
        yield


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a course's lab has displayed so far."""
    things: list[Any] = []
    monkeypatch.setattr("mspeckv_widgets.course.lab._show", things.append)
    return things


@pytest.fixture(scope="session")
def pair() -> Pair:
    """The default pair, loaded once; a test must leave it as it found it."""
    return load_pair()


def build_llama(
    vocab: int = 64,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 64,
    positions: int = 1024,
    seed: int = 0,
) -> PreTrainedModel:
    """A random Llama in float32, the same for the same arguments."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _frozen(LlamaForCausalLM, config, seed)


def build_qwen2(
    vocab: int = 64,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 64,
    positions: int = 1024,
    seed: int = 0,
) -> PreTrainedModel:
    """A random Qwen2 (biases on queries, keys and values) in float32."""
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _frozen(Qwen2ForCausalLM, config, seed)


def _frozen(kind: Callable[..., PreTrainedModel], config: object, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        # At transformers' own 0.02 a tiny model says nearly the same of every token.
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    model.requires_grad_(False)
    return model


@pytest.fixture(scope="session")
def tiny_llama() -> Build:
    """Builds a tiny random Llama; see `build_llama` for its arguments."""
    return build_llama


@pytest.fixture(scope="session")
def tiny_qwen2() -> Build:
    """Builds a tiny random Qwen2; see `build_qwen2` for its arguments."""
    return build_qwen2


@pytest.fixture(scope="session")
def tiny_pair() -> Callable[..., Pair]:
    """Builds a pair of tiny random models, ``kind`` being ``"llama"`` or ``"qwen2"``."""

    def build(kind: str = "llama", *, draft: bool = True, **shape: int) -> Pair:
        make = {"llama": build_llama, "qwen2": build_qwen2}[kind]
        small = {**shape, "layers": 1, "seed": shape.get("seed", 0) + 1}
        return Pair.of(make(**shape), make(**small) if draft else None)

    return build
