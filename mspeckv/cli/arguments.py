"""What may be typed after ``mspeckv``, and the settings that it describes.

Defaults are those of the settings' dataclasses. Nothing here needs torch or numpy, but for help
that names what a catalogue holds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from mspeckv import __version__
from mspeckv.settings import (
    METHODS,
    KVPolicy,
    Link,
    RunConfig,
    Sampling,
    Speculation,
    Width,
    default_width,
    refuse,
)


def _known_machines() -> Iterable[str]:
    from mspeckv.whatif.machines import NAMES

    return NAMES


def _known_models() -> Iterable[str]:
    from mspeckv.whatif.shapes import MODELS

    return MODELS


def _known_policies() -> Iterable[str]:
    from mspeckv.kv import chunk_policies

    return chunk_policies.names()


_CATALOGUES: Mapping[str, Callable[[], Iterable[str]]] = {
    "{machines}": _known_machines,
    "{models}": _known_models,
    "{policies}": _known_policies,
}
"""What these words stand for in the help of an argument."""

_RATES = ("draft_middle", "middle_full", "draft_full")
"""Fields of `mspeckv.whatif.Acceptance`."""


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and opens catalogues only for a help that names what they hold."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        for action in self._actions:
            for word, names in _CATALOGUES.items():
                if action.help is not None and word in action.help:
                    action.help = action.help.replace(word, ", ".join(names()))
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """Every command's arguments; ``command`` is the name of the one that was typed."""
    parser = _Parser(
        prog="mspeckv", description="Multilevel speculative decoding over a placed KV cache."
    )
    parser.add_argument("--version", action="version", version=f"mspeckv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    one = commands.add_parser("fetch", help="download, convert, check and mend the default model")
    one.add_argument("--quiet", action="store_true", help="no progress")

    one = commands.add_parser("doctor", help="what this machine has, and a 16-token self-test")
    _add_models(one)
    one.add_argument("--json", action="store_true", help="print JSON")

    one = commands.add_parser("generate", help="continue a document, and count what moved")
    _add_models(one)
    _add_generate(one)

    one = commands.add_parser("profile", help="where the time of such a run goes, by tier and step")
    _add_models(one)
    _add_generate(one)
    one.add_argument("--rounds", type=int, metavar="N", help="profile so many (default: all)")
    one.add_argument("--stacks", action="store_true", help="keep Python stacks in the trace")
    one.add_argument("--trace", metavar="FILE", help="write a Chrome trace, for Perfetto")
    one.add_argument("--csv", metavar="FILE", help="write the table")
    one.add_argument("--tensorboard", metavar="DIR", help="write a folder for torch-tb-profiler")

    one = commands.add_parser("run", help="run an ablation, or what is missing of it")
    _add_run(one)

    one = commands.add_parser(
        "report", help="what the rows of `run` say, beside what was published"
    )
    one.add_argument("results", metavar="DIR", help="folder that `run` wrote")
    one.add_argument(
        "--out", metavar="DIR", help="where the report goes (default: beside the rows)"
    )

    one = commands.add_parser("whatif", help="what a run would cost on another machine (modelled)")
    _add_machine(one)
    _add_what_if(one)

    one = commands.add_parser("plan", help="the fastest setting that fits a device (modelled)")
    _add_machine(one)
    _add_plan(one)

    one = commands.add_parser("lab", help="open JupyterLab on the first lab")
    _add_server(one)

    one = commands.add_parser("demo", help="open the panels alone, code hidden, for a projector")
    _add_server(one)
    one.add_argument("--dark", action="store_true", help="light on dark")
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    """What `lab` and `demo` ask."""
    parser.add_argument("--port", type=int, help="first port to try (default: the server's)")
    parser.add_argument("--labs", default="labs", metavar="DIR", help="folder of the notebooks")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def _add_models(parser: argparse.ArgumentParser) -> None:
    """What is loaded, and where it computes."""
    parser.add_argument("--target", default="default", metavar="ID", help="model id or folder")
    parser.add_argument(
        "--draft", default="default", metavar="ID|none|lookup", help="model id, folder; or tier 0"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    """One run's settings, a flag each; read back by `run_config`."""
    policy, guess, draw = KVPolicy(), Speculation(), Sampling()
    add = parser.add_argument
    add("--method", default="mspeckv", help=", ".join(METHODS))
    add("--document", default="python-reference", metavar="NAME|FILE", help="what to continue")
    add("--prompt", metavar="TEXT", help="this text instead of a document")
    add("--prefill", type=int, default=1024, help="prompt tokens of the document")
    add("--new-tokens", type=int, default=32, help="tokens to produce")
    add(
        "--kv-bits",
        type=_number,
        metavar="8|4|2|full",
        help="default: 8 for mspeckv, else full",
    )
    add("--on-chip", type=int, default=policy.on_chip, help="layers unquantized on the device")
    add("--resident", type=int, default=policy.resident, help="layers quantized on the device")
    add("--block", type=int, default=policy.block, help="tokens per quantization block")
    add("--group", type=int, default=policy.group, help="channels that share a V scale")
    add(
        "--k-bits",
        type=_number,
        metavar="8|4|2|full",
        help="width of keys, if not --kv-bits",
    )
    add(
        "--v-bits",
        type=_number,
        metavar="8|4|2|full",
        help="width of values, if not --kv-bits",
    )
    add("--nibble", action="store_true", help="int8 as two int4 planes, the upper on the device")
    add("--residency", default=policy.residency, metavar="static|lru")
    add("--ahead", type=int, default=policy.ahead, metavar="N", help="layers in flight")
    add("--tail", type=int, default=policy.tail, help="newest tokens kept unquantized")
    add("--gamma", type=_number, default=guess.gamma, metavar="N|auto", help="guesses per round")
    add("--draft-gamma", type=_number, default=guess.draft_gamma, metavar="N|auto", help="tier 0's")
    add("--draft-vocab", type=int, default=guess.draft_vocab, help="tokens it scores; 0 is all")
    add("--draft-threshold", type=float, default=guess.draft_threshold, help="when it stops")
    add("--budget", type=int, default=guess.budget, help="prompt tokens tier 1 reads")
    add("--chunk", type=int, default=guess.chunk, help="tokens per retrieval chunk")
    add("--refresh", type=int, default=guess.refresh, help="tokens between retrievals; 0 never")
    add("--recent", type=int, default=guess.recent, help="last prompt tokens tier 1 keeps")
    add("--sinks", type=int, default=guess.sinks, help="first tokens tier 0 always sees")
    add("--window", type=int, default=guess.window, help="recent tokens tier 0 sees")
    add("--tier1", default=guess.tier1, metavar="retrieval|nibble", help="what tier 1 reads")
    add(
        "--retrieval",
        default=guess.retrieval,
        metavar="NAME|FILE.py:NAME",
        help="what chooses tier 1's chunks: {policies}, or a file's",
    )
    add("--graphs", action=argparse.BooleanOptionalAction, default=True, help="on CUDA")
    add("--device-gb", type=float, metavar="GB", help="device memory the run may take")
    add("--link", default="off", metavar="off|live|origin|GB/S", help="emulated link on CPU")
    add("--temperature", type=float, default=draw.temperature, help="0 is greedy")
    add("--top-p", type=float, default=draw.top_p, help="nucleus sampling")
    add("--top-k", type=int, default=draw.top_k, help="likeliest tokens kept; 0 keeps all")
    add("--min-p", type=float, default=draw.min_p, help="least share of the likeliest token")
    add("--repetition-penalty", type=float, default=draw.repetition_penalty, help="1 is none")
    add("--stop", action="append", default=[], metavar="TEXT", help="end after it; repeatable")
    add("--seed", type=int, default=draw.seed, help="seed of the run")
    add("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="no progress bars")


def _add_run(parser: argparse.ArgumentParser) -> None:
    """An experiment's."""
    add = parser.add_argument
    add("experiment", metavar="A1|A2|B1|B2|all", help="context, resident, on-chip, output length")
    add("--preset", default="classroom", help="classroom (two cores) or origin (as published)")
    add("--seeds", default="1,2,3", metavar="N,N", help="a trial per cell and seed")
    add("--out", required=True, metavar="DIR", help="folder of the rows; run again to go on")
    add("--values", metavar="N,N", help="of the axis, instead of the preset's")
    add("--variants", metavar="NAME,NAME", help="what is compared, instead of the preset's")
    add("--scheduler", metavar="tcp://...", help="run on the workers of this Dask scheduler")
    _add_models(parser)
    parser.set_defaults(device=None, dtype=None)
    add("--quiet", action="store_true", help="no progress bar")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    """Arguments that both commands share."""
    add = parser.add_argument
    add("--target", default="llama-2-7b", metavar="ID", help="{models}, or a folder")
    add("--draft", default="default", metavar="ID|none", help="tier 0's model")
    add("--hardware", default="h100", metavar="NAME", help="{machines}")
    add("--prefill", type=int, default=32768, help="prompt tokens")
    add("--new-tokens", type=int, default=256, help="tokens to produce")
    add("--link-gbps", type=float, metavar="GB/S", help="instead of the hardware's link")
    add("--draft-middle", type=float, metavar="A", help="tier 1 keeps of tier 0's guesses")
    add("--middle-full", type=float, metavar="A", help="tier 2 keeps of tier 1's guesses")
    add("--draft-full", type=float, metavar="A", help="tier 2 keeps of tier 0's guesses")
    add("--graphs", action=argparse.BooleanOptionalAction, default=True, help="on a GPU")
    add("--json", action="store_true", help="print JSON")


def _add_what_if(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``whatif`` alone."""
    policy, guess, add = KVPolicy(), Speculation(), parser.add_argument
    add("--method", default="mspeckv", help=", ".join(METHODS))
    add("--kv-bits", metavar="8|4|2|full", help="default: 8 for mspeckv, else full")
    add("--on-chip", type=int, default=policy.on_chip, help="layers unquantized on the device")
    add("--resident", type=int, default=policy.resident, help="layers quantized on the device")
    add("--residency", default=policy.residency, metavar="static|lru")
    add("--nibble", action="store_true", help="int8 as two int4 planes, the upper on the device")
    add("--ahead", type=int, default=policy.ahead, metavar="N", help="layers in flight")
    add("--gamma", type=int, default=8, help="guesses per round")
    add("--draft-gamma", type=int, default=3, help="tier 0's guesses per inner round")
    add("--budget", type=int, default=4096, help="prompt tokens tier 1 reads")
    add("--refresh", type=int, default=guess.refresh, help="tokens between retrievals; 0 never")
    add("--tier1", default=guess.tier1, metavar="retrieval|nibble", help="what tier 1 reads")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``plan`` alone."""
    add = parser.add_argument
    add("--gpu-gb", type=float, metavar="GB", help="device memory, in 1e9 bytes")
    add("--min-acceptance", type=float, default=0.9, help="least that a width may keep")


def _number(text: str) -> Width | str:
    """``full``, ``auto`` and unknown words stay text, for the settings themselves to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that ``generate``'s arguments describe.

    Raises:
        ValueError: a setting that is not allowed.
    """
    given = vars(options)
    bits = _bits(options)
    policy = {field.name: given[field.name] for field in fields(KVPolicy) if field.name != "bits"}
    guess = {part.name: given[part.name] for part in fields(Speculation) if part.name != "tier0"}
    if options.retrieval != Speculation.retrieval:
        from mspeckv.kv import chunk_policies

        guess["retrieval"] = chunk_policies.load(options.retrieval)
    tier0 = options.draft if options.draft in ("none", "lookup") else "draft"
    return RunConfig(
        options.method,
        options.new_tokens,
        KVPolicy(bits=bits, **policy),
        Speculation(**guess, tier0=tier0),
        Sampling(
            options.temperature,
            options.top_p,
            options.seed,
            not options.ignore_eos,
            options.top_k,
            options.min_p,
            options.repetition_penalty,
            stop_strings=tuple(options.stop),
        ),
        Link.parse(options.link),
        options.device_gb,
        options.graphs,
    )


def what_if_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The setting that ``whatif``'s arguments describe, as `mspeckv.what_if` takes it.

    Raises:
        ValueError: an unknown method.
    """
    bits = _bits(options)
    names = (
        "method", "on_chip", "resident", "residency", "nibble", "ahead", "gamma", "draft_gamma",
        "budget", "refresh", "tier1",
    )  # fmt: skip
    given = {name: getattr(options, name) for name in names}
    return {**given, "bits": int(bits) if str(bits).isdigit() else bits}


def given_rates(options: argparse.Namespace) -> dict[str, float]:
    """The acceptance rates that were typed, by name."""
    return {name: rate for name in _RATES if (rate := getattr(options, name)) is not None}


def _bits(options: argparse.Namespace) -> Any:
    """The width that was typed, or the method's own."""
    if options.method not in METHODS:
        raise refuse("method", options.method, f"use one of {', '.join(METHODS)}")
    return default_width(options.method) if options.kv_bits is None else options.kv_bits


def check_folder(field: str, path: str | Path) -> None:
    """Refuse a folder that cannot be made, or written into; makes it.

    Raises:
        ValueError: a file stands there, or the system says no.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise refuse(field, str(path), f"use a folder to write into ({error.strerror})") from error


def check_file(field: str, path: str | Path) -> None:
    """Refuse a file that cannot be written; makes its folder.

    Raises:
        ValueError: a folder stands there, or the system says no.
    """
    file = Path(path).expanduser()
    there = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        raise refuse(field, str(path), f"use a file to write into ({error.strerror})") from error
    if not there:
        file.unlink()
