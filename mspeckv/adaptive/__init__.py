"""Proposes lengths that are left open, and guesses by lookup; it never touches a distribution."""
