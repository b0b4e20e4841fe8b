"""A table from names to makers; the doors themselves: `mspeckv.kv.doors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mspeckv.settings import refuse

Made = TypeVar("Made", bound=Callable[..., Any])


class Door(Generic[Made]):
    """Makers by name, of a setting ``field`` that holds such a name."""

    def __init__(self, field: str) -> None:
        self.field = field
        self._makers: dict[str, Made] = {}

    def register(self, name: str) -> Callable[[Made], Made]:
        """A decorator that gives a maker its name; a later one of that name takes its place.

        Raises:
            ValueError: the name is empty or no text.
        """
        if not isinstance(name, str) or not name:
            raise refuse(self.field, name, "use a name")

        def add(maker: Made) -> Made:
            self._makers[name] = maker
            return maker

        return add

    def unregister(self, name: str) -> None:
        """Forget a maker; runs that have begun go on with it.

        Raises:
            ValueError: there is none of that name.
        """
        self.find(name)
        del self._makers[name]

    def find(self, name: str) -> Made:
        """The maker of that name.

        Raises:
            ValueError: there is none.
        """
        if name not in self._makers:
            there = ", ".join(self.names())
            raise refuse(self.field, name, f"use one of {there}, or register it first")
        return self._makers[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they came."""
        return tuple(self._makers)
