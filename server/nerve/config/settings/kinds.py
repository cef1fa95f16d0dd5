"""Kinds of values, and the base of all settings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Part of what `nerve serve` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def lower(value: object) -> object:
    """Names may be written in capitals."""
    return value.lower() if isinstance(value, str) else value


def no_flag(value: object) -> object:
    """YAML's `yes` is true, which would count as 1."""
    if isinstance(value, bool):
        raise ValueError("expected a port number, got a boolean")  # noqa: TRY004  pydantic wants it
    return value


def origin(value: str) -> str:
    """As a browser writes it, or it would never be the same."""
    if not re.fullmatch(r"\*|https?://[^/\s?#@A-Z]+", value):
        raise ValueError(
            f"expected scheme://host[:port] in lower case and without a path, or *, got {value!r:.80}"
        )
    return value


Port = Annotated[int, BeforeValidator(no_flag), Field(ge=0, le=65535)]
