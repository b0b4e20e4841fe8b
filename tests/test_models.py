"""Loading, wrapping and refusing models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3nTextConfig,
    GlmMoeDsaConfig,
    JambaConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3NextConfig,
    T5Config,
)
from transformers.models.deepseek_v3 import DeepseekV3Config

from mspeckv.models.checks import check_decoder
from mspeckv.models.download import fetch
from mspeckv.models.load import load_pair, parse_device, parse_dtype
from mspeckv.models.pair import Pair
from mspeckv.models.shared_draft import default_draft
from mspeckv_study.cli import main

Build = Callable[..., PreTrainedModel]


def word_tokenizer(words: str) -> PreTrainedTokenizerFast:
    """Splits on spaces; each word of ``words`` is a token."""
    vocab = {word: index for index, word in enumerate(["?", *words.split()])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_default_pair_has_the_published_shape(pair: Pair) -> None:
    assert (pair.layers, pair.kv_heads, pair.head_dim) == (30, 3, 64)
    assert (pair.vocab_size, pair.max_positions) == (49152, 8192)
    assert pair.dtype == torch.float32
    assert pair.device.type == "cpu"
    assert pair.eos_ids == {2}
    assert pair.draft is not None
    assert pair.draft.config.num_hidden_layers == 2


def test_draft_shares_embedding_and_head_with_target(pair: Pair) -> None:
    assert pair.draft is not None
    shared = pair.target.get_input_embeddings().weight.data_ptr()
    assert pair.draft.get_input_embeddings().weight.data_ptr() == shared
    assert pair.draft.get_output_embeddings().weight.data_ptr() == shared
    own = sum(w.numel() for w in pair.draft.parameters() if w.data_ptr() != shared)
    assert own == 7_080_768
    target = sum(w.numel() for w in pair.target.parameters())
    assert pair.weight_bytes == 4 * (target + own)


def test_default_models_are_frozen_and_whole(pair: Pair) -> None:
    for model in (pair.target, pair.draft):
        assert model is not None
        assert not model.training
        for _, tensor in [*model.named_parameters(), *model.named_buffers()]:
            assert not tensor.is_meta
            assert not tensor.requires_grad


def test_default_target_knows_its_language(pair: Pair) -> None:
    assert pair.tokenizer is not None
    ids = pair.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    best = pair.target(ids).logits[0, -1].argmax().item()
    assert pair.tokenizer.decode([best]) == " Paris"


def test_tokenizer_round_trips_and_splits_digits(pair: Pair) -> None:
    assert pair.tokenizer is not None
    text = "Hello 12345, <|im_start|>user\nünïcode 漢字\t🎉 3.14  \n\n   2"
    ids = pair.tokenizer(text)["input_ids"]
    assert pair.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(pair.tokenizer("12345")["input_ids"]) == 5


def test_draft_agrees_with_target_far_above_chance(pair: Pair) -> None:
    assert pair.tokenizer is not None
    assert pair.draft is not None
    text = "Python is a programming language that lets you work quickly. " * 3
    ids = pair.tokenizer(text, return_tensors="pt")["input_ids"]
    p = pair.target(ids).logits.softmax(-1)
    q = pair.draft(ids).logits.softmax(-1)
    assert torch.minimum(p, q).sum(-1).mean() > 0.3


def test_bfloat16_default_pair_shares_too() -> None:
    pair = load_pair(dtype="bfloat16")
    assert pair.draft is not None
    assert pair.dtype == pair.draft.dtype == torch.bfloat16
    assert (
        pair.draft.get_input_embeddings().weight.data_ptr()
        == pair.target.get_input_embeddings().weight.data_ptr()
    )


def test_without_a_draft() -> None:
    pair = load_pair(draft="none")
    assert pair.draft is None
    assert pair.draft_id == "none"


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_wrapping_models_in_memory(kind: str, tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair(kind, vocab=48, layers=3, heads=4, kv_heads=1, hidden=32)
    assert (pair.layers, pair.kv_heads, pair.head_dim, pair.vocab_size) == (3, 1, 8, 48)
    assert pair.max_positions == 1024
    assert pair.tokenizer is None
    assert pair.eos_ids == frozenset()


def test_tiny_models_repeat(tiny_llama: Build) -> None:
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(tiny_llama(seed=5)(ids).logits, tiny_llama(seed=5)(ids).logits)
    assert not torch.equal(tiny_llama(seed=5)(ids).logits, tiny_llama(seed=6)(ids).logits)


def test_local_folders_as_target_and_draft(tiny_llama: Build, tmp_path: Path) -> None:
    words = word_tokenizer("a b c d e")
    target = save(tiny_llama(layers=2), words, tmp_path / "target")
    draft = save(tiny_llama(layers=1), words, tmp_path / "draft")
    pair = load_pair(target, draft)
    assert (pair.target_id, pair.draft_id) == (target, draft)
    assert pair.draft is not None
    assert pair.tokenizer is not None
    assert pair.tokenizer("b d")["input_ids"] == [2, 4]


def test_mismatched_tokenizers_name_both(tiny_llama: Build, tmp_path: Path) -> None:
    target = save(tiny_llama(layers=1), word_tokenizer("a b c"), tmp_path / "one")
    draft = save(tiny_llama(layers=1), word_tokenizer("a c b"), tmp_path / "two")
    with pytest.raises(ValueError, match="in 2 tokens") as refused:
        load_pair(target, draft)
    assert target in str(refused.value)
    assert draft in str(refused.value)


def test_other_vocabulary_size_is_refused(tiny_llama: Build) -> None:
    with pytest.raises(ValueError, match="vocabulary size is 48, that of .* is 64"):
        Pair.of(tiny_llama(vocab=64), tiny_llama(vocab=48))


def test_other_dtype_is_refused(tiny_llama: Build) -> None:
    with pytest.raises(ValueError, match="dtype is torch.bfloat16"):
        Pair.of(tiny_llama(), tiny_llama().to(torch.bfloat16))


def test_default_draft_fits_only_its_target(tiny_llama: Build, tmp_path: Path) -> None:
    target = save(tiny_llama(layers=1), word_tokenizer("a b c"), tmp_path / "one")
    with pytest.raises(ValueError, match="draft: 'default' is not allowed; it was made for SmolLM"):
        load_pair(target)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (T5Config(), "encoder-decoder"),
        (MambaConfig(), "no layer of it attends"),
        (Gemma3nTextConfig(), "share keys and values"),
        (GlmMoeDsaConfig(), "layers"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_architectures(config: PretrainedConfig, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"target: 'some/model' is not allowed.*({reason})"):
        check_decoder(config, "target", "some/model")


def test_recurrent_models_are_refused() -> None:
    config = MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32, state_size=4)
    model = MambaForCausalLM(config)
    with pytest.raises(ValueError, match="is not allowed"):
        Pair.of(model)


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(use_sliding_window=False, sliding_window=4096),
        MistralConfig(sliding_window=None),
        MistralConfig(sliding_window=4096),
        Gemma2Config(),
        Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2),
        JambaConfig(),
        Qwen3NextConfig(),
        DeepseekV3Config(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_of_every_known_kind_are_fine(config: PretrainedConfig) -> None:
    check_decoder(config, "target", "some/model")


def test_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    MambaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no layer of it attends"):
        load_pair(str(tmp_path), "none")


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="target: .* is not allowed; use a Hugging Face id") as bad:
        load_pair(str(tmp_path / "absent"))
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["lost", "empty", "cut off", "zeros"])
def test_a_damaged_folder_is_one_line(
    damage: str,
    name: str,
    tiny_llama: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "own"
    save(tiny_llama(layers=1), word_tokenizer("a b c d e"), folder)
    path = folder / name
    content = path.read_bytes()
    rest = {"empty": b"", "cut off": content[: len(content) // 2], "zeros": bytes(len(content))}
    path.unlink() if damage == "lost" else path.write_bytes(rest[damage])
    call = ["generate", "--target", str(folder), "--draft", "none", "--prompt", "a b c", "--quiet"]
    assert main([*call, "--on-chip", "1", "--resident", "0"]) == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("mspeckv: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"mspeckv: target: '{folder}' is not allowed; use a Hugging Face id")
    assert "Traceback" not in said


def test_weights_that_a_folder_lacks_are_not_drawn_at_random(
    tiny_llama: Build, tmp_path: Path
) -> None:
    source = save(tiny_llama(layers=2), word_tokenizer("a b c"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for model\.layers\.1\.mlp\.up_proj"):
        load_pair(source, "none")


@pytest.mark.parametrize("content", [b"", b"\x08" + bytes(40)], ids=["empty", "other bytes"])
def test_a_damaged_draft_is_one_line(content: bytes, tiny_llama: Build, tmp_path: Path) -> None:
    source = save(tiny_llama(layers=1), word_tokenizer("a b c"), tmp_path)
    draft = tmp_path / "draft.safetensors"
    draft.write_bytes(content)
    with pytest.raises(ValueError, match="draft: .* use a readable safetensors file"):
        load_pair(source, str(draft))


def test_a_damaged_shipped_draft_says_how_to_mend_it(
    tiny_llama: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "draft-smollm2-2layer.safetensors").write_bytes(b"torn")
    monkeypatch.setattr("mspeckv.models.shared_draft.resources.files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="damaged: run: pip install --force-reinstall"):
        default_draft(tiny_llama(layers=1))


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99", ""])
def test_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ValueError, match="device: "):
        parse_device(device)


@pytest.mark.parametrize("dtype", ["int8", torch.int8, "float64"])
def test_dtype_that_does_not_work(dtype: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="dtype: .* float32, bfloat16, float16"):
        parse_dtype(dtype)


def test_the_default_target_is_fetched_where_it_is_loaded() -> None:
    assert (fetch(quiet=True) / "config.json").is_file()
