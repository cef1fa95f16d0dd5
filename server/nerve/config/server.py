"""Settings of the daemon: command-line flags over `NERVE_*` variables over a YAML file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self, get_origin

from pydantic import model_validator

from nerve.config.problems import parse_yaml, validate
from nerve.config.settings.answers import AnswerSettings
from nerve.config.settings.limits import LimitSettings
from nerve.config.settings.listening import ListenSettings
from nerve.config.settings.observing import ObserveSettings
from nerve.config.settings.repositories import RepositorySettings
from nerve.config.settings.security import SecuritySettings
from nerve.config.settings.tools import McpSettings
from nerve.errors import ConfigInvalid, Problem

ENV_PREFIX = "NERVE_"


class ServerConfig(
    ObserveSettings,
    LimitSettings,
    AnswerSettings,
    McpSettings,
    SecuritySettings,
    ListenSettings,
    RepositorySettings,
):
    """Everything that `nerve serve` can be told. Each key is also a `NERVE_<KEY>` variable."""

    @model_validator(mode="after")
    def _mcp_has_a_door(self) -> Self:
        if self.enable_mcp and self.disable_http:
            raise ValueError(
                "enable_mcp offers /mcp on the port of HTTP, which is disabled; `nerve mcp` has one "
                "of its own"
            )
        return self


def _separator(name: str) -> str | None:
    """What separates the items of a setting in its variable; None if it is no list."""
    if get_origin(ServerConfig.model_fields[name].annotation) is not list:
        return None
    return os.pathsep if name == "repositories" else ","


def load_server_config(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None
) -> ServerConfig:
    """Merge the three sources; a flag wins over a variable, a variable over the file.

    Args:
        flags: only those that were given, named as the fields.
        environment: all variables; those that start with NERVE_ and name a field are read.
        file: YAML with the fields as keys, or None.
    Raises:
        ConfigInvalid: every problem at once.
    """
    merged: dict[str, object] = {}
    lines: dict[tuple[int | str, ...], int] = {}
    source = "settings"
    if file is not None:
        source = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ConfigInvalid(source, [Problem("", f"cannot be read: {detail}")]) from error
        merged, lines = parse_yaml(text, source=source)
    for name in ServerConfig.model_fields:
        value = environment.get(ENV_PREFIX + name.upper())
        if value is not None and value != "":
            between = _separator(name)
            merged[name] = value if between is None else value.split(between)
            lines.pop((name,), None)
    merged.update(flags)
    return validate(ServerConfig, merged, source=source, lines=lines)


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """NERVE_ variables that name no setting but nearly do, with the nearest one.

    Others are left alone: Kubernetes sets NERVE_SERVICE_HOST and the like for a service `nerve`.
    """
    known = [ENV_PREFIX + name.upper() for name in (*ServerConfig.model_fields, "config")]
    found = []
    for name in sorted(environment):
        if name.startswith(ENV_PREFIX) and name not in known:
            found += [(name, near) for near in difflib.get_close_matches(name, known, 1, 0.85)]
    return found
