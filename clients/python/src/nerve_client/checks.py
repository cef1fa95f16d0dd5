"""Whether an option is what it should be: told by its name, before anything is sent. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from nerve_client.requests import TextRequest

OptionsT = TypeVar("OptionsT", bound=Mapping[str, object])


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """What to raise for a value of another type; it shows the type and never the value."""
    return TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")


def number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises TypeError where it is no number, ValueError where it is not `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(name, "a number", value)
    if not least <= float(value) <= most:
        limits = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
        raise ValueError(f"{name} must be {limits}, not {value}")


def whole(name: str, value: object, least: int, most: float = math.inf) -> None:
    """The same for an integer."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_type(name, "a whole number", value)
    number(name, value, least, most)


def seconds(name: str, value: object) -> None:
    """Raises TypeError, ValueError where it is no time that a call can have."""
    number(name, value)
    if not 0 < cast("float", value) < math.inf:
        raise ValueError(f"{name} must be more than 0 and finite, not {value}")


def flag(name: str, value: object) -> None:
    """Raises TypeError where it is not True or False."""
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)


def word(name: str, value: object) -> None:
    """Raises TypeError where it is no string, ValueError where there is nothing in it."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if not value:
        raise ValueError(f"{name} must not be empty")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises TypeError where it is no string, ValueError where it is none of `allowed`."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def strings(name: str, value: object) -> None:
    """Raises TypeError where it is no list of strings; one string is none, either."""
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise wrong_type(name, "a list of strings", value)
    for index, each in enumerate(value):
        if not isinstance(each, str):
            raise wrong_type(f"{name}[{index}]", "a string", each)


def known(method: str, kind: type[TextRequest[Any]], options: OptionsT, *more: str) -> OptionsT:
    """The options of a call, of which a request of `kind` has a field for each; `more` are its own.

    Raises:
        TypeError: one is misspelt, or another method's.
    """
    there = (*more, *(each.name for each in fields(kind) if each.name != "texts"))
    for name in options:
        if name not in there:
            listed = ", ".join(sorted(there))
            raise TypeError(f"{method}() got an unexpected option {name!r}; there are {listed}")
    return options
