"""Copy as code: the Python and the command line that repeat what the panel shows."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from typing import Any

from mspeckv import KVPolicy, Link, Sampling, Speculation
from mspeckv_widgets.record import Setting

_PYTHON = """\
from mspeckv import KVPolicy, Link, Sampling, Speculation, documents, generate, load_pair

pair = load_pair()
prompt = documents.load_document({document}, pair.tokenizer, {prefill})
summary = generate(
    pair,
    prompt,
    method={method},
    new_tokens={new_tokens},
    policy={policy},
    speculation={speculation},
    sampling={sampling},
    link={link},
)
print(summary.text)
print(f"{{summary.ms_per_token:.1f}} ms per token")
"""


def python_code(setting: Setting) -> str:
    """A script that makes the same run with `mspeckv.generate`."""
    config = setting.config
    width = KVPolicy(bits=config.policy.bits)
    return _PYTHON.format(
        document=json.dumps(setting.document),
        prefill=setting.prefill,
        method=json.dumps(config.method),
        new_tokens=config.new_tokens,
        policy=_call(config.policy, width, ("bits", "on_chip", "resident")),
        speculation=_call(config.speculation, Speculation(), ("gamma", "draft_gamma", "budget")),
        sampling=_call(config.sampling, Sampling(), ("temperature", "top_p", "seed")),
        link=_call(config.link, Link(), ("preset",)),
    )


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


def command_line(setting: Setting) -> str:
    """The ``mspeckv generate`` line of the same run."""
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
    if guess.tier0 != "draft":
        words += ["--draft", guess.tier0]
    words += ["--budget", guess.budget, "--link", config.link.preset]
    words += ["--temperature", f"{config.sampling.temperature:g}"]
    words += ["--top-p", f"{config.sampling.top_p:g}", "--seed", config.sampling.seed]
    return shlex.join(str(word) for word in words)


def code_text(setting: Setting) -> str:
    """Python first, then the command line as a comment, so that the whole can be pasted."""
    return f"{python_code(setting)}\n# The same on the command line:\n# {command_line(setting)}\n"
