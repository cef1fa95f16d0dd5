"""The keys of Encoderfile's build file, as strictly typed as there (mozilla-ai/encoderfile 0.7.0).

Which files they mean is found elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nerve.config.transform import LuaLib
from nerve.importing.encoderfile_files import Sources
from nerve.importing.plan import name_fault
from nerve.words import Side

MODEL_TYPE: Final = "token_classification"
OTHER_TYPES: Final = (
    "embedding", "sequence_classification", "sentence_embedding", "image_classification",
)  # fmt: skip
_PATH_KEYS: Final = ("model_config_path", "model_weights_path", "tokenizer_path")
KEYS: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    (): frozenset({"encoderfile"}),
    ("encoderfile",): frozenset(
        {"name", "version", "path", "model_type", "output_path", "cache_dir", "base_binary_path",
         "target", "transform", "lua_libs", "validate_transform", "tokenizer"}
    ),
    ("encoderfile", "path"): frozenset(
        {*_PATH_KEYS, "tokenizer_config_path", "preprocessor_config_path"}
    ),
    ("encoderfile", "transform"): frozenset({"path"}),
    ("encoderfile", "tokenizer"): frozenset(
        {"pad_strategy", "truncation_side", "truncation_strategy", "max_length", "stride"}
    ),
    ("encoderfile", "tokenizer", "pad_strategy"): frozenset({"fixed"}),
}  # fmt: skip
"""The keys of each mapping; Encoderfile passes over all others without a word."""


def _given(value: object) -> str:
    """What stands there. A list or mapping of YAML may hold itself: its repr has no end."""
    scalar = isinstance(value, str | int | float | bool | None)
    return f"{value!r:.60}" if scalar else f"a {type(value).__name__}"


def _text(value: object) -> object:
    """Encoderfile takes no number for a text: `version: 1.0` is refused there as well."""
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, got {_given(value)}; write it in quotes")


Text = Annotated[str, BeforeValidator(_text)]


class Section(BaseModel):
    """Frozen. Unknown keys were taken out before, each with a warning."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelPaths(Section):
    """Where the model is: a folder, or its files one by one."""

    folder: Text | None = None
    """An export folder. `path: FOLDER` means it."""
    model_config_path: Text | None = None
    """config.json."""
    model_weights_path: Text | None = None
    """The graph, with its data files beside it."""
    tokenizer_path: Text | None = None
    """tokenizer.json."""
    tokenizer_config_path: Text | None = None
    """tokenizer_config.json."""
    preprocessor_config_path: Text | None = None
    """Of image models, which are not served here."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [key for key in _PATH_KEYS if self.folder is None and getattr(self, key) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing: {_PATH_FORMS}")
        return self


_PATH_FORMS: Final = f"expected a folder, or a mapping with {', '.join(_PATH_KEYS)}"


def _paths(value: object) -> object:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"folder": value}
    raise ValueError(f"{_PATH_FORMS}, got {_given(value)}")


class ScriptFile(Section):
    """A script: its text, or the file that it is in."""

    text: Text | None = None
    """`transform: TEXT` means it."""
    path: Text | None = None
    """A file of Lua."""


def _script(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if value is not None and not (isinstance(value, dict) and value.get("path") is not None):
        raise ValueError(f"expected a Lua script, or {{path: FILE}}, got {_given(value)}")
    return value


class Padding(Section):
    """Encoderfile's `pad_strategy: {fixed: N}`."""

    fixed: Annotated[int, Field(strict=True, ge=0)]
    """Least length in tokens."""


def _padding(value: object) -> object:
    """`batch_longest`, the default, can be said there with null only."""
    if value == "batch_longest":
        return None
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"expected {{fixed: N}} or batch_longest, got {_given(value)}")
    return value


class TokenizerOptions(Section):
    """The `tokenizer` block."""

    pad_strategy: Annotated[Padding | None, BeforeValidator(_padding)] = None
    """How texts of one request are padded; None: to the longest."""
    truncation_side: Side | None = None
    """The end of a long text that is cut off."""
    truncation_strategy: Literal["longest_first", "only_first", "only_second"] | None = None
    """Of a pair of texts; here there is always one."""
    max_length: Annotated[int, Field(strict=True, ge=3)] | None = None
    """Longest row in tokens, special ones counted."""
    stride: Annotated[int, Field(strict=True, ge=0)] | None = None
    """Tokens by which what is cut off overlaps with what stays; Encoderfile drops the former."""


def _name(value: object) -> object:
    if isinstance(value, str) and (fault := name_fault(value)):
        raise ValueError(fault)
    return _text(value)


def _model_type(value: object) -> object:
    if value in OTHER_TYPES:
        raise ValueError(f"{value} models are not served here, only {MODEL_TYPE}")
    if value != MODEL_TYPE:
        raise ValueError(f"expected {MODEL_TYPE}, got {_given(value)}")
    return value


class BuildConfig(Section):
    """What stands below `encoderfile:`, and the files that it means."""

    name: Annotated[str, BeforeValidator(_name)]
    """Of the model; answers have it as model_id."""
    version: Text = "0.2.0"
    """For people."""
    path: Annotated[ModelPaths, BeforeValidator(_paths)]
    """The model's files."""
    model_type: Annotated[Literal["token_classification"], BeforeValidator(_model_type)]
    """What the model is for."""
    output_path: Text | None = None
    """Where `build` writes; None: ./NAME.encoderfile."""
    cache_dir: Text | None = None
    """Of Encoderfile's builder."""
    base_binary_path: Text | None = None
    """Of Encoderfile's builder."""
    target: Text | None = None
    """The platform that the built file is for; None: this one."""
    transform: Annotated[ScriptFile | None, BeforeValidator(_script)] = None
    """A Lua script."""
    lua_libs: list[LuaLib] | None = None
    """Libraries that the script may use; None: table, string, math."""
    validate_transform: Annotated[bool, Field(strict=True)] = True
    """Whether the script is tried on random scores first."""
    tokenizer: TokenizerOptions | None = None
    """Overrides of what the export folder says."""
    sources: Sources = Sources()
    """What was found for `path` and `transform`; no key of the file."""
    source_file: str = ""
    """The build file's name, for messages; no key of the file."""
    warnings: tuple[str, ...] = ()
    """What Encoderfile would pass over without a word; no key of the file."""
