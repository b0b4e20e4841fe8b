"""Copy as code: the Python and the command line that repeat what the panel shows."""

from __future__ import annotations

import json
import shlex

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
    policy=KVPolicy(bits={bits}, on_chip={on_chip}, resident={resident}),
    speculation=Speculation(
        gamma={gamma}, draft_gamma={draft_gamma}, budget={budget}, tier0={tier0}
    ),
    sampling=Sampling(temperature={temperature:g}, top_p={top_p:g}, seed={seed}),
    link=Link({link}),
)
print(summary.text)
print(f"{{summary.ms_per_token:.1f}} ms per token")
"""


def python_code(setting: Setting) -> str:
    """A script that makes the same run with `mspeckv.generate`."""
    config = setting.config
    return _PYTHON.format(
        document=json.dumps(setting.document),
        prefill=setting.prefill,
        method=json.dumps(config.method),
        new_tokens=config.new_tokens,
        bits=json.dumps(config.policy.bits),
        on_chip=config.policy.on_chip,
        resident=config.policy.resident,
        gamma=json.dumps(config.speculation.gamma),
        draft_gamma=json.dumps(config.speculation.draft_gamma),
        tier0=json.dumps(config.speculation.tier0),
        budget=config.speculation.budget,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        seed=config.sampling.seed,
        link=json.dumps(config.link.preset),
    )


def command_line(setting: Setting) -> str:
    """The ``mspeckv generate`` line of the same run."""
    config = setting.config
    words: list[object] = ["mspeckv", "generate"]
    words += ["--method", config.method, "--document", setting.document]
    words += ["--prefill", setting.prefill, "--new-tokens", config.new_tokens]
    words += ["--kv-bits", config.policy.bits]
    words += ["--on-chip", config.policy.on_chip, "--resident", config.policy.resident]
    words += ["--gamma", config.speculation.gamma]
    words += ["--draft-gamma", config.speculation.draft_gamma]
    if config.speculation.tier0 != "draft":
        words += ["--draft", config.speculation.tier0]
    words += ["--budget", config.speculation.budget, "--link", config.link.preset]
    words += ["--temperature", f"{config.sampling.temperature:g}"]
    words += ["--top-p", f"{config.sampling.top_p:g}", "--seed", config.sampling.seed]
    return shlex.join(str(word) for word in words)


def code_text(setting: Setting) -> str:
    """Python first, then the command line as a comment, so that the whole can be pasted."""
    return f"{python_code(setting)}\n# The same on the command line:\n# {command_line(setting)}\n"
