"""The keys of `config.yaml` about a model's transform, and how its script file is read.

What a script may do is the business of `nerve.pipeline.transform`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nerve.config.running import Section
from nerve.words import LUA_LIBS, UNSAFE_LUA_LIBS

MAX_SCRIPT_BYTES: Final = 128 * 1024


def _is_inside(path: str) -> bool:
    place = Path(path)
    return not place.is_absolute() and ".." not in place.parts and place.suffix == ".lua"


def _inside(path: str) -> str:
    if not _is_inside(path):
        raise ValueError(
            f"expected the name of a .lua file in the folder of config.yaml, got {path!r:.80}"
        )
    return path


class Transform(Section):
    """A Lua script with a function `Postprocess`: between `script` and `path` there is one choice."""

    script: Annotated[str, Field(min_length=1)] | None = None
    """Its text. `transform: TEXT` means the same."""
    path: Annotated[str, Field(min_length=1), AfterValidator(_inside)] | None = None
    """A .lua file in the folder of this config.yaml; a change of it reloads the model."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.script is None and self.path is None:
            raise ValueError("script or path is needed")
        return self

    @property
    def text(self) -> str:
        """What is run, without white space around it, as Encoderfile embeds it."""
        return (self.script or "").strip()


def _inline(value: object) -> object:
    return {"script": value} if isinstance(value, str) else value


TransformOrText = Annotated[
    Transform, BeforeValidator(_inline, json_schema_input_type=Transform | str)
]


def _known_lib(name: object) -> object:
    if name in UNSAFE_LUA_LIBS:
        raise ValueError(
            f"{name} is not available here: a transform reaches nothing outside of itself; "
            f"there are {', '.join(LUA_LIBS)}"
        )
    if name not in LUA_LIBS:
        raise ValueError(f"unknown Lua stdlib: {name!s:.40}; there are {', '.join(LUA_LIBS)}")
    return name


LuaLib = Annotated[
    str, BeforeValidator(_known_lib), Field(json_schema_extra={"enum": list(LUA_LIBS)})
]


class TransformLimits(Section):
    """What one request's run of the transform may take; the error that names the limit is that
    request's alone."""

    max_instructions: Annotated[int, Field(strict=True, ge=1_000, le=10**12)] = 100_000_000
    """Instructions of Lua's virtual machine."""
    timeout_microseconds: Annotated[int, Field(strict=True, ge=1_000, le=60_000_000)] = 2_000_000
    """Wall time."""
    max_memory_bytes: Annotated[int, Field(strict=True, ge=1 << 20, le=1 << 36)] = 256 << 20
    """Memory of the script's values, tensors included."""


class TransformOutput(StrEnum):
    """What the numbers are that a transform returns."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


def with_script(value: Mapping[str, object], folder: Path) -> Mapping[str, object]:
    """A config's content with the text of the file that `transform.path` names in it.

    Args:
        value: as it was read; what is wrong in other ways is left for the validation to tell.
        folder: of the config.yaml.
    Raises:
        ValueError: the file cannot be used.
    """
    transform = value.get("transform")
    if not isinstance(transform, Mapping) or not isinstance(path := transform.get("path"), str):
        return value
    if "script" in transform:
        raise ValueError("either script or path, not both")
    if not _is_inside(path):
        return value
    return {**value, "transform": {**transform, "script": _script(path, folder)}}


def _script(path: str, folder: Path) -> str:
    place = folder / path
    try:
        if not place.resolve().is_relative_to(folder.resolve()):
            fault = "is a link that leads out of the model's folder; copy the file"
            raise ValueError(f"{path} {fault}")
        with place.open("rb") as file:
            content = file.read(MAX_SCRIPT_BYTES + 1)
        text = content.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except FileNotFoundError:
        raise ValueError(f"{path} is not in the folder of config.yaml") from None
    except (OSError, RuntimeError) as error:
        fault = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path} cannot be read: {fault}") from None
    if len(content) > MAX_SCRIPT_BYTES:
        raise ValueError(f"{path} is over {MAX_SCRIPT_BYTES} bytes")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text
