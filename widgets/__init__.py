"""Jupyter widgets of the lab: they read `mspeckv`'s event stream and draw it.

Public surface: `LiveLab`, the panel that decodes real text and shows what moves; `Timeline`,
`TierBreakdown`, `Roofline` and `MemoryMap`, views of a profile; `TokenStory`, a run's replay.
"""

from mspeckv_widgets.live import LiveLab
from mspeckv_widgets.profile_view import MemoryMap, Roofline, TierBreakdown, Timeline
from mspeckv_widgets.token_story import TokenStory

__all__ = ["LiveLab", "MemoryMap", "Roofline", "TierBreakdown", "Timeline", "TokenStory"]
