"""Encoderfile's build file (`encoderfile: {name, path, model_type, …}`), read and made a plan.

What is written is the business of `install`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nerve.config.problems import parse_yaml, validate
from nerve.errors import ConfigInvalid, Problem
from nerve.importing.encoderfile_files import Search, find_sources
from nerve.importing.encoderfile_keys import KEYS, BuildConfig, Section, TokenizerOptions
from nerve.importing.plan import SCRIPT, VERSION_FOLDER, ImportPlan
from nerve.importing.source import read_text

NO_FILE: Final = "Encoderfile config not found"
"""As Encoderfile says it."""
ROOT: Final = "encoderfile"
"""The one key at the top of a build file."""


class _File(Section):
    encoderfile: BuildConfig


def read_build_config(path: Path, *, directory: Path | None = None) -> BuildConfig:
    """Read a build file, and find the files that it names.

    Args:
        path: the file.
        directory: where relative paths in it start; by default the working directory, as with
            Encoderfile, not the file's own folder.
    Raises:
        ConfigInvalid: every problem of the file and every file that is not there, with its line.
    """
    source = str(path)
    value, lines = parse_yaml(read_text(path, missing=NO_FILE), source=source)
    return checked(value, lines, path=path, directory=directory)


def checked(
    value: dict[str, object],
    lines: Mapping[tuple[int | str, ...], int],
    *,
    path: Path,
    directory: Path | None = None,
) -> BuildConfig:
    """As `read_build_config`, of a file that was parsed before."""
    source, lines = str(path), dict(lines)
    value, warnings = _with_transform(value, lines)
    unknown: list[str] = []
    value = _known(value, (), lines, unknown)
    problems: list[Problem] = []
    config: BuildConfig | None = None
    try:
        config = validate(_File, value, source=source, lines=lines).encoderfile
    except ConfigInvalid as error:
        problems += error.problems
    start = Path.cwd() if directory is None else directory
    search = Search(start, beside=path, lines=lines)
    sources, missing = find_sources(value.get(ROOT), search)
    problems += missing
    if problems or config is None:
        raise ConfigInvalid(source, sorted(problems, key=lambda each: each.line))
    return config.model_copy(
        update={"sources": sources, "source_file": path.name, "warnings": (*warnings, *unknown)}
    )


def plan_of(config: BuildConfig, *, building: bool = False) -> ImportPlan:
    """The model folder that a build file means. Pure.

    Args:
        config: of `read_build_config`.
        building: whether a file is built, for which some keys matter that an import passes over.
    """
    files = {f"{VERSION_FOLDER}/{place}": path for place, path in config.sources.files.items()}
    texts: dict[str, str] = {}
    content: dict[str, object] = {}
    tokenizer = config.tokenizer or TokenizerOptions()
    overrides = {
        "max_length": tokenizer.max_length,
        "truncation_side": tokenizer.truncation_side and tokenizer.truncation_side.value,
    }
    if wanted := {key: value for key, value in overrides.items() if value is not None}:
        content["tokenizer"] = wanted
    if config.sources.script is not None:
        # A file of its own, also for a script from the YAML: editors know .lua, and an error's
        # line is that of the file.
        texts[SCRIPT] = config.sources.script
        content["transform"] = {"path": SCRIPT}
        if config.lua_libs is not None:
            content["lua_libs"] = list(config.lua_libs)
        if not config.validate_transform:
            content["validate_transform"] = False
    return ImportPlan(
        name=config.name,
        files=files,
        config=content,
        notes=(*config.warnings, *config.sources.notes, *_notes(config, building=building)),
        texts=texts,
        version=config.version,
        head=(f"{config.name} {config.version}, from {config.source_file} (Encoderfile)",),
    )


def _with_transform(
    value: dict[str, object], lines: dict[tuple[int | str, ...], int]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """A `transform` beside `encoderfile:`, as Encoderfile's own pages show it, moved below it."""
    inner = value.get(ROOT)
    if "transform" not in value or not isinstance(inner, dict):
        return value, ()
    at = f"line {lines.get(('transform',), 0)}: transform stands beside {ROOT}:, not below it"
    rest = {key: each for key, each in value.items() if key != "transform"}
    if inner.get("transform") is not None:
        return rest, (f"{at}; the one below it is taken",)
    found = [(path, line) for path, line in lines.items() if path[0:1] == ("transform",)]
    lines |= {(ROOT, *path): line for path, line in found}
    moved = {**inner, "transform": value["transform"]}
    return {**rest, ROOT: moved}, (f"{at}; it is taken all the same, Encoderfile would not",)


def _known(
    value: dict[str, object],
    path: tuple[str, ...],
    lines: Mapping[tuple[int | str, ...], int],
    unknown: list[str],
) -> dict[str, object]:
    """The keys that mean something; a sentence on each other joins `unknown`."""
    known = KEYS.get(path)
    if known is None:
        return value
    kept: dict[str, object] = {}
    for key, each in value.items():
        here = (*path, key)
        if key not in known:
            # Lines are found by what is written: `1`, not the number that it means.
            line = lines.get((*path, str(key)), 0)
            at = f"line {line}: " if line else ""
            unknown.append(f"{at}{'.'.join(map(str, here))} is no key of Encoderfile's")
        else:
            kept[key] = _known(each, here, lines, unknown) if isinstance(each, dict) else each
    return kept


def _notes(config: BuildConfig, *, building: bool) -> Iterator[str]:
    """What of a valid build file means nothing here, or something else."""
    tokenizer = config.tokenizer or TokenizerOptions()
    if not building:
        yield (
            f"version {config.version} is kept as a comment in config.yaml: versions here are "
            f"numbered folders, and this model is version {VERSION_FOLDER}"
        )
        for key in ("output_path", "target", "cache_dir", "base_binary_path"):
            if getattr(config, key) is not None:
                yield f"{key} is only for `nerve build`"
    if config.path.preprocessor_config_path is not None:
        yield "path.preprocessor_config_path has no meaning for token_classification"
    if tokenizer.pad_strategy is not None:
        yield (
            "tokenizer.pad_strategy is not taken: padding changes no answer here, and batches are "
            "padded as suits the device (optimization.gpu.shape_buckets in config.yaml)"
        )
    if tokenizer.truncation_strategy is not None:
        yield (
            f"tokenizer.truncation_strategy {tokenizer.truncation_strategy} is not taken: it is "
            "about pairs of texts, and here each stands alone"
        )
    if tokenizer.stride is not None:
        yield (
            f"tokenizer.stride is not taken: Encoderfile cuts long texts whatever it is; to have "
            f"them tagged whole, in windows that share {tokenizer.stride or 32} tokens, set "
            f"tokenizer.stride: {tokenizer.stride or 32} in config.yaml"
        )
    if config.lua_libs is not None and config.transform is None:
        yield "lua_libs has no effect without a transform"
