"""Checks that settings share, and the one form of a complaint."""

from __future__ import annotations


def refuse(field: str, value: object, allowed: str) -> ValueError:
    """The one form of a complaint about a setting."""
    return ValueError(f"{field}: {value!r} is not allowed; {allowed}")


def check_count(field: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse ``value`` unless it is a whole number in ``[least, most]``."""
    allowed = f"use a whole number of at least {least}"
    if most is not None:
        allowed = f"use a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(field, value, allowed)
    if value < least or (most is not None and value > most):
        raise refuse(field, value, allowed)


def check_number(
    field: str, value: object, least: float, most: float, open_low: bool = False
) -> None:
    """Refuse ``value`` unless it is a number in ``[least, most]`` (``(least, most]``)."""
    allowed = f"use a number {'above' if open_low else 'from'} {least:g} to {most:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse(field, value, allowed)
    if not (least < value <= most if open_low else least <= value <= most):
        raise refuse(field, value, allowed)


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse ``value`` unless it is one of ``choices``."""
    if value not in choices:
        raise refuse(field, value, f"use one of {', '.join(choices)}")


def check_flag(field: str, value: object) -> None:
    """Refuse ``value`` unless it is True or False."""
    if not isinstance(value, bool):
        raise refuse(field, value, "use True or False")
