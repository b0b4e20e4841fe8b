"""Draft training: the loss falls, acceptance rises, and a run goes on where it stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mspeckv import Pair, Sampling, generate
from mspeckv.models.load import load_pair
from mspeckv.models.shared_draft import load_shared_draft, own_weights, shared_draft
from tests.random_models import random_pair, random_prompt
from tools.distil.corpus import document_tokens, held_out_tokens, sample_rows, sampled_tokens
from tools.distil.measure import acceptance
from tools.distil.settings import Distillation
from tools.distil.training import backward, schedule, train
from tools.train_draft import main

SETTINGS = Distillation(
    batch=8, window=32, steps=120, lr=3e-3, layers=1, checkpoint=40, document_share=0.25,
    sample_tokens=4096, document_tokens=1024,
)  # fmt: skip


def samples_of(pair: Pair) -> torch.Tensor:
    torch.manual_seed(0)
    prompts = torch.randint(0, 64, (128, 1))
    return sample_rows(pair, prompts, SETTINGS.window, 1.0).clone().flatten()


def test_a_short_run_raises_acceptance(tmp_path: Path) -> None:
    pair = random_pair("llama", layers=3, seed=4)
    samples = samples_of(pair)
    held_out = samples[-512:].view(-1, 32)
    draft = shared_draft(pair.target, 1)
    before = acceptance(pair.target, draft, held_out, 1.0)
    train(pair.target, draft, samples[:-512], samples[:1024], SETTINGS, tmp_path)
    after = acceptance(pair.target, draft, held_out, 1.0)
    assert after > before + 0.05
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    kl, tv = ([line for line in lines if line["loss"] == kind] for kind in ("kl", "tv"))
    assert kl[-1]["value"] < kl[0]["value"]
    assert tv[-1]["acceptance"] > kl[0]["acceptance"]
    assert tv[-1]["step"] == SETTINGS.steps
    # the target's own tensors were not touched, and are shared
    assert draft.get_input_embeddings() is pair.target.get_input_embeddings()


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    pair = random_pair("llama", layers=3, seed=4)
    samples = samples_of(pair)
    half = replace(SETTINGS, steps=80, checkpoint=40)
    train(pair.target, shared_draft(pair.target, 1), samples, samples, half, tmp_path)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert first["step"] == 80
    draft = shared_draft(pair.target, 1)
    train(pair.target, draft, samples, samples, replace(half, steps=81), tmp_path)
    # one step from the checkpoint, not 81 from the beginning
    for name, weight in own_weights(draft).items():
        assert float((weight - first["weights"][name]).detach().abs().max()) < 5e-3


def test_samples_are_kept_and_gone_on_with(tmp_path: Path, pair: Pair) -> None:
    assert pair.tokenizer is not None
    documents = torch.arange(1000)
    settings = replace(SETTINGS, window=16, sample_batch=2, sample_tokens=64)
    first = sampled_tokens(pair, documents, settings, tmp_path / "part")
    more = sampled_tokens(pair, documents, replace(settings, sample_tokens=96), tmp_path / "part")
    whole = sampled_tokens(pair, documents, replace(settings, sample_tokens=96), tmp_path / "all")
    assert len(first) == 64
    assert torch.equal(more[:64], first)
    assert torch.equal(more, whole)


def test_gradients_in_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = random_pair("llama", layers=3, seed=4)
    batch = samples_of(pair)[:256].view(8, 32)
    found = []
    for rows in (7, 10_000):
        monkeypatch.setattr("tools.distil.training._ROWS", rows)
        draft = shared_draft(pair.target, 1)
        for weight in own_weights(draft).values():
            weight.requires_grad_(True)
        loss = backward(pair.target, draft, batch, divergence=True)
        found.append((loss, {name: w.grad for name, w in own_weights(draft).items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, gradient in found[0][1].items():
        assert gradient is not None
        assert torch.allclose(gradient, found[1][1][name], atol=1e-6)  # type: ignore[arg-type]


def test_a_draft_equal_to_its_target_is_always_kept() -> None:
    pair = random_pair("llama", layers=2)
    twin = shared_draft(pair.target, 2)
    windows = torch.tensor([random_prompt(40), random_prompt(40, seed=1)])
    for temperature in (1.0, 0.6, 0.0):
        assert acceptance(pair.target, twin, windows, temperature) == pytest.approx(1.0, abs=1e-5)


def test_the_schedule_warms_up_and_cools_down() -> None:
    rates = [schedule(step / 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.05, abs=1e-3)


def test_training_never_reads_what_is_held_out(pair: Pair) -> None:
    assert pair.tokenizer is not None
    settings = replace(SETTINGS, document_tokens=3000, measure_windows=2)
    held_out = held_out_tokens(pair.tokenizer, settings)
    assert held_out.shape == (2, 32)
    text = pair.tokenizer.decode(document_tokens(pair.tokenizer, settings))
    assert pair.tokenizer.decode(held_out[0]) not in text


@pytest.mark.slow
def test_the_command_writes_a_draft_that_loads(tmp_path: Path, pair: Pair) -> None:
    arguments = (
        f"--out {tmp_path} --steps 2 --batch 2 --window 32 --sample-tokens 64 --sample-batch 2 "
        "--document-tokens 4000 --measure-windows 1 --init shipped --lr 1e-6"
    )
    assert main(arguments.split()) == 0
    card = (tmp_path / "draft.md").read_text()
    assert "T=0.6" in card
    draft = load_shared_draft(pair.target, tmp_path / "draft.safetensors")
    own = Pair.of(pair.target, draft, pair.tokenizer)
    summary = generate(own, "Once upon a time", new_tokens=8, sampling=Sampling(0))
    plain = generate(pair, "Once upon a time", method="autoregressive", new_tokens=8,
                     sampling=Sampling(0), policy=None)  # fmt: skip
    assert summary.tokens == plain.tokens


def test_bad_settings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--steps", "0"]) == 2
    assert capsys.readouterr().err.startswith("train_draft: steps: 0 is not allowed")
    with pytest.raises(ValueError, match="use a readable safetensors file"):
        load_pair(draft=str(tmp_path / "none.safetensors"))
