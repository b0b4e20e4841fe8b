"""The course: predictions before a run, exercises with hints, score cards, progress kept locally.

Public surface: `Lab`; `submit`, which writes a file to hand in; `Exercise` and `Verdict`, which the
checkers of `mspeckv_widgets.course.exercises` are written in.
"""

from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.lab import Lab
from mspeckv_widgets.course.teaching.result import submit

__all__ = ["Exercise", "Lab", "Verdict", "submit"]
