"""The cost model for a page: `mspeckv.what_if`, traced for every model, kind of machine and method.

What the page leaves open is given to the trace as numbers without values: context, placement,
width, gamma, acceptance, and the figures in which machines of a kind differ. `forecast_of` says the
rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np

import mspeckv.whatif.acceptance
import mspeckv.whatif.footprint
import mspeckv.whatif.forecast
import mspeckv.whatif.passes
import mspeckv.whatif.question
import mspeckv.whatif.round
from mspeckv.settings import METHODS, RESIDENCIES, WIDTHS, KVPolicy, Speculation
from mspeckv.whatif import HARDWARE, MODELS, Forecast, Hardware, hardware, inner_passes, what_if
from mspeckv.whatif.acceptance import Acceptance, likely_acceptance
from mspeckv.whatif.origin import SPECULATION, published_policy
from mspeckv.whatif.question import Question, ask
from mspeckv.whatif.shapes import draft_shape
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
_GIVEN = ("prefill", "on_chip", "resident", "gamma", "middle_full", "draft_full")
_WHAT_IF = (
    mspeckv.whatif.acceptance, mspeckv.whatif.footprint, mspeckv.whatif.forecast,
    mspeckv.whatif.passes, mspeckv.whatif.question, mspeckv.whatif.round,
)  # fmt: skip


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


def acceptance_of(model: str, method: str, prefill: Any) -> Acceptance:
    """What is known of a model's default pair at a context, or at several."""
    draft = draft_shape(MODELS[model], "default")
    return likely_acceptance(model, draft.name if draft else None, method, prefill)


def methods_of(model: str) -> tuple[str, ...]:
    """Methods that a model can run."""
    alone = draft_shape(MODELS[model], "default") is None
    return tuple(method for method in METHODS if not (alone and method == "vanilla"))


def programs() -> dict[str, Any]:
    """Traces by ``model/kind/method``, packed, and all tables that go with them."""
    kinds = list(_kinds())
    traces = {
        f"{model}/{kind}/{method}": _trace(model, machines, method)
        for kind, machines in enumerate(kinds)
        for model in MODELS
        for method in methods_of(model)
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
        "acceptance": _acceptances(),
        "inner": _inner(),
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


def _trace(model: str, machines: tuple[Hardware, ...], method: str) -> Trace:
    """`forecast_of` with everything open that the page can set."""
    tape = Tape()
    machine = copy.copy(machines[0])
    for name in _figures():
        object.__setattr__(machine, name, tape.given(name))
    numbers: dict[str, Any] = {name: tape.given(name) for name in _GIVEN}
    numbers["link_gbps"] = machine.link_gbps

    def asked(
        method: str, layers: int, policy: Any, speculation: Any, rates: Any, told: Any, more: Any
    ) -> Question:
        told = {**told, "link_gbps": 1.0}
        made = ask(method, layers, policy, speculation, rates, told, more)
        policies = tuple(_policy(machine, *one) for one in POLICIES)
        return replace(
            made,
            numbers={**made.numbers, **numbers},
            policies=policies,
            which=tape.given("policy"),  # type: ignore[arg-type]  # stands for an array
        )

    def inner(*_: Any) -> Any:
        middle, draft = tape.given("middle_passes"), tape.given("draft_passes")
        return mspeckv.whatif.acceptance.InnerPasses(middle, draft, middle + draft)

    with (
        traceable(*_WHAT_IF),
        patch.object(mspeckv.whatif.forecast, "ask", asked),
        patch.object(mspeckv.whatif.round, "inner_passes", inner),
        patch.object(mspeckv.whatif.forecast, "hardware", lambda given: given),
    ):
        found = _what_if_on(model, machine, method)
    return Trace.of(tape, results(found))


def _what_if_on(model: str, machine: Hardware, method: str) -> Forecast:
    with patch(f"{__name__}.hardware", lambda given: given):
        return forecast_of(model, machine, method, acceptance=Acceptance())


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


def _acceptances() -> dict[str, list[list[float]]]:
    """Rates by ``model/method``: at every context, in the order of `Acceptance`'s fields."""
    names = [part.name for part in fields(Acceptance)]

    def table(model: str, method: str) -> list[list[float]]:
        found = acceptance_of(model, method, np.array(CONTEXTS))
        rates = np.broadcast_arrays(*(getattr(found, name) for name in names), CONTEXTS)
        return np.array(rates[:-1]).T.tolist()

    return {
        f"{model}/{method}": table(model, method)
        for model in MODELS for method in methods_of(model)
    }  # fmt: skip


def _inner() -> dict[str, list[list[float]]]:
    """Passes of tier 1 and tier 0 by ``rate/draft_gamma``, for every gamma."""
    rates = {rates[0] for table in _acceptances().values() for rates in table}
    out = {}
    for rate, depth in product(rates, (Speculation().draft_gamma, SPECULATION.draft_gamma)):
        found = inner_passes(rate, depth, np.array(GAMMAS))
        out[f"{rate}/{depth}"] = [found.middle.tolist(), found.draft.tolist()]
    return out


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
    models = {
        name: {"layers": shape.layers, "source": shape.source} for name, shape in MODELS.items()
    }
    return {
        **programs(),
        "models": models, "methods": METHODS, "widths": WIDTHS, "gammas": GAMMAS,
        "lengths": LENGTHS,
        "new_tokens": NEW_TOKENS, "draft_gamma": Speculation().draft_gamma,
        "published_draft_gamma": SPECULATION.draft_gamma,
        "first": FIRST, "as_published": {name: str(value) for name, value in _PUBLISHED.items()},
        "published": tables(),
    }  # fmt: skip
