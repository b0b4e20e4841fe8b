"""The cost model for a page: `mspeckv.what_if`, traced for every model, kind of machine and method.

What the page leaves open is given to the trace as numbers without values: context, placement,
width, gamma, acceptance, and the figures in which machines of a kind differ. `forecast_of` says the
rest.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import mspeckv_study.whatif.forecast
import mspeckv_study.whatif.round
from mspeckv.settings import METHODS, RESIDENCIES, WIDTHS, KVPolicy, Speculation
from mspeckv_study.whatif import (
    HARDWARE,
    MODELS,
    Acceptance,
    Forecast,
    Hardware,
    hardware,
    inner_passes,
    what_if,
)
from mspeckv_study.whatif.acceptance import InnerPasses
from mspeckv_study.whatif.origin import SPECULATION, published_policy
from mspeckv_study.whatif.question import Question, ask
from mspeckv_study.whatif.shapes import ModelShape
from mspeckv_widgets.site.published import tables
from mspeckv_widgets.site.tracing import Tape, Trace, pack, traceable

MACHINES = (*HARDWARE, "origin")
CONTEXTS = tuple(1024 * n for n in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128))
LENGTHS = tuple(1024 << n for n in range(11))
"""Of the KV calculator: to a million tokens."""
GAMMAS = tuple(range(1, 17))
NEW_TOKENS = 256
POLICIES = tuple(product(WIDTHS, RESIDENCIES))
"""Width and residency, in the order in which a page counts them."""
KV_PARTS = ("part/on_chip", "part/resident", "part/tail", "part/windows", "part/states")
"""What the KV of a text is, among a forecast's parts."""
PART_WORDS = {
    "on_chip": "KV on-chip", "resident": "KV resident", "slots": "arriving layers",
    "tail": "newest tokens, as floats", "scratch": "unpacking", "windows": "KV of windows",
    "states": "recurrent states", "retrieval": "tier 1's KV", "streaming": "tier 0's KV",
    "head": "short head", "workspace": "prefill's activations",
}  # fmt: skip
"""What a page calls parts of the memory whose own names say too little."""
_GIVEN = ("prefill", "on_chip", "resident", "gamma", "middle_full", "draft_full")


def forecast_of(
    model: str,
    machine: str | Hardware,
    method: str,
    bits: Any = "full",
    residency: str = "static",
    **numbers: Any,
) -> Forecast:
    """What the page shows: the published software's details on its machine, else the defaults.

    Args:
        numbers: fields of `what_if`.

    Raises:
        ValueError: see `what_if`.
    """
    where = hardware(machine)
    return what_if(
        model, where, method=method, policy=_policy(where, bits, residency),
        draft="none" if method == "autoregressive" else "default", new_tokens=NEW_TOKENS,
        speculation=SPECULATION if where.name == "origin" else Speculation(), **numbers,
    )  # fmt: skip


def _policy(where: Hardware, bits: Any, residency: str) -> KVPolicy:
    packed = where.name == "origin" and bits != "full"
    return replace(
        published_policy("mspeckv") if packed else KVPolicy(), bits=bits, residency=residency
    )


def programs() -> dict[str, Any]:
    """Traces by ``model/kind/method``, packed, and all tables that go with them."""
    kinds = list(_kinds())
    known: dict[str, list[list[float]]] = {}
    traces = {
        f"{model}/{kind}/{method}": _trace(model, machines, method, known)
        for kind, machines in enumerate(kinds)
        for model in MODELS
        for method in METHODS
    }
    return {
        **pack(traces),
        "kind": {one.name: kind for kind, machines in enumerate(kinds) for one in machines},
        "machines": {
            one.name: {name: getattr(one, name) for name in (*_figures(), "source")}
            for machines in kinds for one in machines
        },
        "policies": POLICIES,
        "contexts": CONTEXTS,
        "acceptance": known,
        "inner": _inner(known),
    }  # fmt: skip


def _kinds() -> Iterator[tuple[Hardware, ...]]:
    """Machines that differ in figures alone."""
    groups: dict[Any, list[Hardware]] = {}
    for name in MACHINES:
        one = hardware(name)
        same = {k: v for k, v in vars(one).items() if k not in (*_figures(), "name", "source")}
        groups.setdefault((repr(same), name == "origin"), []).append(one)
    return (tuple(group) for group in groups.values())


def _figures() -> tuple[str, ...]:
    """Figures of a machine that are given to a trace."""
    return ("memory_gb", "memory_gbps", "matrix_gflops", "link_gbps")


def _modules() -> list[ModuleType]:
    """Modules of the cost model that work on arrays."""
    found = [one for name, one in sys.modules.items() if name.startswith("mspeckv_study.whatif.")]
    return [one for one in found if hasattr(one, "np")]


def _trace(
    model: str, machines: tuple[Hardware, ...], method: str, known: dict[str, list[list[float]]]
) -> Trace:
    """`forecast_of` with everything open that the page can set.

    What it takes for the pair's acceptance goes into ``known``: by ``model/method``, at every
    context, rates in the order of `Acceptance`'s fields.
    """
    tape = Tape()
    machine = copy.copy(machines[0])
    for name in _figures():
        object.__setattr__(machine, name, tape.given(name))
    numbers: dict[str, Any] = {name: tape.given(name) for name in _GIVEN}
    numbers["link_gbps"] = machine.link_gbps

    def asked(
        method: str, layers: int, policy: Any, speculation: Any, rates: Any, told: Any, more: Any
    ) -> Question:
        table = np.broadcast_arrays(*vars(rates).values(), CONTEXTS)[:-1]
        known[f"{model}/{method}"] = np.array(table).T.tolist()
        told = {**told, "link_gbps": 1.0, "prefill": CONTEXTS[0]}
        made = ask(method, layers, policy, speculation, Acceptance(), told, more)
        policies = tuple(_policy(machine, *one) for one in POLICIES)
        return replace(
            made,
            numbers={**made.numbers, **numbers},
            policies=policies,
            which=tape.given("policy"),  # type: ignore[arg-type]  # stands for an array
        )

    def inner(*_: Any) -> Any:
        middle, draft = tape.given("middle_passes"), tape.given("draft_passes")
        return InnerPasses(middle, draft, middle + draft)

    with (
        traceable(*_modules()),
        patch.object(mspeckv_study.whatif.forecast, "ask", asked),
        patch.object(mspeckv_study.whatif.round, "inner_passes", inner),
    ):
        found = forecast_of(model, machine, method, prefill=np.array(CONTEXTS))
    return Trace.of(tape, results(found))


def results(found: Forecast) -> dict[str, Any]:
    """A forecast's numbers by the names that a page knows them by."""
    control = {} if found.equal_memory is None else vars(found.equal_memory)
    draft, middle, _ = found.passes_per_round
    return {
        "ms": found.ms_per_token,
        "settled": found.tokens_per_round,
        "round": found.round_ms,
        **{f"step/{name}": ms for name, ms in found.steps.items()},
        "link_bytes": found.link_bytes_per_token,
        "link_ms": found.link_ms_per_token,
        "draft_passes": draft,
        "middle_passes": middle,
        **{f"part/{name}": size for name, size in found.memory.parts.items()},
        "device": found.device_bytes,
        "kv_device": found.kv_device_bytes,
        "host": found.host_bytes,
        "fits": found.fits,
        **{f"control/{name}": number for name, number in control.items()},
    }


def _inner(known: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
    """Passes of tier 1 and tier 0 by ``rate/draft_gamma``, for every gamma."""
    rates = {rates[0] for table in known.values() for rates in table}
    out = {}
    for rate, depth in product(rates, (Speculation().draft_gamma, SPECULATION.draft_gamma)):
        found = inner_passes(rate, depth, np.array(GAMMAS))
        out[f"{rate}/{depth}"] = [found.middle.tolist(), found.draft.tolist()]
    return out


def _model(shape: ModelShape) -> dict[str, Any]:
    """What a page says of a model; its layers are those that a policy places."""
    latent = (
        f"in every layer one latent of {shape.latent} numbers per token stands for the keys and "
        "values of all heads; the engine itself refuses such models"
    )
    return {
        "layers": shape.kv(torch.float16).layers, "source": shape.source,
        "note": latent if shape.latent else shape.described,
    }  # fmt: skip


FIRST = {
    "model": "llama-2-7b", "machine": "h100", "method": "mspeckv", "bits": "8",
    "residency": "static", "context": CONTEXTS.index(32768), "gamma": 8, "on_chip": 8,
    "resident": 16,
}  # fmt: skip
"""What the page shows first."""
_PUBLISHED = {
    **FIRST, "machine": "origin", "residency": "lru", "context": CONTEXTS.index(16384),
    "gamma": SPECULATION.gamma, "on_chip": 16, "resident": 16,
}  # fmt: skip


def page_data() -> dict[str, Any]:
    """All that the page holds: programs, tables, and the names of what can be chosen."""
    made = programs()
    return {
        **made,
        "kv_parts": [one for one in KV_PARTS if all(one in p["results"] for p in made["programs"])],
        "models": {name: _model(shape) for name, shape in MODELS.items()},
        "methods": METHODS, "widths": WIDTHS, "gammas": GAMMAS,
        "lengths": LENGTHS, "part_words": PART_WORDS,
        "new_tokens": NEW_TOKENS, "draft_gamma": Speculation().draft_gamma,
        "published_draft_gamma": SPECULATION.draft_gamma,
        "first": FIRST, "as_published": {name: str(value) for name, value in _PUBLISHED.items()},
        "published": tables(),
    }  # fmt: skip
