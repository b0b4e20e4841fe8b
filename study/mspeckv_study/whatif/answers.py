"""Predictions and plans as plain text and as JSON; every figure is labelled modelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mspeckv.decoding.fits import USES_TIER1
from mspeckv_study.text_table import aligned
from mspeckv_study.whatif.forecast import Forecast
from mspeckv_study.whatif.search import Choice, DevicePlan


def what_if_text(found: Forecast) -> str:
    """One setting's prediction."""
    steps = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found.steps.items() if ms > 0)
    lines = [
        f"{found.method} of {found.model} on {found.hardware} (modelled)",
        *([f"  {found.grows}"] if found.grows else []),
        f"  {found.ms_per_token:.2f} ms per token, {found.tokens_per_second:.1f} tokens/s, "
        f"{found.tokens_per_round:.2f} tokens per round of {found.round_ms:.1f} ms",
        f"  of a token: {steps}",
        f"  link: {found.link_bytes_per_token / 1e6:.2f} MB and {found.link_ms_per_token:.2f} ms "
        "per token",
        *_memory_lines(found),
    ]
    control = found.equal_memory
    if control is not None and control.fits:
        lines.append(
            f"  in the same device memory plain decoding holds {control.on_chip} layers on-chip "
            f"and takes {control.ms_per_token:.2f} ms: {control.speedup:.2f} times as long"
        )
    elif control is not None:
        lines.append("  in the same device memory plain decoding does not fit")
    return "\n".join(lines)


def what_if_json(found: Forecast) -> dict[str, Any]:
    """One setting's prediction as plain dictionaries."""
    names = (
        "model", "hardware", "method", "grows", "ms_per_token", "tokens_per_second",
        "tokens_per_round", "round_ms",
    )  # fmt: skip
    return {
        "label": "modelled",
        **{name: getattr(found, name) for name in names},
        "steps_ms": dict(found.steps),
        "passes_per_round": list(found.passes_per_round),
        "link": {
            "bytes_per_token": found.link_bytes_per_token,
            "ms_per_token": found.link_ms_per_token,
        },
        "memory": {
            **{f"{name}_bytes": int(size) for name, size in found.memory.parts.items()},
            "offloaded_bytes": int(found.host_bytes),
            "peak_device_bytes": int(found.device_bytes),
            "kv_device_bytes": int(found.kv_device_bytes),
            "fits": bool(found.fits),
        },
        "equal_memory": None if found.equal_memory is None else asdict(found.equal_memory),
    }


def plan_text(found: DevicePlan) -> str:
    """The choice, its memory sum, what other methods would do, and the Pareto front."""
    lines = [
        f"{found.model}, {found.prefill} + {found.new_tokens} tokens, {found.hardware} with "
        f"{found.device_bytes / 1e9:.4g} GB and a link of {found.link_gbps:.4g} GB/s (modelled)",
        *([found.choice.prediction.grows] if found.choice.prediction.grows else []),
        f"{found.tried} settings tried, {found.fitting} fit; the fastest of them:",
        "",
        _choices([found.choice]),
        "",
        *_memory_lines(found.choice.prediction),
        _memory_line("left free", found.device_bytes - found.choice.device_bytes),
        "",
        "The fastest that fits, method by method",
        _choices(sorted(found.best.values(), key=lambda one: one.ms_per_token)),
        "",
        f"Memory against speed: nothing smaller is as fast ({len(found.front)} settings; each of",
        "these is a twentieth faster than the one before)",
        _choices(_thinned(found.front)),
    ]
    return "\n".join(lines)


def _thinned(front: Sequence[Choice]) -> list[Choice]:
    """Of a front, enough to see its course."""
    out: list[Choice] = []
    for one in front:
        if not out or one.ms_per_token <= 0.95 * out[-1].ms_per_token or one is front[-1]:
            out.append(one)
    return out


def plan_json(found: DevicePlan) -> dict[str, Any]:
    """A plan as plain dictionaries."""
    return {
        "label": "modelled",
        **vars(found),
        "choice": {
            **_choice_json(found.choice), "prediction": what_if_json(found.choice.prediction)
        },
        "best": {name: _choice_json(one) for name, one in found.best.items()},
        "front": [_choice_json(one) for one in found.front],
    }  # fmt: skip


def _choice_json(one: Choice) -> dict[str, Any]:
    setting = {name: value for name, value in vars(one).items() if name != "prediction"}
    return {**setting, "ms_per_token": one.ms_per_token, "device_bytes": one.device_bytes}


def _memory_lines(found: Forecast) -> list[str]:
    parts = {name: size for name, size in found.memory.parts.items() if size}
    sums = {"sum": found.device_bytes, "on the host": found.host_bytes}
    return ["  device memory", *(_memory_line(*one) for one in (parts | sums).items())]


def _memory_line(name: str, size: float) -> str:
    return f"  {name:<12}{size / 1e9:>9.3f} GB"


def _choices(rows: Sequence[Choice]) -> str:
    headers = (
        "method", "KV", "on-chip", "resident", "offloaded", "budget", "gamma", "draft gamma",
        "GB", "ms/token", "tokens/s",
    )  # fmt: skip
    cells: list[Sequence[str]] = [headers]
    for one in rows:
        guesses, nested = one.method != "autoregressive", one.method in USES_TIER1
        cells.append([
            one.method, str(one.bits), str(one.on_chip), str(one.resident),
            str(one.offloaded), str(one.budget) if nested else "",
            str(one.gamma) if guesses else "", str(one.draft_gamma) if nested else "",
            f"{one.device_bytes / 1e9:.2f}", f"{one.ms_per_token:.2f}",
            f"{1e3 / one.ms_per_token:.1f}",
        ])  # fmt: skip
    return "\n".join(f"  {line}" for line in aligned(cells, left=range(len(headers))))
