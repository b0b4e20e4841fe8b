"""The command's arguments, and the run that they describe."""

from __future__ import annotations

import argparse
from dataclasses import fields

from mspeckv.config import (
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
from mspeckv.kv import chunk_policies as retrieval


def add_server(parser: argparse.ArgumentParser) -> None:
    """What `lab` and `demo` ask."""
    parser.add_argument("--port", type=int, help="first port to try (default: the server's)")
    parser.add_argument("--labs", default="labs", metavar="DIR", help="folder of the notebooks")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def add_models(parser: argparse.ArgumentParser) -> None:
    """What is loaded, and where it computes."""
    parser.add_argument("--target", default="default", metavar="ID", help="model id or folder")
    parser.add_argument(
        "--draft", default="default", metavar="ID|none|lookup", help="model id, folder; or tier 0"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")


def add_generate(parser: argparse.ArgumentParser) -> None:
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
    add("--resident-format", default=policy.resident_format, metavar="packed|float")
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
        help=f"what chooses tier 1's chunks: {', '.join(retrieval.names())}, or a file's",
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


def add_run(parser: argparse.ArgumentParser) -> None:
    """An experiment's."""
    add = parser.add_argument
    add("experiment", metavar="A1|A2|B1|B2|all", help="context, resident, on-chip, output length")
    add("--preset", default="classroom", help="classroom (two cores) or origin (as published)")
    add("--seeds", default="1,2,3", metavar="N,N", help="a trial per cell and seed")
    add("--out", required=True, metavar="DIR", help="folder of the rows; run again to go on")
    add("--values", metavar="N,N", help="of the axis, instead of the preset's")
    add("--variants", metavar="NAME,NAME", help="what is compared, instead of the preset's")
    add("--scheduler", metavar="tcp://...", help="run on the workers of this Dask scheduler")
    add_models(parser)
    parser.set_defaults(device=None, dtype=None)
    add("--quiet", action="store_true", help="no progress bar")


def _number(text: str) -> Width | str:
    """``full``, ``auto`` and unknown words stay text, for the settings themselves to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that ``generate``'s arguments describe.

    Raises:
        ValueError: a setting that is not allowed.
    """
    given = vars(options)
    if options.method not in METHODS:
        raise refuse("method", options.method, f"use one of {', '.join(METHODS)}")
    bits = default_width(options.method) if options.kv_bits is None else options.kv_bits
    policy = {field.name: given[field.name] for field in fields(KVPolicy) if field.name != "bits"}
    guess = {part.name: given[part.name] for part in fields(Speculation) if part.name != "tier0"}
    guess["retrieval"] = retrieval.load(options.retrieval)
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
