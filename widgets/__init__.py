"""Jupyter widgets of the lab: they read `mspeckv`'s event stream and draw it.

Public surface: `LiveLab`, the panel that decodes real text and shows what moves.
"""

from mspeckv_widgets.live import LiveLab

__all__ = ["LiveLab"]
