"""Settings of the daemon: command-line flags over `NERVE_*` variables over a YAML file."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, get_origin

from pydantic import model_validator

from nerve.config.problems import parse_yaml, validate
from nerve.config.settings.answers import AnswerSettings
from nerve.config.settings.asynchronous import AsyncSettings
from nerve.config.settings.limits import LimitSettings
from nerve.config.settings.listening import ListenSettings
from nerve.config.settings.observing import ObserveSettings
from nerve.config.settings.repositories import RepositorySettings
from nerve.config.settings.security import SecuritySettings
from nerve.config.settings.tools import McpSettings
from nerve.errors import ConfigInvalid, Problem

ENV_PREFIX = "NERVE_"
ELSEWHERE: Final = frozenset(
    [
        "api_key",
        "cache_dir",
        "client_cert_file",
        "client_key_file",
        "config",
        "grpc",
        "runtime_folder",
        "url",
    ]
)
"""Variables that other commands, clients and examples of ours read."""
MEANT: Final = dict.fromkeys(
    ("models", "model_repository", "model_path", "models_path", "model_dir", "models_dir"),
    "repositories",
)
"""What other servers call our settings, where no word of theirs is in our name."""
_KUBERNETES: Final = re.compile(r"(.+_)?(service_(host|port(_.+)?)|port_\d+_(tcp|udp|sctp)(_.+)?)")
_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://[^/]+:\d+")
_ANY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104  what is said, not what is listened on


class ServerConfig(
    ObserveSettings,
    LimitSettings,
    AsyncSettings,
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

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {
            "http": None if self.disable_http else self.http_port,
            "grpc": None if self.disable_grpc else self.grpc_port,
            "metrics": self.metrics_port,
        }
        for one, other in itertools.combinations([name for name in ports if ports[name]], 2):
            if ports[one] == ports[other] and self._same_address(one, other):
                raise ValueError(
                    f"{one}_port and {other}_port are both {ports[one]}: each needs one of its own"
                )
        return self

    def _same_address(self, one: str, other: str) -> bool:
        """Whether both listeners would take a port of the same address."""
        first, second = (getattr(self, f"{name}_hostname").strip("[]") for name in (one, other))
        if "grpc" not in (one, other) and (":" in first) != (":" in second):
            return False  # gRPC's [::] is IPv4, too
        return first == second or first in _ANY_ADDRESS or second in _ANY_ADDRESS

    @property
    def without_effect(self) -> list[tuple[str, str]]:
        """Settings that were given but do nothing, each with the one that they need."""
        needs = {
            name: "enable_otel" for name in ObserveSettings.model_fields if name[:5] == "otel_"
        }
        needs |= {
            "metrics_hostname": "metrics_port",
            "graph_cache_bytes": "graph_cache",
            "proof_memory_bytes": "prove_models",
        }
        needs |= {
            name: "async_store" for name in AsyncSettings.model_fields if name != "async_store"
        }
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        return [
            (name, needed)
            for name, needed in needs.items()
            if name in given and (getattr(self, needed) is None or getattr(self, needed) is False)
        ]


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
        environment: all variables; those that start with NERVE_ and name a field are read, but for
            `service_links`.
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
    links = service_links(environment)
    for name in ServerConfig.model_fields:
        variable = ENV_PREFIX + name.upper()
        value = environment.get(variable)
        if value is not None and value != "" and variable not in links:
            between = _separator(name)
            merged[name] = value if between is None else value.split(between)
            lines.pop((name,), None)
    merged.update(flags)
    return validate(ServerConfig, merged, source=source, lines=lines)


def service_links(environment: Mapping[str, str]) -> list[str]:
    """Variables of our ports that Kubernetes has set: NERVE_HTTP_PORT=tcp://10.0.0.1:80 for a Service
    `nerve-http`."""
    ports = [
        ENV_PREFIX + name.upper() for name in ServerConfig.model_fields if name.endswith("_port")
    ]
    return [name for name in ports if _SERVICE.fullmatch(environment.get(name, ""))]


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """NERVE_ variables that mean nothing to any of our programs, each with the nearest setting's, or "".

    Those of Kubernetes are left alone: NERVE_SERVICE_HOST, NERVE_PORT=tcp://… and the like for a
    Service `nerve`.
    """
    found = []
    for variable in sorted(environment):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if variable != ENV_PREFIX + name.upper() or name in (
            *ServerConfig.model_fields,
            *ELSEWHERE,
        ):
            continue
        if _KUBERNETES.fullmatch(name) or _SERVICE.fullmatch(environment[variable]):
            continue
        near = _nearest(name)
        found.append((variable, near and ENV_PREFIX + near.upper()))
    return found


def _nearest(name: str) -> str:
    """The setting that was probably meant, or "": by its letters, else by a word that both have."""
    known = [*ServerConfig.model_fields, "config"]
    if name in MEANT:
        return MEANT[name]
    if near := difflib.get_close_matches(name, known, 1, 0.8):
        return near[0]
    words = set(name.split("_"))
    shared = {each: len(words & set(each.split("_"))) for each in known}
    best = max(known, key=lambda each: (shared[each], _likeness(name, each)))
    return best if shared[best] else ""


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
