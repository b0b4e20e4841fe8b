"""Of what was measured here and is kept (`mspeckv.models.kept`): what there is, and how old."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from mspeckv.models import kept


def listing() -> list[dict[str, Any]]:
    """Everything kept: what kind, of which models, with how many threads, and how old it is."""
    out: list[dict[str, Any]] = []
    for path in kept.files():
        with suppress(OSError, ValueError, TypeError, KeyError):
            given = json.loads(path.read_text(encoding="utf-8"))
            out.append({
                "file": path.name,
                "models": [f"{m['model_type']} x{m['num_hidden_layers']}"
                           for m in given["of"]["models"]],
                "threads": given["of"]["threads"],
                "age_seconds": max(0.0, time.time() - given["measured_at"]),
            })  # fmt: skip
    return out


def age(seconds: float) -> str:
    """A time since, in a word or two."""
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} min"
