"""GGUF files: each speaks as the model that it was written from, and is converted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import mspeckv.models.gguf_file
from mspeckv import KVPolicy, Sampling, generate, load_pair
from mspeckv.models.gguf_file import GGUFFile
from mspeckv.models.shared_draft import shared_draft
from mspeckv_study.cli import main
from mspeckv_study.whatif import model_shape
from tests.tiny_gguf import KINDS, VOCAB, tiny_model, write_gguf
from tools.train_draft import main as train

TEXT = "the thing is<|im_end|>  it was: an héron"
IDS = torch.arange(24)[None]
TRANSFORMERS_TOO = ("llama", "llama-tied", "mistral", "qwen2")
"""Kinds of which transformers' own loading says the same; of the others it leaves something out."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def converted(path: Path) -> Path:
    file = GGUFFile(path)
    file.convert(torch.float32)
    return file.folder(torch.float32)


def logits(source: Path, **more: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **more)
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_its_model_says(kind: str, parts: int, tmp_path: Path) -> None:
    """Bit for bit, over a text longer than Gemma's window here."""
    model = tiny_model(kind)
    files = write_gguf(tmp_path / "tiny.gguf", model, KINDS[kind][0], parts)
    folder = converted(files[-1])
    with torch.inference_mode():
        assert torch.equal(logits(folder), model(IDS).logits)
    if kind in TRANSFORMERS_TOO and parts == 1:
        assert torch.equal(logits(folder), logits(tmp_path, gguf_file=files[0].name))
    if parts == 1:
        own = AutoTokenizer.from_pretrained(tmp_path, gguf_file=files[0].name)
        ours = AutoTokenizer.from_pretrained(folder)
        assert ours(TEXT)["input_ids"] == own(TEXT)["input_ids"]
        assert len(ours) == VOCAB - 18, "padding is no token"
        assert ours.eos_token_id == 301


def test_quantized_weights_are_transformers_own(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    (file,) = write_gguf(tmp_path / "tiny.gguf", model, "qwen2", quantized=True)
    found = logits(converted(file))
    assert torch.equal(found, logits(tmp_path, gguf_file=file.name))
    with torch.inference_mode():
        error = (found - model(IDS).logits).abs().max()
    assert 0 < error < 2


ROTARY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
    (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {"type": "yarn", "factor": 4.0, "original_context_length": 128},
    ),
]


@pytest.mark.parametrize(("own", "told"), ROTARY, ids=["linear", "yarn"])
def test_scaled_positions_are_kept(
    own: dict[str, Any], told: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny_model("qwen2", rope_parameters={"rope_theta": 10000.0, **own})
    extra = {f"qwen2__rope__scaling__{name}": value for name, value in told.items()}
    (file,) = write_gguf(tmp_path / "tiny.gguf", model, "qwen2", **extra)
    with torch.inference_mode():
        assert torch.equal(logits(converted(file)), model(IDS).logits)


def test_llama_3_frequencies_are_kept(tmp_path: Path) -> None:
    """Llama 3.1's scaling comes as a tensor of factors, which transformers' reader passes over."""
    rotary = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
    }  # fmt: skip
    model = tiny_model("llama", rope_parameters=rotary)
    plain = LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    dims = torch.arange(0, 16, 2, dtype=torch.float32) / 16
    factors = plain.rope_parameters["rope_theta"] ** -dims / model.model.rotary_emb.inv_freq
    assert factors.max() > 2
    (file,) = write_gguf(tmp_path / "tiny.gguf", model, "llama", factors={"rope_freqs": factors})
    with torch.inference_mode():
        torch.testing.assert_close(logits(converted(file)), model(IDS).logits, atol=1e-3, rtol=0)
    assert not torch.allclose(logits(tmp_path, gguf_file=file.name), model(IDS).logits, atol=0.1)


def test_phi_3_factors_are_kept(tmp_path: Path) -> None:
    short, long = torch.linspace(1, 2, 8), torch.linspace(1, 9, 8)
    rotary = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short.tolist(),
        "long_factor": long.tolist(), "attention_factor": 1.25,
        "original_max_position_embeddings": 128,
    }  # fmt: skip
    model = tiny_model("phi3", rope_parameters=rotary, original_max_position_embeddings=128)
    factors = {"rope_factors_short": short, "rope_factors_long": long}
    (file,) = write_gguf(
        tmp_path / "tiny.gguf", model, "phi3", factors=factors,
        phi3__rope__scaling__original_context_length=128, phi3__rope__scaling__attn_factor=1.25,
    )  # fmt: skip
    with torch.inference_mode():
        assert torch.equal(logits(converted(file)), model(IDS).logits)


def test_a_pair_decodes_exactly_and_converts_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("qwen3")
    (file,) = write_gguf(tmp_path / "target.gguf", model, "qwen3")
    pair = load_pair(str(file), draft="none")
    assert pair.eos_ids == {301}
    (folder,) = [one for one in cache.iterdir() if one.is_dir()]
    monkeypatch.setattr(GGUFFile, "convert", None)
    again = tmp_path / "elsewhere.gguf"
    file.rename(again)
    # the content names the folder, wherever the file lies
    pair = load_pair(str(again), draft="none")
    own = Sampling(0, stop_at_eos=False)
    text = generate(
        pair, list(range(24)), new_tokens=24, policy=KVPolicy(bits="full"), sampling=own
    )
    plain = model.generate(
        IDS, max_new_tokens=24, min_new_tokens=24, do_sample=False, eos_token_id=None
    )
    assert list(text.tokens) == plain[0, 24:].tolist()
    assert [one for one in cache.iterdir() if one.is_dir()] == [folder]


def test_files_padded_to_different_sizes_pair_up(tmp_path: Path) -> None:
    """Padding is no token of either, so that the two tokenizers are the same."""
    big = write_gguf(tmp_path / "big.gguf", tiny_model("llama", num_hidden_layers=3), "llama")
    small = write_gguf(tmp_path / "small.gguf", tiny_model("llama", vocab_size=310), "llama")
    pair = load_pair(str(big[0]), str(small[0]))
    assert pair.vocab_size == 302


def test_each_can_have_a_draft_of_its_own_shape(tmp_path: Path) -> None:
    for kind in ("llama-tied", "qwen2", "qwen3", "phi3"):
        file = write_gguf(tmp_path / f"{kind}.gguf", tiny_model(kind), KINDS[kind][0])[0]
        target = load_pair(str(file), draft="none").target
        assert shared_draft(target, 1).config.num_hidden_layers == 1


def test_a_draft_is_trained_for_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), "qwen2")
    sizes = {
        "layers": 1, "steps": 1, "batch": 1, "window": 16, "sample-tokens": 32, "sample-batch": 2,
        "document-tokens": 32, "measure-windows": 1,
    }  # fmt: skip
    wanted = [f"--{name}={value}" for name, value in sizes.items()]
    assert train([f"--out={tmp_path}/draft", f"--target={file}", *wanted]) == 0
    pair = load_pair(str(file), f"{tmp_path}/draft/draft.safetensors")
    assert pair.draft is not None
    assert pair.draft.config.num_hidden_layers == 1
    capsys.readouterr()
    file.write_text("not any more")
    assert train([f"--out={tmp_path}/other", f"--target={file}", *wanted]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_if_knows_a_file_from_its_header(tmp_path: Path, cache: Path) -> None:
    (file,) = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen3"), "qwen3")
    shape = model_shape(str(file))
    assert (shape.layers, shape.kv_heads, shape.head_dim, shape.vocab) == (2, 2, 32, VOCAB)
    assert not [one for one in cache.glob("*") if one.is_dir()]


def broken(kind: str, folder: Path) -> Path:
    """A file that is none, or not whole."""
    if kind == "part":
        files = write_gguf(folder / "tiny.gguf", tiny_model("qwen2"), "qwen2", parts=3)
        files[1].unlink()
        return files[0]
    path = folder / "tiny.gguf"
    if kind == "absent":
        return path
    model = tiny_model("qwen2")
    write_gguf(path, model, "qwen2")
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("a model, but in words")
    if kind == "header":
        path.write_bytes(whole[:400])
    if kind == "cut":
        path.write_bytes(whole[:-5000])
    if kind == "unknown":
        path.write_bytes(whole.replace(b"qwen2", b"qwenX"))
    return path


REASONS = {
    "absent": "No such file", "text": "not a GGUF", "header": "damaged or cut off",
    "cut": "damaged or cut off", "part": "00002-of-00003", "unknown": "qwenX",
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONS)
def test_a_file_that_cannot_be_read_is_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    path = broken(kind, tmp_path)
    assert main(["generate", "--target", str(path), "--draft", "lookup", "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mspeckv: target: ")
    assert REASONS[kind] in line
    assert not [one for one in cache.glob("*") if one.is_dir()]


def test_weights_that_find_no_place_are_refused(tmp_path: Path) -> None:
    """Biases that the file's own architecture has not: the reader would leave them out."""
    model = tiny_model("llama", attention_bias=True)
    (file,) = write_gguf(tmp_path / "tiny.gguf", model, "llama")
    with pytest.raises(ValueError, match=r"target: .* holds [\d,]+ weights, of which"):
        load_pair(str(file), draft="none")


def test_windows_are_refused_or_decoded_before_any_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model's layers are is looked at before its weights are."""
    (file,) = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), "llama")
    monkeypatch.setattr(
        mspeckv.models.gguf_file.GGUFFile, "config", property(lambda self: _encoder_decoder())
    )
    with pytest.raises(ValueError, match="it is an encoder-decoder"):
        load_pair(str(file), draft="none")


def _encoder_decoder() -> LlamaConfig:
    return LlamaConfig(is_encoder_decoder=True)


def test_the_command_line_decodes_one_without_a_second_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), "llama")
    monkeypatch.chdir(tmp_path)
    assert main([
        "generate", "--target", file.name, "--draft", "lookup", "--prompt", "the thing is in it",
        "--new-tokens", "8", "--method", "vanilla", "--quiet", "--ignore-eos",
    ]) == 0  # fmt: skip
    assert capsys.readouterr().out
