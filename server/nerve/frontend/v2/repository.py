"""The model repository extension without a transport: index, load and unload, and their parameters.

The parameters come from JSON (HTTP) or typed values (gRPC); both end in the same models here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from nerve.errors import ConfigInvalid, InvalidField, Unsupported, kind_of, shown
from nerve.service.control import ControlService

FILES_REFUSED: Final = "files are not taken over the network; put them into the repository instead"
ParametersT = TypeVar("ParametersT", bound="Parameters")


def _config(value: object) -> object:
    """`config` as the protocol has it, JSON in a string, or as the object itself."""
    if value is None or isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected a JSON object, or its text, got {kind_of(value)}")  # noqa: TRY004  pydantic wants ValueError
    try:
        parsed: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"expected the text of a JSON object, got that of {kind_of(parsed)}")  # noqa: TRY004  as above
    return parsed


class Parameters(BaseModel):
    """Parameters of a call. One that is not known is refused: it would have had a meaning."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, got {kind_of(value)}")  # noqa: TRY004  as above
        for name in value:
            if name.startswith("file:"):
                raise ValueError(f"{shown(name, 60)}: {FILES_REFUSED}")
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"unknown parameter {shown(name, 60)}; known: {known}")
        return value


class LoadParameters(Parameters):
    """What a load may be told."""

    config: Annotated[
        dict[str, object] | None,
        BeforeValidator(_config),
        WithJsonSchema({"type": ["string", "object", "null"]}),
    ] = None
    """Taken in place of config.yaml, with the same keys, until the next load; JSON text (as the
    protocol has it) or the object itself."""


class UnloadParameters(Parameters):
    """What an unload may be told."""

    unload_dependents: bool = False
    """Without effect: no model here is made of others."""
    wait: bool = False
    """Answer when requests in flight have ended and the model is freed; an addition of this
    server."""


def load_parameters(given: Mapping[str, object]) -> LoadParameters:
    """From typed values: bool, int, str, bytes.

    Raises:
        InvalidField: one that is not known, or has the wrong type.
    """
    return _parameters(LoadParameters, given)


def unload_parameters(given: Mapping[str, object]) -> UnloadParameters:
    """From typed values. Raises as `load_parameters`."""
    return _parameters(UnloadParameters, given)


def _parameters(model: type[ParametersT], given: Mapping[str, object]) -> ParametersT:
    try:
        return model.model_validate(dict(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(("parameters", *map(str, first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":
            message = f"{message[:1].lower()}{message[1:]}, got {kind_of(first['input'])}"
        raise InvalidField(field, message) from None


def check_repository(name: str) -> None:
    """Refuse a call that names a repository: nothing here has several that could be told apart.

    Raises:
        Unsupported.
    """
    if name:
        raise Unsupported("naming a repository", "all of them are one here; leave its name out")


async def index(control: ControlService, *, ready: bool) -> list[dict[str, str]]:
    """A row a version, by name and version; `ready` leaves out what is not READY."""
    rows = await control.index(ready_only=ready)
    return [index_row(row.name, row.version, row.state.value, row.reason) for row in rows]


def index_row(name: str, version: int, state: str, reason: str) -> dict[str, str]:
    """A row in the protocol's shape: strings, and only the keys that have a meaning. Pure.

    Version 0 is a model without a usable one; without a reason, too, it was never loaded.
    """
    row = {"name": name}
    if version:
        row["version"] = str(version)
    if version or reason or state != "UNAVAILABLE":
        row["state"] = state
    if reason:
        row["reason"] = reason
    return row


async def load(control: ControlService, name: str, parameters: LoadParameters) -> None:
    """Load a model; returns when it is READY.

    Raises:
        InvalidField: the config that the caller gave is faulty; what `ControlService.load` raises.
    """
    try:
        await control.load(name, config=parameters.config)
    except ConfigInvalid as error:
        # only the caller's own config: one of the disk is a failed load
        faults = "; ".join(map(str, error.problems))
        raise InvalidField("parameters.config", faults) from error


async def unload(control: ControlService, name: str, parameters: UnloadParameters) -> None:
    """Unload a model. Raises what `ControlService.unload` raises."""
    await control.unload(name, wait=parameters.wait)
