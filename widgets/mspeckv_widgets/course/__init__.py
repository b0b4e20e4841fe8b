"""The course: predictions before a run, exercises with hints, score cards, progress kept locally.

Public surface: `Lab`; `ClassGuesses`, for the teacher; `Exercise` and `Verdict`, which the checkers
of `mspeckv_widgets.course.exercises` are written in.
"""

from mspeckv_widgets.course.class_guesses import ClassGuesses
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.course.lab import Lab

__all__ = ["ClassGuesses", "Exercise", "Lab", "Verdict"]
