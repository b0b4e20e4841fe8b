"""Panels: a run, a profile, a sweep or a model of another machine, and the controls that drive it.

A panel may use `mspeckv_widgets.charts` and what lies at the package's root. No explorer uses a
panel.
"""
