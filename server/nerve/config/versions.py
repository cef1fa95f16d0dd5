"""The sections of `config.yaml` that say which versions are served, and to whom."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from nerve.config.running import Section


class LatestVersions(Section):
    """Serve the newest versions."""

    num_versions: Annotated[int, Field(strict=True, ge=1)] = 1
    """How many, counted from the highest number."""


class AllVersions(Section):
    """Serve every version in the folder."""


class SpecificVersions(Section):
    """Serve exactly these versions."""

    versions: Annotated[list[Annotated[int, Field(strict=True, ge=1)]], Field(min_length=1)]
    """Their numbers; one that is missing is listed UNAVAILABLE, the others are served."""


class VersionPolicy(Section):
    """Which version folders are served: exactly one of the three keys."""

    latest: LatestVersions | None = None
    """The newest ones; the default, with one version."""
    all: AllVersions | None = None
    """Every one."""
    specific: SpecificVersions | None = None
    """Those that are listed."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("latest", "all", "specific") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "exactly one of latest, all, specific is needed, "
                f"got {' and '.join(given) if given else 'none'}"
            )
        return self


def policy_shorthand(value: object) -> object:
    """`version_policy: all` and `latest` mean the same with an empty mapping."""
    return {value: {}} if value in ("all", "latest") else value


_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def _version_key(value: object) -> object:
    """Versions as keys: YAML and JSON write them as text or number."""
    if isinstance(value, bool) or (isinstance(value, str) and not _VERSION.fullmatch(value)):
        raise ValueError(f"expected a version number, got {value!r}")
    return value


Version = Annotated[int, BeforeValidator(_version_key), Field(ge=1)]


class Routing(Section):
    """Which versions answer requests that name none. Versions named here are served in addition to
    those of version_policy."""

    weights: Annotated[
        dict[Version, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)
    ]
    """Share of the requests by version, of any sum; a version that is not READY gets none."""

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError("at least one weight must be over 0")
        return self


class Shadow(Section):
    """A version that gets copies of requests, served in addition to those of version_policy; its
    answers are only compared and counted."""

    version: Annotated[int, Field(strict=True, ge=1)]
    """The version that gets the copies; it answers only requests that name it."""
    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the requests without a version that are copied."""
