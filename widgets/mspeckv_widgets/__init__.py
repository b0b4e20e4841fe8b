"""Jupyter widgets of the lab: they read `mspeckv`'s event stream and draw it.

Public surface: `LiveLab`, the panel that decodes real text and shows what moves; `Timeline`,
`TierBreakdown`, `Roofline` and `MemoryMap`, views of a profile; `TokenStory`, a run's replay;
`QuantExplorer`, what packing keys and values loses; `AcceptanceExplorer`, guesses accepted and
rejected one by one; `Ablation`, results beside the published ones; `WhatIf`, what another machine
would do, and `PlanView`, what fits it, both modelled.
"""

from mspeckv_widgets.explorers.acceptance import AcceptanceExplorer
from mspeckv_widgets.explorers.quant import QuantExplorer
from mspeckv_widgets.explorers.retrieval import RetrievalExplorer
from mspeckv_widgets.panels.ablation import Ablation
from mspeckv_widgets.panels.live import LiveLab
from mspeckv_widgets.panels.plan_view import PlanView
from mspeckv_widgets.panels.profile_view import MemoryMap, Roofline, TierBreakdown, Timeline
from mspeckv_widgets.panels.token_story import TokenStory
from mspeckv_widgets.panels.what_if import WhatIf

__all__ = [
    "Ablation",
    "AcceptanceExplorer",
    "LiveLab",
    "MemoryMap",
    "PlanView",
    "QuantExplorer",
    "RetrievalExplorer",
    "Roofline",
    "TierBreakdown",
    "Timeline",
    "TokenStory",
    "WhatIf",
]
