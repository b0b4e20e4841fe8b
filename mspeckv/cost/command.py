"""``mspeckv whatif`` and ``mspeckv plan``: arguments, one call, text or JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

from mspeckv.config import METHODS, KVPolicy, Speculation, default_width, refuse
from mspeckv.whatif.acceptance import Acceptance
from mspeckv.whatif.answers import plan_json, plan_text, what_if_json, what_if_text
from mspeckv.whatif.forecast import what_if
from mspeckv.whatif.machines import NAMES
from mspeckv.whatif.search import plan
from mspeckv.whatif.shapes import MODELS


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Arguments that both commands share."""
    add = parser.add_argument
    add("--target", default="llama-2-7b", metavar="ID", help=f"{', '.join(MODELS)}, or a folder")
    add("--draft", default="default", metavar="ID|none", help="tier 0's model")
    add("--hardware", default="h100", metavar="NAME", help=", ".join(NAMES))
    add("--prefill", type=int, default=32768, help="prompt tokens")
    add("--new-tokens", type=int, default=256, help="tokens to produce")
    add("--link-gbps", type=float, metavar="GB/S", help="instead of the hardware's link")
    add("--draft-middle", type=float, metavar="A", help="tier 1 keeps of tier 0's guesses")
    add("--middle-full", type=float, metavar="A", help="tier 2 keeps of tier 1's guesses")
    add("--draft-full", type=float, metavar="A", help="tier 2 keeps of tier 0's guesses")
    add("--graphs", action=argparse.BooleanOptionalAction, default=True, help="on a GPU")
    add("--json", action="store_true", help="print JSON")


def add_what_if(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``whatif`` alone."""
    policy, guess, add = KVPolicy(), Speculation(), parser.add_argument
    add("--method", default="mspeckv", help=", ".join(METHODS))
    add("--kv-bits", metavar="8|4|2|full", help="default: 8 for mspeckv, else full")
    add("--on-chip", type=int, default=policy.on_chip, help="layers unquantized on the device")
    add("--resident", type=int, default=policy.resident, help="layers quantized on the device")
    add("--resident-format", default=policy.resident_format, metavar="packed|float")
    add("--residency", default=policy.residency, metavar="static|lru")
    add("--nibble", action="store_true", help="int8 as two int4 planes, the upper on the device")
    add("--ahead", type=int, default=policy.ahead, metavar="N", help="layers in flight")
    add("--gamma", type=int, default=8, help="guesses per round")
    add("--draft-gamma", type=int, default=3, help="tier 0's guesses per inner round")
    add("--budget", type=int, default=4096, help="prompt tokens tier 1 reads")
    add("--refresh", type=int, default=guess.refresh, help="tokens between retrievals; 0 never")
    add("--tier1", default=guess.tier1, metavar="retrieval|nibble", help="what tier 1 reads")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``plan`` alone."""
    add = parser.add_argument
    add("--gpu-gb", type=float, metavar="GB", help="device memory, in 1e9 bytes")
    add("--min-acceptance", type=float, default=0.9, help="least that a width may keep")


def run_what_if(options: argparse.Namespace) -> int:
    """Predict one setting and print it.

    Raises:
        ValueError: a setting that is not allowed.
    """
    if options.method not in METHODS:
        raise refuse("method", options.method, f"use one of {', '.join(METHODS)}")
    bits = default_width(options.method) if options.kv_bits is None else options.kv_bits
    found = what_if(
        options.target, options.hardware, draft=options.draft, method=options.method,
        prefill=options.prefill, new_tokens=options.new_tokens,
        acceptance=_acceptance(options), link_gbps=options.link_gbps, graphs=options.graphs,
        bits=int(bits) if str(bits).isdigit() else bits,
        **{name: getattr(options, name) for name in (
            "on_chip", "resident", "resident_format", "residency", "nibble", "ahead", "gamma",
            "draft_gamma", "budget", "refresh", "tier1",
        )},
    )  # fmt: skip
    print(json.dumps(what_if_json(found), indent=2) if options.json else what_if_text(found))
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """Search and print.

    Raises:
        ValueError: a value that is not allowed, or nothing fits.
    """
    found = plan(
        options.target, options.hardware, draft=options.draft, prefill=options.prefill,
        new_tokens=options.new_tokens, gpu_gb=options.gpu_gb, link_gbps=options.link_gbps,
        min_acceptance=options.min_acceptance, acceptance=_acceptance(options),
        graphs=options.graphs,
    )  # fmt: skip
    print(json.dumps(plan_json(found), indent=2) if options.json else plan_text(found))
    return 0


def _acceptance(options: argparse.Namespace) -> Acceptance | None:
    """The rates given, the rest as `Acceptance` has them; None, for likely ones, if none is."""
    names = [part.name for part in fields(Acceptance)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return Acceptance(**given) if given else None
