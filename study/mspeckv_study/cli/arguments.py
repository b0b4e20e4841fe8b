"""What may be typed after ``mspeckv``, and the settings that it describes.

Nothing here needs torch or numpy.
"""

from __future__ import annotations

import argparse
import runpy
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
    check_choice,
    default_width,
    refuse,
)
from mspeckv_study.cli.flags import COMMANDS


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """Every command's arguments; ``command`` is the name of the one that was typed."""
    parser = _Parser(
        prog="mspeckv", description="Multilevel speculative decoding over a placed KV cache."
    )
    parser.add_argument("--version", action="version", version=f"mspeckv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command, (words, flags) in COMMANDS.items():
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


def _policy(text: str) -> str:
    """The name in ``NAME`` or ``FILE.py:NAME``; a file is run first, to register its policies.

    Raises:
        ValueError: the file cannot be read or run, or registers no such policy.
    """
    from mspeckv.kv import chunk_policies

    path, colon, name = text.rpartition(":")
    if colon:
        if not Path(path).is_file():
            raise refuse("retrieval", text, f"use NAME or FILE.py:NAME; there is no file {path}")
        try:
            runpy.run_path(path)
        except (Exception, SystemExit) as error:  # the file is the user's, and may raise anything
            said = f"{type(error).__name__}: {error}"
            raise refuse("retrieval", text, f"mend {path}, which raised {said}") from error
    chunk_policies.policy(name)
    return name


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that ``generate``'s arguments describe; refuses a setting that is not allowed."""
    bits, guess = _width(options), _given(options, Speculation)
    if options.retrieval != Speculation.retrieval:
        guess["retrieval"] = _policy(options.retrieval)
    guess["tier0"] = options.draft if options.draft in ("none", "lookup") else "draft"
    draw = _given(options, Sampling)
    draw |= {"stop_at_eos": not options.ignore_eos, "stop_strings": tuple(options.stop)}
    parts: dict[str, Any] = {
        "policy": KVPolicy(bits=bits, **_given(options, KVPolicy)),
        "speculation": Speculation(**guess),
        "sampling": Sampling(**draw),
        "link": Link.parse(options.link),
    }
    return RunConfig(**{**_given(options, RunConfig), **parts})


def what_if_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What ``whatif``'s arguments set, as `mspeckv.what_if` takes it; refuses an unknown method."""
    given = {**_given(options, KVPolicy), **_given(options, Speculation)}
    return {**given, "method": options.method, "bits": _width(options)}
