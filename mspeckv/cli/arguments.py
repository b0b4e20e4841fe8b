"""What may be typed after ``mspeckv``, and the settings that it describes.

A flag named like a field of the settings' dataclasses has that field's type and default. Nothing
here needs torch or numpy, but for help that names what a catalogue holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from pkgutil import resolve_name
from typing import Any, NamedTuple, NoReturn

from mspeckv import __version__
from mspeckv.settings import (
    METHODS,
    KVPolicy,
    Link,
    RunConfig,
    Sampling,
    Speculation,
    Width,
    check_choice,
    default_width,
)

_CATALOGUES = {
    "{machines}": "mspeckv.whatif.machines:NAMES",
    "{models}": "mspeckv.whatif.catalogue:MODELS",
    "{policies}": "mspeckv.api:doors.policies.names",
}
"""Where the names are (or a function that tells them) for which a word stands in a help text."""
_DEFAULTS = {
    part.name: part.default
    for settings in (RunConfig, KVPolicy, Speculation, Sampling)
    for part in fields(settings)
}


def _number(text: str) -> Width | str:
    """``full``, ``auto`` and unknown words stay text, for the settings themselves to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


class _Flag(NamedTuple):
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


_Flags = Mapping[str, _Flag]
_WIDTH, _LENGTH = "8|4|3|2|full", "N|auto"

_AGAIN: _Flags = {"--again": _Flag("first let go of what was measured here before", default=False)}
_JSON: _Flags = {"--json": _Flag("print JSON", default=False)}
_MODELS: _Flags = {
    "--target": _Flag("model id, folder or GGUF", "ID", "default"),
    "--draft": _Flag("model id, folder; or tier 0", "ID|none|lookup", "default"),
    "--device": _Flag("cpu or cuda (default cpu)", default="cpu"),
    "--dtype": _Flag("float32, bfloat16 or float16", default="float32"),
}
_ONE_RUN: _Flags = {
    "--weights": _Flag("how both models' are held", "int4|int8|float", "float"),
    "--method": _Flag(", ".join(METHODS)),
    "--document": _Flag("what to continue", "NAME|FILE", "python-reference"),
    "--prompt": _Flag("this text instead of a document", "TEXT"),
    "--prefill": _Flag("prompt tokens of the document", default=1024),
    "--new-tokens": _Flag("tokens to produce"),
    "--kv-bits": _Flag("default: 8 for mspeckv, else full", _WIDTH, kind=_number),
    "--on-chip": _Flag("layers unquantized on the device"),
    "--resident": _Flag("layers quantized on the device"),
    "--block": _Flag("tokens per quantization block"),
    "--group": _Flag("channels that share a V scale"),
    "--k-bits": _Flag("width of keys, if not --kv-bits", _WIDTH, kind=_number),
    "--v-bits": _Flag("width of values, if not --kv-bits", _WIDTH, kind=_number),
    "--nibble": _Flag("int8 as two int4 planes, the upper on the device"),
    "--residency": _Flag(None, "static|lru"),
    "--ahead": _Flag("layers in flight", "N"),
    "--tail": _Flag("newest tokens kept unquantized"),
    "--codec": _Flag("how KV is packed: kivi, rotated, lloyd; -sketch", "NAME"),
    "--elsewhere": _Flag("where layers without a place lie", "NAME"),
    "--gamma": _Flag("guesses per round", _LENGTH, kind=_number),
    "--draft-gamma": _Flag("tier 0's", _LENGTH, kind=_number),
    "--draft-vocab": _Flag("tokens it scores; 0 is all"),
    "--draft-threshold": _Flag("when it stops"),
    "--budget": _Flag("prompt tokens tier 1 reads"),
    "--chunk": _Flag("tokens per retrieval chunk"),
    "--refresh": _Flag("tokens between retrievals; 0 never"),
    "--recent": _Flag("last prompt tokens tier 1 keeps"),
    "--sinks": _Flag("first tokens tier 0 always sees"),
    "--window": _Flag("recent tokens tier 0 sees"),
    "--tier1": _Flag("what tier 1 reads: retrieval, nibble, hot chunks", "NAME"),
    "--retrieval": _Flag(
        "what chooses tier 1's chunks: {policies}, or a file's", "NAME|FILE.py:NAME"
    ),
    "--graphs": _Flag("on CUDA"),
    "--exact": _Flag("what is as in plain decoding", "tokens|bitwise"),
    "--device-gb": _Flag("device memory the run may take", "GB", kind=float),
    "--link": _Flag("emulated link on CPU", "off|live|origin|GB/S", "off"),
    "--temperature": _Flag("0 is greedy"),
    "--top-p": _Flag("nucleus sampling"),
    "--top-k": _Flag("likeliest tokens kept; 0 keeps all"),
    "--min-p": _Flag("least share of the likeliest token"),
    "--repetition-penalty": _Flag("1 is none"),
    "--stop": _Flag("end after it; repeatable", "TEXT", []),
    "--seed": _Flag("seed of the run"),
    "--ignore-eos": _Flag("go on after the end-of-sequence token", default=False),
    **_JSON,
    "--quiet": _Flag("no progress bars", default=False),
}
"""One run's settings; read back by `run_config`."""
_PROFILE: _Flags = {
    "--rounds": _Flag("profile so many (default: all)", "N", kind=int),
    "--stacks": _Flag("keep Python stacks in the trace", default=False),
    "--trace": _Flag("write a Chrome trace, for Perfetto", "FILE"),
    "--csv": _Flag("write the table", "FILE"),
    "--tensorboard": _Flag("write a folder for torch-tb-profiler", "DIR"),
}
_RUN: _Flags = {
    "experiment": _Flag("context, resident, on-chip, output length", "A1|A2|B1|B2|all"),
    "--preset": _Flag("classroom (two cores) or origin (as published)", default="classroom"),
    "--seeds": _Flag("a trial per cell and seed", "N,N", "1,2,3,4,5,6,7,8,9,10"),
    "--out": _Flag("folder of the rows; run again to go on", "DIR", required=True),
    "--values": _Flag("of the axis, instead of the preset's", "N,N"),
    "--variants": _Flag("what is compared, instead of the preset's", "NAME,NAME"),
    "--scheduler": _Flag("run on the workers of this Dask scheduler", "tcp://..."),
    **_MODELS,
    "--quiet": _Flag("no progress bar", default=False),
}
_REPORT: _Flags = {
    "results": _Flag("folder that `run` wrote", "DIR"),
    "--out": _Flag("where the report goes (default: beside the rows)", "DIR"),
}
_MACHINE: _Flags = {
    "--target": _Flag("{models}, a folder or a GGUF", "ID", "llama-2-7b"),
    "--draft": _Flag("tier 0's model", "ID|none", "default"),
    "--hardware": _Flag("{machines}", "NAME", "h100"),
    "--prefill": _Flag("prompt tokens", default=32768),
    "--new-tokens": _Flag("tokens to produce", default=256),
    "--link-gbps": _Flag("instead of the hardware's link", "GB/S", kind=float),
    "--draft-middle": _Flag("tier 1 keeps of tier 0's guesses", "A", kind=float),
    "--middle-full": _Flag("tier 2 keeps of tier 1's guesses", "A", kind=float),
    "--draft-full": _Flag("tier 2 keeps of tier 0's guesses", "A", kind=float),
    "--graphs": _Flag("on a GPU"),
    **_JSON,
}
_WHAT_IF: _Flags = {
    **{
        f"--{name}": _ONE_RUN[f"--{name}"]
        for name in (
            "method", "kv-bits", "on-chip", "resident", "residency", "nibble",
            "ahead", "gamma", "draft-gamma", "budget", "refresh", "tier1",
        )
    },
    "--gamma": _Flag("guesses per round", default=8),
    "--draft-gamma": _Flag("tier 0's guesses per inner round", default=3),
    "--budget": _Flag("prompt tokens tier 1 reads", default=4096),
}  # fmt: skip
_PLAN: _Flags = {
    "--gpu-gb": _Flag("device memory, in 1e9 bytes", "GB", kind=float),
    "--min-acceptance": _Flag("least that a width may keep", default=0.9),
}
_VERIFY: _Flags = {
    "engine": _Flag("what is judged", "METHOD|transformers:WAY|module:function|http://..."),
    "--against": _Flag("plain decoding of the same model", "ENGINE", "plain"),
    **_MODELS,
    **{
        name: flag
        for name, flag in _ONE_RUN.items()
        if name not in {"--method", "--prompt", "--prefill", "--stop", "--ignore-eos"}
    },
    "--document": _Flag("what is continued; repeatable; .json holds token ids", "NAME|FILE", []),
    "--lengths": _Flag("prompt tokens; long texts follow the longest", "N,N", "1024"),
    "--new-tokens": _Flag("of greedy and long texts", default=48),
    "--temperature": _Flag("of sampled texts", default=1.0),
    "--top-p": _Flag("of sampled texts", default=1.0),
    "--checks": _Flag("of greedy, promises, sampled and long", "NAME,NAME", ""),
    "--depth": _Flag("tokens of a sampled text", default=2),
    "--samples": _Flag("sampled texts at most", default=4000),
    "--texts": _Flag("long texts of each engine", default=16),
    "--alpha": _Flag("chance of a false alarm, at most", default=0.01),
    "--power": _Flag("chance that planted faults are caught with", default=0.9),
    "--minutes": _Flag("stop after", kind=float),
    "--out": _Flag("folder of answers and reports; run again to go on", "DIR"),
}
_SERVER: _Flags = {
    "--port": _Flag("first port to try (default: the server's)", kind=int),
    "--folder": _Flag("put the labs there, over no work (default: mspeckv-labs)", "DIR"),
    "--labs": _Flag("serve this folder as it is (default: labs, where there is one)", "DIR"),
    "--no-browser": _Flag("print the address only", default=False),
    "--prepare-only": _Flag("labs and model, and no server", default=False),
}
_COMMANDS: Mapping[str, tuple[str, _Flags]] = {
    "fetch": (
        "download, convert, check and mend the default model",
        {"--quiet": _Flag("no progress", default=False)},
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
        {**_SERVER, "--dark": _Flag("light on dark", default=False)},
    ),
    "course": ("write the engine anew, hand in and grade labs; see `mspeckv course --help`", {}),
    "site": ("pages without installation: `mspeckv site build --out DIR`", {}),
}
"""What each command does, and its flags."""


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and opens catalogues only for a help that names what they hold."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        for action in self._actions:
            for word, place in _CATALOGUES.items():
                if action.help is not None and word in action.help:
                    found = resolve_name(place)
                    names = ", ".join(found() if callable(found) else found)
                    action.help = action.help.replace(word, names)
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """Every command's arguments; ``command`` is the name of the one that was typed."""
    parser = _Parser(
        prog="mspeckv", description="Multilevel speculative decoding over a placed KV cache."
    )
    parser.add_argument("--version", action="version", version=f"mspeckv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command, (words, flags) in _COMMANDS.items():
        # what follows these has a parser of its own, which answers to --help too
        theirs = {"add_help": False, "prefix_chars": "\0"}
        own: Any = theirs if command in ("course", "site") else {}
        one = commands.add_parser(command, help=words, **own)
        for name, flag in flags.items():
            flag.add_to(one, name)
        if command == "run":
            # these are the preset's
            one.set_defaults(device=None, dtype=None)
        if command == "verify":
            one.set_defaults(method="mspeckv", stop=[], ignore_eos=True)
        if own:
            one.add_argument("words", nargs="*")
    return parser


def _given(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The fields of a dataclass that a flag of their name sets."""
    names = (part.name for part in fields(settings))
    return {name: getattr(options, name) for name in names if name in options}


def _width(options: argparse.Namespace) -> Any:
    """The width that was typed, or the method's own."""
    check_choice("method", options.method, METHODS)
    return default_width(options.method) if options.kv_bits is None else options.kv_bits


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that ``generate``'s arguments describe.

    Raises:
        ValueError: a setting that is not allowed.
    """
    bits, guess = _width(options), _given(options, Speculation)
    if options.retrieval != Speculation.retrieval:
        from mspeckv.kv import chunk_policies

        guess["retrieval"] = chunk_policies.load(options.retrieval)
    guess["tier0"] = options.draft if options.draft in ("none", "lookup") else "draft"
    draw = _given(options, Sampling)
    draw |= {"stop_at_eos": not options.ignore_eos, "stop_strings": tuple(options.stop)}
    return RunConfig(
        options.method,
        options.new_tokens,
        KVPolicy(bits=bits, **_given(options, KVPolicy)),
        Speculation(**guess),
        Sampling(**draw),
        Link.parse(options.link),
        options.device_gb,
        options.graphs,
        options.exact,
    )


def what_if_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The setting that ``whatif``'s arguments describe, as `mspeckv.what_if` takes it.

    Raises:
        ValueError: an unknown method.
    """
    given = {**_given(options, KVPolicy), **_given(options, Speculation)}
    return {**given, "method": options.method, "bits": _width(options)}
