"""The commands and their flags, as tables.

A flag named like a field of the settings' dataclasses has that field's type and default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from mspeckv.settings import METHODS, KVPolicy, RunConfig, Sampling, Speculation, Width

MACHINES = (
    "laptop-cpu",
    "rtx-4090",
    "a10g",
    "a100-40",
    "a100-80",
    "h100",
    "h200",
    "origin",
    "this",
)
MODELS = (
    "llama-2-7b", "llama-2-13b", "llama-3-8b", "llama-3-70b", "llama-3.1-8b", "llama-3.1-70b",
    "qwen2.5-7b", "qwen3-8b", "qwen3-30b-a3b", "qwen3-next-80b-a3b", "mistral-7b",
    "mistral-small-24b", "gemma-3-12b", "gemma-3-27b", "gpt-oss-20b", "gpt-oss-120b", "deepseek-v3",
    "smollm2-135m", "llama-68m",
)  # fmt: skip
POLICIES = ("attention", "newest", "attended")
"""What catalogues and doors hold, for help: they need torch, and help should not wait for it."""

_DEFAULTS = {
    part.name: part.default
    for settings in (RunConfig, KVPolicy, Speculation, Sampling)
    for part in fields(settings)
}


def _number(text: str) -> Width | str:
    """``full``, ``auto`` and unknown words stay text, for the settings themselves to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


class Flag(NamedTuple):
    """An argument of a command.

    Attributes:
        help: what it is.
        sign: what stands for its value in the help.
        default: None for that of the settings' field of this name, if any; False for a flag that
            takes no value, True for one with a ``--no-`` form, a list for a repeatable one.
        kind: of its value; None for that of the default.
        required: whether it must be given.
    """

    help: str | None
    sign: str | None = None
    default: Any = None
    kind: Callable[[str], Any] | None = None
    required: bool = False

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Let it be typed as ``name``."""
        default = self.default
        if default is None:
            default = _DEFAULTS.get(name.lstrip("-").replace("-", "_"))
        more: dict[str, Any] = {"default": default, "help": self.help}
        if isinstance(default, bool):
            more["action"] = argparse.BooleanOptionalAction if default else "store_true"
        elif isinstance(default, list):
            more |= {"action": "append", "metavar": self.sign}
        else:
            kind = self.kind or (str if default is None else type(default))
            more |= {"type": kind, "metavar": self.sign}
        if self.required:
            more["required"] = True
        parser.add_argument(name, **more)


Flags = Mapping[str, Flag]
_WIDTH, _LENGTH, _WEIGHTS = "8|4|3|2|full", "N|auto", "auto|int4|int8|float"

_AGAIN: Flags = {"--again": Flag("first let go of what was measured here before", default=False)}
_JSON: Flags = {"--json": Flag("print JSON", default=False)}
_MODELS: Flags = {
    "--target": Flag("model id, folder or GGUF", "ID", "default"),
    "--draft": Flag("model id, folder; or tier 0", "ID|none|lookup", "default"),
    "--device": Flag("cpu or cuda (default cpu)", default="cpu"),
    "--dtype": Flag("float32, bfloat16 or float16", default="float32"),
}
_ONE_RUN: Flags = {
    "--weights": Flag("how both models' are held; auto: packed if fast", _WEIGHTS, "auto"),
    "--method": Flag(", ".join(METHODS)),
    "--document": Flag("what to continue", "NAME|FILE", "python-reference"),
    "--prompt": Flag("this text instead of a document", "TEXT"),
    "--prefill": Flag("prompt tokens of the document", default=1024),
    "--new-tokens": Flag("tokens to produce"),
    "--kv-bits": Flag("default: 8 for mspeckv, else full", _WIDTH, kind=_number),
    "--on-chip": Flag("layers unquantized on the device"),
    "--resident": Flag("layers quantized on the device"),
    "--block": Flag("tokens per quantization block"),
    "--group": Flag("channels that share a V scale"),
    "--k-bits": Flag("width of keys, if not --kv-bits", _WIDTH, kind=_number),
    "--v-bits": Flag("width of values, if not --kv-bits", _WIDTH, kind=_number),
    "--nibble": Flag("int8 as two int4 planes, the upper on the device"),
    "--residency": Flag(None, "static|lru"),
    "--ahead": Flag("layers in flight", "N"),
    "--tail": Flag("newest tokens kept unquantized"),
    "--codec": Flag("how KV is packed: kivi, rotated, lloyd; -sketch", "NAME"),
    "--elsewhere": Flag("where layers without a place lie", "NAME"),
    "--gamma": Flag("guesses per round", _LENGTH, kind=_number),
    "--draft-gamma": Flag("tier 0's", _LENGTH, kind=_number),
    "--draft-vocab": Flag("tokens it scores; 0 is all"),
    "--draft-threshold": Flag("when it stops"),
    "--budget": Flag("prompt tokens tier 1 reads"),
    "--chunk": Flag("tokens per retrieval chunk"),
    "--refresh": Flag("tokens between retrievals; 0 never"),
    "--recent": Flag("last prompt tokens tier 1 keeps"),
    "--sinks": Flag("first tokens tier 0 always sees"),
    "--window": Flag("recent tokens tier 0 sees"),
    "--tier1": Flag("what tier 1 reads: retrieval, nibble, hot chunks", "NAME"),
    "--retrieval": Flag(
        f"what chooses tier 1's chunks: {', '.join(POLICIES)}, or a file's", "NAME|FILE.py:NAME"
    ),
    "--graphs": Flag("on CUDA"),
    "--exact": Flag("what is as in plain decoding", "tokens|bitwise"),
    "--device-gb": Flag("device memory the run may take", "GB", kind=float),
    "--link": Flag("emulated link on CPU", "off|live|origin|GB/S", "off"),
    "--temperature": Flag("0 is greedy"),
    "--top-p": Flag("nucleus sampling"),
    "--top-k": Flag("likeliest tokens kept; 0 keeps all"),
    "--min-p": Flag("least share of the likeliest token"),
    "--repetition-penalty": Flag("1 is none"),
    "--stop": Flag("end after it; repeatable", "TEXT", []),
    "--seed": Flag("seed of the run"),
    "--ignore-eos": Flag("go on after the end-of-sequence token", default=False),
    **_JSON,
    "--quiet": Flag("no progress bars", default=False),
}
"""One run's settings; read back by `run_config`."""
_PROFILE: Flags = {
    "--rounds": Flag("profile so many (default: all)", "N", kind=int),
    "--stacks": Flag("keep Python stacks in the trace", default=False),
    "--trace": Flag("write a Chrome trace, for Perfetto", "FILE"),
    "--csv": Flag("write the table", "FILE"),
    "--tensorboard": Flag("write a folder for torch-tb-profiler", "DIR"),
}
_RUN: Flags = {
    "experiment": Flag("context, resident, on-chip, output length", "A1|A2|B1|B2|all"),
    "--preset": Flag("classroom (two cores) or origin (as published)", default="classroom"),
    "--seeds": Flag("a trial per cell and seed", "N,N", "1,2,3,4,5,6,7,8,9,10"),
    "--out": Flag("folder of the rows; run again to go on", "DIR", required=True),
    "--values": Flag("of the axis, instead of the preset's", "N,N"),
    "--variants": Flag("what is compared, instead of the preset's", "NAME,NAME"),
    "--scheduler": Flag("run on the workers of this Dask scheduler", "tcp://..."),
    **_MODELS,
    "--quiet": Flag("no progress bar", default=False),
}
_REPORT: Flags = {
    "results": Flag("folder that `run` wrote", "DIR"),
    "--out": Flag("where the report goes (default: beside the rows)", "DIR"),
}
_MACHINE: Flags = {
    "--target": Flag(f"{', '.join(MODELS)}, a folder or a GGUF", "ID", "llama-2-7b"),
    "--draft": Flag("tier 0's model", "ID|none", "default"),
    "--hardware": Flag(", ".join(MACHINES), "NAME", "h100"),
    "--prefill": Flag("prompt tokens", default=32768),
    "--new-tokens": Flag("tokens to produce", default=256),
    "--link-gbps": Flag("instead of the hardware's link", "GB/S", kind=float),
    "--draft-middle": Flag("tier 1 keeps of tier 0's guesses", "A", kind=float),
    "--middle-full": Flag("tier 2 keeps of tier 1's guesses", "A", kind=float),
    "--draft-full": Flag("tier 2 keeps of tier 0's guesses", "A", kind=float),
    "--graphs": Flag("on a GPU"),
    "--weights": Flag("how both models' are held", "int4|int8|float", "float"),
    **_JSON,
}
_WHAT_IF: Flags = {
    **{
        f"--{name}": _ONE_RUN[f"--{name}"]
        for name in (
            "method", "kv-bits", "on-chip", "resident", "residency", "nibble",
            "ahead", "gamma", "draft-gamma", "budget", "refresh", "tier1",
        )
    },
    "--gamma": Flag("guesses per round", default=8),
    "--draft-gamma": Flag("tier 0's guesses per inner round", default=3),
    "--budget": Flag("prompt tokens tier 1 reads", default=4096),
}  # fmt: skip
_PLAN: Flags = {
    "--gpu-gb": Flag("device memory, in 1e9 bytes", "GB", kind=float),
    "--min-acceptance": Flag("least that a width may keep", default=0.9),
}
_VERIFY: Flags = {
    "engine": Flag("what is judged", "METHOD|transformers:WAY|module:function|http://..."),
    "--against": Flag("plain decoding of the same model", "ENGINE", "plain"),
    **_MODELS,
    **{
        name: flag
        for name, flag in _ONE_RUN.items()
        if name not in {"--method", "--prompt", "--prefill", "--stop", "--ignore-eos"}
    },
    "--document": Flag("what is continued; repeatable; .json holds token ids", "NAME|FILE", []),
    "--lengths": Flag("prompt tokens; long texts follow the longest", "N,N", "1024"),
    "--new-tokens": Flag("of greedy and long texts", default=48),
    "--temperature": Flag("of sampled texts", default=1.0),
    "--top-p": Flag("of sampled texts", default=1.0),
    "--checks": Flag("of greedy, promises, sampled and long", "NAME,NAME", ""),
    "--depth": Flag("tokens of a sampled text", default=2),
    "--samples": Flag("sampled texts at most", default=4000),
    "--texts": Flag("long texts of each engine", default=16),
    "--alpha": Flag("chance of a false alarm, at most", default=0.01),
    "--power": Flag("chance that planted faults are caught with", default=0.9),
    "--minutes": Flag("stop after", kind=float),
    "--out": Flag("folder of answers and reports; run again to go on", "DIR"),
}
_SERVER: Flags = {
    "--port": Flag("first port to try (default: the server's)", kind=int),
    "--folder": Flag("put the labs there, over no work (default: mspeckv-labs)", "DIR"),
    "--labs": Flag("serve this folder as it is (default: labs, where there is one)", "DIR"),
    "--no-browser": Flag("print the address only", default=False),
    "--prepare-only": Flag("labs and model, and no server", default=False),
}
COMMANDS: Mapping[str, tuple[str, Flags]] = {
    "fetch": (
        "download, convert, check and mend the default model",
        {"--quiet": Flag("no progress", default=False)},
    ),
    "doctor": ("what this machine has, and a 16-token self-test", {**_MODELS, **_AGAIN, **_JSON}),
    "generate": ("continue a document, and count what moved", {**_MODELS, **_ONE_RUN}),
    "profile": (
        "where the time of such a run goes, by tier and step",
        {**_MODELS, **_ONE_RUN, **_PROFILE},
    ),
    "run": ("run an ablation, or what is missing of it", _RUN),
    "report": ("what the rows of `run` say, beside what was published", _REPORT),
    "whatif": ("what a run would cost on another machine (modelled)", {**_MACHINE, **_WHAT_IF}),
    "plan": ("the fastest setting that fits a device (modelled)", {**_MACHINE, **_PLAN}),
    "verify": ("judge whether an engine's text is plain decoding's own", _VERIFY),
    "lab": ("open JupyterLab on the first lab", _SERVER),
    "demo": (
        "open the panels alone, code hidden, for a projector",
        {**_SERVER, "--dark": Flag("light on dark", default=False)},
    ),
    "course": ("write the engine anew, hand in and grade labs; see `mspeckv course --help`", {}),
    "site": ("pages without installation: `mspeckv site build --out DIR`", {}),
}
"""What each command does, and its flags."""
