"""One version of a model folder, loaded in this process with a config of one's choice."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from nerve.cli.checkup import find_models
from nerve.cli.drive import RequestFailed
from nerve.config.model import ModelConfig, load_model_config, load_version_config
from nerve.conversion import Converter
from nerve.engine.memory import map_large_blocks
from nerve.engine.session import require_runtime
from nerve.errors import InvalidField, ModelLoadFailed, NerveError
from nerve.golden import answers_before, check_gate
from nerve.metrics.engine import EngineMetrics
from nerve.model import NerModel
from nerve.opening import open_model
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import CONFIG_FILES
from nerve.repository.selection import select
from nerve.types import EngineStatistics, SpanOptions, VersionFiles
from nerve.words import Strategy

LOAD_TIMEOUT_S: Final = 600.0
"""For a load, and again for a conversion: somebody looks on, and can break it off."""
_OPTIONS: Final = SpanOptions(Strategy.MAX)


@dataclass(frozen=True, slots=True)
class Source:
    """A version on the disk. `config` is what it is loaded with, `model_config` the model's part."""

    name: str
    folder: Path
    files: VersionFiles
    config: ModelConfig
    model_config: ModelConfig
    config_file: Path
    """The model's config.yaml, whether it is there or not."""

    def config_of(self, model: ModelConfig) -> ModelConfig:
        """What this version would be loaded with if the model's config were `model`."""
        own = self.files.config
        return model if own is None else load_version_config(own, model, number=self.files.number)


def find_source(folder: Path) -> Source:
    """The version that a server would answer from, of the one model in a folder.

    Args:
        folder: a model folder, a version folder, or a repository with one model.
    Raises:
        RepositoryInvalid, ConfigInvalid: it cannot be read.
        InvalidField: there is no model in it, or there are several.
        ModelLoadFailed: no version can be served.
    """
    models = find_models(folder)
    if len(models) != 1:
        names = ", ".join(str(model.path) for model in models)
        detail = f"name one of its models: {names}" if models else "there is no model in it"
        raise InvalidField("MODEL", f"{folder}: {detail}")
    (model,) = models
    if model.problem:
        raise ModelLoadFailed(model.problem)
    config = load_model_config(model.config, name=model.name)
    selection = select(model.versions, config)
    numbers = [number for number in selection.wanted if number != selection.shadow]
    if not numbers:
        raise ModelLoadFailed("its version_policy chooses no version that is there")
    files = inspect_version(model.versions[numbers[-1]], Digests()).files
    if files.problem:
        raise ModelLoadFailed(files.problem)
    place = model.config or model.path / CONFIG_FILES[0]
    source = Source(model.name, model.path, files, config, config, place)
    own = source.config_of(config)
    return Source(model.name, model.path, files, own, config, place)


class LocalTarget:
    """`nerve.cli.drive.Target` on a model in this process."""

    def __init__(self, model: NerModel) -> None:
        self.model = model

    async def send(self, texts: Sequence[str]) -> None:
        """See `Target.send`; entities are made of them, as a server does."""
        try:
            await self.model.spans(texts, _OPTIONS, deadline=None)
        except NerveError as error:
            raise RequestFailed(error.reason, str(error)) from None

    async def statistics(self) -> EngineStatistics:
        """See `Target.statistics`."""
        return self.model.statistics()


@asynccontextmanager
async def open_local(
    source: Source, config: ModelConfig, converter: Converter | None = None
) -> AsyncIterator[LocalTarget]:
    """Load a version as a server does, golden.jsonl included, but for the proof: nothing else
    depends on this process.

    Args:
        source: the version.
        config: to load it with.
        converter: for `optimization.precision`; one that has a cache converts once.
    Raises:
        ModelLoadFailed, RuntimeMissing: with the reason.
    """
    require_runtime()
    map_large_blocks()
    convert = converter or Converter(timeout_s=LOAD_TIMEOUT_S, memory_bytes=None)
    async with convert.converted(source.name, source.files, config) as ready:
        unconverted = None if ready is source.files else source.files
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                model = await _load(source.name, ready, config, unconverted)
        except TimeoutError:
            fault = f"was not loaded within {LOAD_TIMEOUT_S:g} s"
            raise ModelLoadFailed(fault) from None
    try:
        yield LocalTarget(model)
    finally:
        await model.aclose()


async def _load(
    name: str, files: VersionFiles, config: ModelConfig, unconverted: VersionFiles | None
) -> NerModel:
    # Counted where nobody looks: `statistics` tells what is wanted.
    load = functools.partial(
        open_model, name, config=config, metrics=EngineMetrics(CollectorRegistry())
    )
    before = await answers_before(unconverted, config, functools.partial(load, lean=True))
    model = await load(files)
    try:
        await check_gate(model, files, config, before=before)
    except BaseException:
        await model.aclose()
        raise
    return model
