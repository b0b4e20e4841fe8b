"""The course: predictions before a run, exercises with hints, score cards, progress kept locally.

Public surface: `Lab`, `in_turns` for runs whose times are compared, and `Exercise` and `Verdict`,
which the checkers of `mspeckv_widgets.course.exercises` are written in.
"""

from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.lab import Lab
from mspeckv_widgets.course.repeats import in_turns

__all__ = ["Exercise", "Lab", "Verdict", "in_turns"]
