"""Copy as code: the Python and the command line that repeat what the panel shows."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from typing import Any

from mspeckv import KVPolicy, Link, Pair, RunConfig, Sampling, Speculation
from mspeckv.api import usual_weights
from mspeckv.models.load import DEFAULT, DEFAULT_TARGET
from mspeckv.models.packed import form_of
from mspeckv.models.shared_draft import DEFAULT_DRAFT
from mspeckv_widgets.record import Setting

_PYTHON = """\
from mspeckv import KVPolicy, Link, Sampling, Speculation, documents, generate, load_pair

pair = load_pair({models})
prompt = documents.load_document({document}, pair.tokenizer, {prefill})
summary = generate(
    pair,
    prompt,
    method={method},
    new_tokens={new_tokens},
    policy={policy},
    speculation={speculation},
    sampling={sampling},
    link={link},{others}
)
print(summary.text)
print(f"{{summary.ms_per_token:.1f}} ms per token")
"""


_USUAL = {
    "target": DEFAULT_TARGET, "draft": DEFAULT_DRAFT, "device": "cpu", "dtype": "float32",
}  # fmt: skip


def python_code(setting: Setting, pair: Pair | None = None) -> str:
    """A script that makes the same run with `mspeckv.generate`; without a pair, on the default."""
    config = setting.config
    width = KVPolicy(bits=config.policy.bits)
    models = ", ".join(f"{name}={json.dumps(word)}" for name, word in _models(pair).items())
    return _PYTHON.format(
        models=models,
        document=json.dumps(setting.document),
        prefill=setting.prefill,
        method=json.dumps(config.method),
        new_tokens=config.new_tokens,
        policy=_call(config.policy, width, ("bits", "on_chip", "resident")),
        speculation=_call(config.speculation, Speculation(), ("gamma", "draft_gamma", "budget")),
        sampling=_call(config.sampling, Sampling(), ("temperature", "top_p", "seed")),
        link=_call(config.link, Link(), ("preset",)),
        others="".join(f"\n    {name}={json_word(value)}," for name, value in _others(config)),
    )


def _others(config: RunConfig) -> list[tuple[str, object]]:
    """Further settings of a run that are not usual."""
    names = ("exact", "graphs", "device_gb")
    found = [(name, getattr(config, name)) for name in names]
    return [(name, value) for name, value in found if value != getattr(RunConfig, name)]


def _models(pair: Pair | None) -> dict[str, str]:
    """What `load_pair` is to be told of a pair, beyond what is usual."""
    if pair is None:
        return {}
    dtype = str(pair.target.dtype).removeprefix("torch.")
    found = (pair.target_id, pair.draft_id, pair.device.type, dtype, form_of(pair.target))
    default = DEFAULT if pair.target_id == DEFAULT_TARGET else pair.target_id
    usual = {**_USUAL, "weights": usual_weights(default, str(pair.device), dtype)}
    named = dict(zip(usual, found, strict=True))
    return {name: word for name, word in named.items() if word != usual[name]}


def _call(part: Any, default: Any, always: tuple[str, ...]) -> str:
    """The call that makes a part of the setting: what matters most, and what is not usual."""
    said = [
        f"{field.name}={json_word(getattr(part, field.name))}"
        for field in fields(part)
        if field.name in always or getattr(part, field.name) != getattr(default, field.name)
    ]
    return f"{type(part).__name__}({', '.join(said)})"


def json_word(value: object) -> str:
    """A value in Python, with the quotes that this project writes."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def command_line(setting: Setting, pair: Pair | None = None) -> str:
    """The ``mspeckv generate`` line of the same run; without a pair, on the default."""
    config = setting.config
    policy, guess = config.policy, config.speculation
    words: list[object] = ["mspeckv", "generate"]
    words += ["--method", config.method, "--document", setting.document]
    words += ["--prefill", setting.prefill, "--new-tokens", config.new_tokens]
    words += ["--kv-bits", policy.bits]
    words += ["--on-chip", policy.on_chip, "--resident", policy.resident]
    if policy.residency != KVPolicy.residency:
        words += ["--residency", policy.residency]
    if policy.nibble:
        words += ["--nibble"]
    if policy.codec != KVPolicy.codec:
        words += ["--codec", policy.codec]
    words += ["--gamma", guess.gamma, "--draft-gamma", guess.draft_gamma]
    models = _models(pair)
    if guess.tier0 != "draft":
        models["draft"] = guess.tier0
    for name, word in models.items():
        words += [f"--{name}", word]
    words += ["--budget", guess.budget, "--link", config.link.preset]
    words += ["--temperature", f"{config.sampling.temperature:g}"]
    words += ["--top-p", f"{config.sampling.top_p:g}", "--seed", config.sampling.seed]
    if config.exact != RunConfig.exact:
        words += ["--exact", config.exact]
    return shlex.join(str(word) for word in words)


def code_text(setting: Setting, pair: Pair | None = None) -> str:
    """Python first, then the command line as a comment, so that the whole can be pasted."""
    line = command_line(setting, pair)
    return f"{python_code(setting, pair)}\n# The same on the command line:\n# {line}\n"
