"""`config.yaml` of one model: what it may hold, its defaults, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from nerve.config.cache import ResponseCache, cache_shorthand
from nerve.config.problems import parse_yaml, validate
from nerve.config.running import DynamicBatching, InstanceGroup, Optimization, Section
from nerve.config.transform import (
    LuaLib,
    TransformLimits,
    TransformOrText,
    TransformOutput,
    with_script,
)
from nerve.config.versions import (
    LatestVersions,
    Routing,
    Shadow,
    VersionPolicy,
    policy_shorthand,
)
from nerve.errors import ConfigInvalid, Problem
from nerve.words import OffsetUnit, Side, Strategy

MAX_CONFIG_BYTES = 128 * 1024


def _one_group(value: object) -> object:
    """A single mapping means a list of one, as people write it."""
    return [value] if isinstance(value, dict) else value


class TokenizerConfig(Section):
    """Overrides of what the export folder says about its tokenizer."""

    max_length: Annotated[int, Field(strict=True, ge=3)] | None = None
    """Longest row in tokens, special ones counted; by default what the model's files allow."""
    truncation_side: Side | None = None
    """The end of a long text that is cut off; by default what tokenizer_config.json says."""
    stride: Annotated[int, Field(strict=True, ge=0)] | None = None
    """When set, long texts are not cut but tagged whole, in windows that share so many tokens."""
    add_special_tokens: bool = True
    """Whether [CLS], [SEP] and their like are put around a text."""


class WarmupSample(Section):
    """A run before the version is READY; one that fails keeps it from being served."""

    name: str = ""
    """For the log."""
    text: str = "Nerve warms up with Ada Lovelace in London."
    """What is run."""
    batch_size: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    """Rows of the run, each with the same text."""
    count: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    """How often."""


class QualityGate(Section):
    """A version that finds less of `golden.jsonl` than this is not served."""

    min_f1: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    """Least micro-averaged F1 over entities (span and label) of golden.jsonl beside the model."""


class ModelConfig(Section):
    """`config.yaml` beside the version folders. Every key is optional: the export folder tells
    what the model is, this file only overrides."""

    name: str | None = None
    """Must equal the folder's name when given."""
    task: Literal["token-classification"] = "token-classification"
    """The only task that this server knows."""
    version_policy: Annotated[
        VersionPolicy,
        BeforeValidator(
            policy_shorthand, json_schema_input_type=VersionPolicy | Literal["latest", "all"]
        ),
    ] = VersionPolicy(latest=LatestVersions())
    """Which versions are served."""
    max_batch_size: Annotated[int, Field(strict=True, ge=1, le=4096)] = 32
    """Most rows in one run."""
    max_num_tokens: Annotated[int, Field(strict=True, ge=8)] = 8192
    """Most tokens in one run, padding included. Also bounds the length of one row."""
    dynamic_batching: DynamicBatching = DynamicBatching()
    """How requests are merged into runs."""
    instance_group: Annotated[
        list[InstanceGroup],
        Field(min_length=1),
        BeforeValidator(_one_group, json_schema_input_type=InstanceGroup | list[InstanceGroup]),
    ] = [InstanceGroup()]  # noqa: RUF012  pydantic copies defaults
    """Where the model runs, and how often at the same time."""
    optimization: Optimization = Optimization()
    """ONNX Runtime session options."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Overrides for the tokenizer."""
    labels: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the model's labels in the order of its output; by default id2label of config.json."""
    transform: TransformOrText | None = None
    """A Lua script that changes the scores of each request before labels are chosen."""
    lua_libs: list[LuaLib] | None = None
    """Libraries of Lua that the script may use beside the base; by default table, string, math."""
    validate_transform: bool = True
    """Try the script on random scores before the version is READY."""
    transform_limits: TransformLimits = TransformLimits()
    """What a run of the script may take."""
    transform_output: TransformOutput | None = None
    """Whether routes with probabilities take the script's numbers for logits or for probabilities;
    by default what the trial shows: numbers from 0 to 1 that sum to 1 for each token."""
    aggregation_strategy: Strategy | None = None
    """Strategy for requests that name none; by default the dialect's own."""
    offset_unit: OffsetUnit | None = None
    """What start and end count, for requests that do not say; by default the dialect's own:
    bytes on Encoderfile's routes, code points elsewhere."""
    response_cache: Annotated[
        ResponseCache,
        BeforeValidator(cache_shorthand, json_schema_input_type=ResponseCache | bool),
    ] = ResponseCache()
    """Answers that are kept; nothing is by default."""
    model_warmup: list[WarmupSample] = [WarmupSample()]  # noqa: RUF012  as above
    """Runs before the version is READY."""
    quality_gate: QualityGate | None = None
    """A check against golden.jsonl before the version is READY."""
    routing: Routing | None = None
    """How requests without a version are split; by default the highest READY version answers."""
    shadow: Shadow | None = None
    """A version that is tried with copies of real requests."""

    @field_validator("response_cache")
    @classmethod
    def _transform_may_be_cached(
        cls, cache: ResponseCache, config: ValidationInfo
    ) -> ResponseCache:
        if cache.enable and not cache.with_transform and config.data.get("transform") is not None:
            raise ValueError(
                "a transform sees all texts of a request together and need not answer alike twice; "
                "add with_transform: true if what it makes of a text depends on that text alone"
            )
        return cache


SERVING_KEYS: Final = frozenset({"name", "task", "version_policy", "routing", "shadow"})
"""Keys that say which versions serve, not what a loaded version is: a change of one of them
reloads nothing, and a version's own config.yaml may not hold them."""


REPLACED_KEYS: Final = frozenset({"transform"})
"""Mappings of which a version's own replaces the model's, instead of being laid over it."""


def load_model_config(
    path: Path | None,
    *,
    name: str,
    override: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> ModelConfig:
    """Read `config.yaml`.

    Args:
        path: the file, or None for a model without one.
        name: the model folder's name.
        override: what to take in place of the file's content, with the same keys.
        folder: the model's, in which an override's `transform.path` lies; without one that file
            is not read.
    Raises:
        ConfigInvalid: every problem of the file, each with its path and line.
    """
    lines: dict[tuple[int | str, ...], int] = {}
    value: Mapping[str, object]
    if override is not None:
        source, value = "config override", override
        home = folder
    elif path is None:
        return ModelConfig()
    else:
        source = path.name
        value, lines = _read(path, source)
        home = path.parent
    stated = value.get("name")
    problems = []
    if isinstance(stated, str) and stated != name:
        fault = f"is {stated!r}, but the model's folder is {name!r}; make them equal"
        problems.append(Problem("name", fault, lines.get(("name",), 0)))
    return _validated(_with_script(value, home, lines, problems), source, lines, problems)


def load_version_config(path: Path, model: ModelConfig, *, number: int) -> ModelConfig:
    """Read a version's own `config.yaml` and lay it over the model's, mapping by mapping.

    Raises:
        ConfigInvalid: every problem of the file, each with its path and line.
    """
    source = f"{number}/{path.name}"
    value: Mapping[str, object]
    value, lines = _read(path, source)
    problems = [
        Problem(
            key, "belongs into the model's config.yaml, not into a version's", lines.get((key,), 0)
        )
        for key in value
        if key in SERVING_KEYS
    ]
    value = _with_script(value, path.parent, lines, problems)
    merged = _laid_over(model.model_dump(exclude_unset=True), value)
    return _validated(merged, source, lines, problems)


def _read(path: Path, source: str) -> tuple[dict[str, object], dict[tuple[int | str, ...], int]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ConfigInvalid(source, [Problem("", f"is over {MAX_CONFIG_BYTES} bytes")])
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigInvalid(source, [Problem("", f"is not UTF-8: {error.reason}")]) from error
    except OSError as error:
        raise ConfigInvalid(source, [Problem("", f"cannot be read: {error.strerror}")]) from error
    return parse_yaml(text, source=source)


def _with_script(
    value: Mapping[str, object],
    folder: Path | None,
    lines: Mapping[tuple[int | str, ...], int],
    problems: list[Problem],
) -> Mapping[str, object]:
    """`value` with the script that it names in it; what is wrong with that joins `problems`."""
    if folder is None:
        return value
    try:
        return with_script(value, folder)
    except ValueError as error:
        line = lines.get(("transform", "path"), 0)
        problems.append(Problem("transform.path", str(error), line))
        return value


def _validated(
    value: Mapping[str, object],
    source: str,
    lines: Mapping[tuple[int | str, ...], int],
    problems: list[Problem],
) -> ModelConfig:
    try:
        config = validate(ModelConfig, value, source=source, lines=lines)
    except ConfigInvalid as error:
        problems += error.problems
    if problems:
        raise ConfigInvalid(source, sorted(problems, key=lambda each: each.line))
    return config


def _laid_over(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if key not in REPLACED_KEYS and isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _laid_over(below, value)
        else:
            merged[key] = value
    return merged
