"""What `nerve validate` finds in a folder, check by check, as values; prints nothing.

The checks are those of a load: the same functions, in the same order, for every version that is
there, served or not.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from nerve.config.model import ModelConfig, QualityGate, load_model_config, load_version_config
from nerve.errors import ConfigInvalid, NerveError, RepositoryInvalid
from nerve.repository.files import printed, told
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import (
    CONFIG_FILES,
    GOLDEN_FILE,
    SIDE_FILES,
    Folder,
    ModelFiles,
    read_model,
    read_models,
    scan,
    version_number,
)
from nerve.repository.selection import select
from nerve.repository.wanted import paths
from nerve.types import VersionFiles

_NUMERIC = re.compile(r"[-+]?[0-9][0-9.]*")
"""What somebody who named a folder so meant as a version."""


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check and what it found: a detail a line, with its fix where something is wrong.

    `model` is empty for what concerns a whole folder, `version` 0 for what concerns a whole model;
    `facts` are the details as numbers and lists.
    """

    name: str
    outcome: Outcome
    details: tuple[str, ...] = ()
    model: str = ""
    version: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a version told when it was loaded and run: `details` in words, `facts` as values."""

    details: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


Try = Callable[[str, VersionFiles, ModelConfig], Awaitable[Tried]]
"""Loads a version and runs it, where a crash harms nobody. Raises NerveError."""


async def check_folder(folder: Path, *, try_model: Try) -> AsyncIterator[Check]:
    """Every check of a repository, a model folder or a version folder, as soon as it is done."""
    try:
        models = await asyncio.to_thread(find_models, folder)
    except RepositoryInvalid as error:
        yield Check("folder", Outcome.FAILED, (error.detail,))
        return
    if not models:
        yield Check("folder", Outcome.FAILED, ("there is no model in it",))
    digests = Digests()
    for files in models:
        async for check in _check_model(files, digests, try_model):
            yield check


def find_models(folder: Path) -> list[ModelFiles]:
    """The models of a folder, whichever of the three kinds it is.

    Raises:
        RepositoryInvalid: it is not there, no folder, or cannot be read.
    """
    try:
        folder.stat()
        listing = scan(folder)
    except FileNotFoundError:
        raise RepositoryInvalid(str(folder), "there is no such folder") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise RepositoryInvalid(str(folder), f"cannot be read: {told(error)}") from error
    models = read_models(listing)
    above = Path(os.path.abspath(folder))  # noqa: PTH100  a link's own name counts, not its target's
    number = version_number(above.name)
    if number and [model.path for model in models] == [listing.path] and 1 in models[0].versions:
        return [read_model(_around(listing, above, number))]
    # Versions and nothing else: a server would take them for models with numbers as names.
    if any(map(version_number, listing.folders)) and not any(
        model.versions and not _NUMERIC.fullmatch(model.path.name) for model in models
    ):
        return [read_model(listing)]
    if not models and (listing.files or listing.faults):
        return [read_model(listing)]  # which tells what it lacks
    return models


def _around(listing: Folder, path: Path, number: int) -> Folder:
    """The model folder that a version folder lies in, with nothing in it but what it shares."""
    names = (*SIDE_FILES, *CONFIG_FILES, GOLDEN_FILE)
    shared = {name: path.parent / name for name in names if (path.parent / name).is_file()}
    return Folder(path.parent, shared, {str(number): listing})


async def _check_model(files: ModelFiles, digests: Digests, try_model: Try) -> AsyncIterator[Check]:
    name = files.name
    for check in _layout(files):
        yield check
    config, check = await asyncio.to_thread(_config, files)
    if files.versions or files.config is not None:
        yield check
    sound = config is not None and not files.problem
    for _, version in sorted(files.versions.items()):
        inspected = (await asyncio.to_thread(inspect_version, version, digests)).files
        check = _contents(inspected, name)
        yield check
        whole = sound and check.outcome is Outcome.OK
        own, own_check = await asyncio.to_thread(_version_config, inspected, config, name)
        if own_check is not None:
            yield own_check
        if whole and own is not None:
            yield await _try(inspected, name, own, try_model)
        else:
            detail = "not tried: mend the above first"
            yield Check("load", Outcome.SKIPPED, (detail,), name, version.number)
    for number in select(files.versions, config).missing if config is not None else ():
        detail = "config.yaml names this version, but there is no such folder"
        yield Check("layout", Outcome.FAILED, (detail,), name, number)


def _layout(files: ModelFiles) -> Iterator[Check]:
    if files.problem:
        yield Check("layout", Outcome.FAILED, (files.problem,), files.name)
    else:
        numbers = ", ".join(map(str, sorted(files.versions)))
        several = "versions" if len(files.versions) > 1 else "version"
        yield Check("layout", Outcome.OK, (f"{several} {numbers}",), files.name)
    if files.warnings:
        yield Check("layout", Outcome.WARNING, files.warnings, files.name)


def _config(files: ModelFiles) -> tuple[ModelConfig | None, Check]:
    """The model's config, None if it has a fault."""
    name = CONFIG_FILES[0] if files.config is None else files.config.name
    try:
        config = load_model_config(files.config, name=files.name)
    except ConfigInvalid as error:
        problems = tuple(map(str, error.problems))
        return None, Check(name, Outcome.FAILED, problems, files.name)
    keys = ", ".join(sorted(config.model_fields_set)) or "nothing"
    detail = "none is there" if files.config is None else f"sets {keys}"
    served = ", ".join(map(str, select(files.versions, config).wanted))
    return config, Check(name, Outcome.OK, (f"{detail}; serves {served or 'nothing'}",), files.name)


def _contents(files: VersionFiles, model: str) -> Check:
    """Whether every file of a version is there, whole and readable; `files` were inspected."""
    if files.problem:
        return Check("files", Outcome.FAILED, (files.problem,), model, files.number)
    found = [path for path in paths(files) if path != files.config]
    shown = ", ".join(printed(path.name) for path in found)
    size_bytes = sum(_size_bytes(path) for path in found)
    detail = f"{shown}: {size_bytes / 1e6:.1f} MB"
    facts = {"size_bytes": size_bytes}
    return Check("files", Outcome.OK, (detail,), model, files.number, facts)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone since it was read
        return 0


def _version_config(
    files: VersionFiles, config: ModelConfig | None, model: str
) -> tuple[ModelConfig | None, Check | None]:
    """The config that a version is loaded with, None if there is none; a check if it has its own."""
    if files.config is None:
        return config, None
    name, number = f"{files.number}/{files.config.name}", files.number
    try:
        own = load_version_config(files.config, config or ModelConfig(), number=number)
    except ConfigInvalid as error:
        problems = tuple(map(str, error.problems))
        return None, Check(name, Outcome.FAILED, problems, model, number)
    return own if config is not None else None, Check(name, Outcome.OK, (), model, number)


async def _try(files: VersionFiles, model: str, config: ModelConfig, try_model: Try) -> Check:
    if files.golden is not None and config.quality_gate is None:
        # tried as well where a crash harms nobody; it is good enough whatever its F1 is
        config = config.model_copy(update={"quality_gate": QualityGate(min_f1=0)})
    try:
        tried = await try_model(model, files, config)
    except NerveError as error:
        return Check("load", Outcome.FAILED, (str(error),), model, files.number)
    except Exception as error:  # noqa: BLE001  boundary: the other versions are checked all the same
        detail = f"{type(error).__name__}: {error}"
        return Check("load", Outcome.FAILED, (detail,), model, files.number)
    return Check("load", Outcome.OK, tried.details, model, files.number, tried.facts)
