"""The course: predictions before a run, exercises with hints, score cards, progress kept locally.

Public surface: `Lab`, and `in_turns` for runs whose times are compared; `submit`, which writes a
file to hand in; `ClassGuesses`, for the teacher; `Exercise` and `Verdict`, which the checkers of
`mspeckv_widgets.course.exercises` are written in.
"""

from mspeckv_widgets.course.class_guesses import ClassGuesses
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.lab import Lab
from mspeckv_widgets.course.repeats import in_turns
from mspeckv_widgets.course.teaching.result import submit

__all__ = ["ClassGuesses", "Exercise", "Lab", "Verdict", "in_turns", "submit"]
