"""Jupyter widgets of the lab: they read `mspeckv`'s event stream and draw it.

Public surface: `LiveLab`, the panel that decodes real text and shows what moves; `Timeline`,
`TierBreakdown`, `Roofline` and `MemoryMap`, views of a profile; `TokenStory`, a run's replay, and
`MovingRound`, its moving picture;
`QuantExplorer`, what packing keys and values loses; `AcceptanceExplorer`, guesses accepted and
rejected one by one; `Ablation`, results beside the published ones; `WhatIf`, what another machine
would do, and `PlanView`, what fits it, both modelled. Each is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mspeckv_widgets.explorers.acceptance import AcceptanceExplorer
    from mspeckv_widgets.explorers.quant import QuantExplorer
    from mspeckv_widgets.explorers.retrieval import RetrievalExplorer
    from mspeckv_widgets.panels.ablation import Ablation
    from mspeckv_widgets.panels.live import LiveLab
    from mspeckv_widgets.panels.memory_map import MemoryMap
    from mspeckv_widgets.panels.moving.moving_round import MovingRound
    from mspeckv_widgets.panels.plan_view import PlanView
    from mspeckv_widgets.panels.profile_view import TierBreakdown, Timeline
    from mspeckv_widgets.panels.roofline import Roofline
    from mspeckv_widgets.panels.token_story import TokenStory
    from mspeckv_widgets.panels.what_if import WhatIf

__all__ = [
    "Ablation",
    "AcceptanceExplorer",
    "LiveLab",
    "MemoryMap",
    "MovingRound",
    "PlanView",
    "QuantExplorer",
    "RetrievalExplorer",
    "Roofline",
    "TierBreakdown",
    "Timeline",
    "TokenStory",
    "WhatIf",
]

_HOMES = {
    "Ablation": "panels.ablation",
    "AcceptanceExplorer": "explorers.acceptance",
    "LiveLab": "panels.live",
    "MemoryMap": "panels.memory_map",
    "MovingRound": "panels.moving.moving_round",
    "PlanView": "panels.plan_view",
    "QuantExplorer": "explorers.quant",
    "RetrievalExplorer": "explorers.retrieval",
    "Roofline": "panels.roofline",
    "TierBreakdown": "panels.profile_view",
    "Timeline": "panels.profile_view",
    "TokenStory": "panels.token_story",
    "WhatIf": "panels.what_if",
}


def __getattr__(name: str) -> object:
    """A panel or explorer, loaded when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # before torch, whose threads wait as the engine's package says
    import_module("mspeckv")
    from mspeckv_study.cli.system import GRAMMAR, without

    # Plotly asks for nbformat, which asks for `jsonschema`
    with without(GRAMMAR):
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, loaded or not: notebooks complete from it."""
    return sorted({*globals(), *__all__})
