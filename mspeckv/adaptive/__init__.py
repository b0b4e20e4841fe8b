"""Proposes: lengths that are left open, round by round, and guesses by lookup.

It never touches a distribution.
"""
