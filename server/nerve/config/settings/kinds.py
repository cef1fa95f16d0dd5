"""Kinds of values, and the base of all settings."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Part of what `nerve serve` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def lower(value: object) -> object:
    """Names may be written in capitals."""
    return value.lower() if isinstance(value, str) else value


def words(value: object) -> object:
    """A list of names, also separated by commas, in whatever case; "none" and empty ones are nothing."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return value
    names = [name.strip().lower() for each in value for name in each.split(",")]
    return [name for name in dict.fromkeys(names) if name not in ("", "none")]


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


def collector(value: str) -> str:
    """Where traces are sent to."""
    try:
        parts = urlsplit(value)
        there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        there = False
    if not there or re.search(r"\s", value):
        raise ValueError(
            f"expected http://host:port, https://host:port or either with a path, got {value!r:.80}"
        )
    return value


def job_store(value: str) -> str:
    """A file, or the URL of a PostgreSQL database."""
    scheme, separator, _ = value.partition("://")
    if separator and scheme not in ("postgresql", "postgres"):
        raise ValueError(
            f"expected a file, or postgresql://user:password@host:port/database, got {scheme!r}://…"
        )
    if not value:
        raise ValueError("expected a file, or postgresql://…, got nothing")
    return value


def network(value: object) -> IPv4Network | IPv6Network:
    """A network, or one address."""
    try:
        return ip_network(value if isinstance(value, str) else str(value))
    except ValueError as error:
        fault = "" if "/" not in str(value) else f": {error}"
        raise ValueError(f"expected a network as 10.0.0.0/8, got {value!r:.60}{fault}") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(network)]
Port = Annotated[int, BeforeValidator(no_flag), Field(ge=0, le=65535)]
