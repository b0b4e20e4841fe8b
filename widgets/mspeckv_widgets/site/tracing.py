"""Numbers that remember how they were made, so that a page can make them again.

A traced function of Python is called once with `Traced` numbers in place of plain ones. Each
operation adds a step to a `Tape`; the steps are the function, without its loops and branches, and
`program.js` takes them for any numbers. A branch on a traced number would hide a part of the
function, so it raises; all others are followed as the plain numbers beside it say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

STEPS = {
    "add", "subtract", "multiply", "divide", "floor_divide", "power", "maximum", "minimum", "ceil",
    "greater", "greater_equal", "less", "less_equal", "equal", "bitwise_and", "where",
    "pick", "max", "any", "sum", "absolute",
}  # fmt: skip
"""What `program.js` can do; ``pick`` is an entry of a list, the last three go over one."""
Node = tuple[Any, ...]


class Tape:
    """The steps of one traced function, in order; each names the steps that it works on."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, Traced] = {}

    def given(self, name: str, shape: tuple[int, ...] = ()) -> Traced:
        """A number that the page will give."""
        return self._add(("given", name), shape)

    def step(self, name: str, *operands: Any) -> Traced:
        """One more step.

        Raises:
            TypeError: the page has no such step.
        """
        if name not in STEPS:
            raise TypeError(f"{name}: a page knows no such step")
        places = [self._place(one) for one in operands]
        if name == "pick":
            shape = np.shape(operands[0])
        elif name in ("max", "any", "sum"):
            shape = ()
        else:
            shape = np.broadcast_shapes(*(np.shape(one) for one in operands))
        return self._add((name, *places), shape)

    def _place(self, operand: Any) -> int:
        if isinstance(operand, Traced):
            return operand.place
        # each constant is a node of its own: which of them are equal is a matter of values
        self.nodes.append(("constant", np.asarray(operand, dtype=float).tolist()))
        return len(self.nodes) - 1

    def _add(self, node: Node, shape: tuple[int, ...]) -> Traced:
        if node not in self._known:
            self.nodes.append(node)
            self._known[node] = Traced(self, len(self.nodes) - 1, shape)
        return self._known[node]


class Traced(NDArrayOperatorsMixin):
    """A number, or a list of them, that is a step of a `Tape`."""

    def __init__(self, tape: Tape, place: int, shape: tuple[int, ...]) -> None:
        self.tape, self.place, self.shape = tape, place, shape

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Traced:
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method}: a page knows no such step")
        return self.tape.step(ufunc.__name__, *inputs)

    def __array_function__(self, function: Any, _: Any, inputs: Any, more: Any) -> Any:
        if function is np.where:
            return self.tape.step("where", *inputs)
        if function is np.zeros_like:
            return np.zeros(self.shape, dtype=int)
        if function is np.shape:
            return self.shape
        if function is np.broadcast_arrays:
            return inputs
        raise TypeError(f"{function.__name__}: a page knows no such step")

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, inputs: Any, more: Any = None) -> Traced:
        tape = next(one.tape for one in inputs if isinstance(one, Traced))
        return tape.step(function.__name__, *inputs)

    def __bool__(self) -> bool:
        raise TypeError("a traced function may not branch on a traced number")

    __hash__ = object.__hash__

    def item(self) -> Traced:
        """Itself."""
        return self

    def max(self, axis: int = 0) -> Traced:
        """The largest entry."""
        return self.tape.step("max", self)

    def any(self, axis: int = 0) -> Traced:
        """Whether an entry is true."""
        return self.tape.step("any", self)

    def sum(self) -> Traced:
        """All entries added up."""
        return self.tape.step("sum", self)

    def clamp_min(self, least: float) -> Traced:
        """No entry below ``least``."""
        return self.tape.step("maximum", self, least)

    clamp_min_ = clamp_min


class _Column(np.ndarray):
    """An array of which a traced number may pick an entry."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Traced):
            return index.tape.step("pick", index, np.asarray(self))
        return super().__getitem__(index)


class _Numpy:
    """numpy, but what it would make an array of stays traced."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def asarray(value: Any, *_: Any, **more: Any) -> Any:
        return value if isinstance(value, Traced) else np.asarray(value, *_, **more)

    @staticmethod
    def array(values: Any) -> Any:
        return np.asarray(values).view(_Column)


@contextmanager
def traceable(*modules: ModuleType) -> Iterator[None]:
    """Let the functions of ``modules`` be called with traced numbers."""
    patches = [patch.object(module, "np", _Numpy()) for module in modules]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@dataclass(frozen=True)
class Trace:
    """A traced function: its steps, and which of them are its results, by name."""

    nodes: tuple[Node, ...]
    results: Mapping[str, int]

    @classmethod
    def of(cls, tape: Tape, results: Mapping[str, Any]) -> Trace:
        """Of what a function returned; steps that nothing needs are left out."""
        places = {name: tape._place(one) for name, one in results.items()}
        needed, order = set(places.values()), []
        for place in reversed(range(len(tape.nodes))):
            if place in needed:
                order.append(place)
                needed |= set(_operands(tape.nodes[place]))
        new = {old: number for number, old in enumerate(reversed(order))}
        nodes = tuple(_moved(tape.nodes[old], new) for old in new)
        return cls(nodes, {name: new[place] for name, place in places.items()})

    @property
    def shape(self) -> tuple[Any, ...]:
        """What traces that differ in constants alone have in common."""
        nodes = tuple(node[:1] if node[0] == "constant" else node for node in self.nodes)
        return nodes, tuple(self.results.items())


def pack(traces: Mapping[str, Trace]) -> dict[str, Any]:
    """Traces for a page: programs, and for each trace its program and its own constants.

    Traces of one shape share a program. Constants that are equal in all of them are one.
    """
    groups: dict[Any, list[str]] = {}
    for name, trace in traces.items():
        groups.setdefault(trace.shape, []).append(name)
    programs: list[dict[str, Any]] = []
    uses: dict[str, Any] = {}
    for names in groups.values():
        program, own = _share([traces[name] for name in names])
        for name, constants in zip(names, own, strict=True):
            uses[name] = [len(programs), constants]
        programs.append(program)
    return {"programs": programs, "uses": uses}


def _share(traces: Sequence[Trace]) -> tuple[dict[str, Any], list[list[Any]]]:
    """One program of traces of one shape, and each one's own constants."""
    known: dict[Any, int] = {}
    nodes: list[Node] = []
    own: list[list[Any]] = [[] for _ in traces]
    new: dict[int, int] = {}
    for place, node in enumerate(traces[0].nodes):
        made: Any = _moved(node, new)
        key: Any = made
        if node[0] == "constant":
            values = [trace.nodes[place][1] for trace in traces]
            key = ("constant", *map(repr, values))
            made = ("constant", values[0])
            if len(set(key[1:])) > 1 and key not in known:
                made = ("own", len(own[0]))
                for constants, value in zip(own, values, strict=True):
                    constants.append(value)
        if key not in known:
            known[key] = len(nodes)
            nodes.append(made)
        new[place] = known[key]
    results = {name: new[place] for name, place in traces[0].results.items()}
    return {"nodes": [list(node) for node in nodes], "results": results}, own


def _operands(node: Node) -> tuple[int, ...]:
    return () if node[0] in ("given", "constant") else node[1:]


def _moved(node: Node, new: Mapping[int, int]) -> Node:
    return (node[0], *(new[place] for place in _operands(node))) if _operands(node) else node
