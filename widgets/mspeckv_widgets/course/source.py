"""An answer as a program that makes it anew, so that somebody else can judge it again.

A function's or class's own source is not enough where it calls another one of the notebook, or a
library under a short name: what its names stand for is put before it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Mapping
from types import ModuleType
from typing import Any

ANSWER = "answer"
"""The name that the program gives to the answer."""

_MOST = 20_000
"""Characters; a longer program is none that a learner wrote."""


class _NoSource(Exception):
    """It cannot be written down."""


def source_of(answer: Any) -> str:
    """A program that ends with ``answer = ...``.

    Numbers, texts, lists and the like are written as such, arrays as lists. Functions and classes
    of the notebook are copied, with the functions, classes and plain values that they name, and
    with the imports they need. Within a tuple or the like, what cannot be written down goes by its
    name in the notebook, which the exercise must give then (`Exercise.gives`).

    Returns:
        An empty text where that cannot be done, as for a run's summary or a lambda.
    """
    parts: dict[str, str] = {}
    try:
        last = _expression(answer, parts)
    except (_NoSource, OSError, TypeError, SyntaxError):
        return ""
    program = "\n\n".join([*(part for part in parts.values() if part), f"{ANSWER} = {last}"])
    return f"{program}\n" if len(program) <= _MOST else ""


def _expression(value: Any, parts: dict[str, str]) -> str:
    """Text whose value is ``value``, once ``parts`` have been run."""
    if inspect.isfunction(value) or inspect.isclass(value):
        _copy(value, parts)
        return str(value.__name__)
    if isinstance(value, Mapping):
        inside = (f"{_literal(key)}: {_part(part, parts)}" for key, part in value.items())
        return "{" + ", ".join(inside) + "}"
    if type(value) in {list, tuple}:
        inside = (_part(part, parts) for part in value)
        text = ", ".join(inside)
        return f"[{text}]" if type(value) is list else f"({text},)" if value else "()"
    return _literal(value)


def _part(value: Any, parts: dict[str, str]) -> str:
    """A part of an answer; what cannot be written, such as a pair, goes by its notebook's name."""
    try:
        return _expression(value, parts)
    except _NoSource:
        names = (name for name, one in vars(sys.modules["__main__"]).items() if one is value)
        for name in names:
            if not name.startswith("_"):
                return name
        raise


def _literal(value: Any) -> str:
    plain = value.tolist() if hasattr(value, "tolist") else value
    text = repr(plain)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _NoSource from None
    return text


def _copy(thing: Any, parts: dict[str, str]) -> None:
    """Add a function's or class's source to ``parts``, after what it needs."""
    name = thing.__name__
    if name in parts:
        return
    parts[name] = ""  # two may name each other
    text, around = _written(thing)
    tree = ast.parse(text)
    if not isinstance(tree.body[0], (ast.FunctionDef, ast.ClassDef)):
        raise _NoSource  # a lambda comes with the line around it
    for needed in dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        if needed in around and needed not in parts:
            _need(needed, around[needed], thing.__module__, parts)
    del parts[name]
    parts[name] = text.strip() + "\n"


def _written(thing: Any) -> tuple[str, Mapping[str, Any]]:
    """A function's or class's source, and what the names in it stand for."""
    if inspect.isfunction(thing):
        return textwrap.dedent(inspect.getsource(thing)), thing.__globals__
    # Python finds a class of a notebook's cell only by its methods.
    for method in (part for part in vars(thing).values() if inspect.isfunction(part)):
        lines = linecache.getlines(method.__code__.co_filename)
        for node in ast.walk(ast.parse("".join(lines))):
            if not isinstance(node, ast.ClassDef) or node.name != thing.__name__:
                continue
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if node.end_lineno and first <= method.__code__.co_firstlineno <= node.end_lineno:
                text = "".join(lines[first - 1 : node.end_lineno])
                return textwrap.dedent(text), method.__globals__
    return textwrap.dedent(inspect.getsource(thing)), vars(sys.modules[thing.__module__])


def _need(name: str, value: Any, home: str, parts: dict[str, str]) -> None:
    """Add what a name stands for, if that can be said in a line or is the learner's own."""
    if isinstance(value, ModuleType):
        parts[name] = f"import {value.__name__} as {name}"
    elif inspect.isroutine(value) or inspect.isclass(value):
        own = value.__module__ == home and not inspect.isbuiltin(value)
        if own and getattr(value, "__name__", "") == name:
            _copy(value, parts)
        elif not own and _is_found(value):
            parts[name] = f"from {value.__module__} import {value.__name__} as {name}"
    else:
        try:
            parts[name] = f"{name} = {_literal(value)}"
        except _NoSource:
            return  # a model, a prompt: what the exercise gives


def _is_found(value: Any) -> bool:
    """Whether an import of a thing by its module and name finds it."""
    try:
        home = importlib.import_module(value.__module__)
    except (ImportError, AttributeError):
        return False
    return home is not builtins and getattr(home, value.__name__, None) is value
