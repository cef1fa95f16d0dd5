"""How a version gets in: converted, proved in a process of its own, loaded here."""

from __future__ import annotations

import asyncio
import functools
import logging
from pathlib import Path

from nerve.caching.model import cached
from nerve.config.model import ModelConfig
from nerve.config.server import ServerConfig
from nerve.conversion import Converter
from nerve.engine.graph_cache import GraphCache
from nerve.errors import ModelLoadFailed
from nerve.golden import answers_before, check_gate
from nerve.metrics.all import Metrics
from nerve.model import NerModel
from nerve.opening import open_model
from nerve.proof import ForkServer, Prover
from nerve.repository.onnx_file import batch_dependence
from nerve.types import ServedModel, VersionFiles

log = logging.getLogger(__name__)


class ModelLoader:
    """Opens versions for the daemon. `start`, `open` any number, then `aclose`."""

    def __init__(
        self, config: ServerConfig, metrics: Metrics, forks: ForkServer | None = None
    ) -> None:
        """`forks` is where proofs are forked from, if that runs already."""
        self._config, self._metrics = config, metrics
        self._graph_cache = self._new_graph_cache()
        self._prover = self._new_prover(forks)
        self._converter = Converter(
            timeout_s=config.load_timeout_s,
            memory_bytes=config.proof_memory_bytes,
            cache=self._graph_cache,
            fills=self._prover is not None,
        )

    def start(self) -> None:
        """Start the process that proofs are forked from, if there are proofs."""
        if self._prover is not None:
            self._prover.start()

    async def aclose(self) -> None:
        """End that process."""
        if self._prover is not None:
            await self._prover.aclose()

    async def open(self, name: str, files: VersionFiles, config: ModelConfig) -> ServedModel:
        """Convert a version if its config says so, prove it in a process of its own, load it here."""
        alone = config.optimization.batch_invariant
        if not alone and (warning := await asyncio.to_thread(batch_dependence, files)):
            log.warning("model %s: %s", name, warning)
        async with self._converter.converted(name, files, config) as ready:
            return await self._prove_and_load(
                name, ready, config, unconverted=None if ready is files else files
            )

    async def _prove_and_load(
        self,
        name: str,
        files: VersionFiles,
        config: ModelConfig,
        *,
        unconverted: VersionFiles | None,
    ) -> ServedModel:
        graph = None
        if self._prover is not None:
            proof = await self._prover.prove(name, files, config, unconverted=unconverted)
            graph = proof.graph
        limit_s = self._config.load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                before = None
                if self._prover is None:
                    load = functools.partial(
                        open_model, name, config=config, metrics=self._metrics.engines, lean=True
                    )
                    before = await answers_before(unconverted, config, load)
                model = await self._load(name, files, config, graph)
                try:
                    if self._prover is None:
                        await check_gate(model, files, config, before=before)
                except BaseException:
                    await model.aclose()
                    raise
        except TimeoutError:
            fault = f"was not loaded within {limit_s:g} s; raise load_timeout_s"
            raise ModelLoadFailed(fault) from None
        return cached(model, config, self._metrics.caches)

    async def _load(
        self, name: str, files: VersionFiles, config: ModelConfig, graph: Path | None
    ) -> NerModel:
        """Load a version from its optimised graph if there is one, else from its own."""
        metrics, cache = self._metrics.engines, self._graph_cache
        if cache is not None and self._prover is None:
            level = config.optimization.graph_level
            warn = functools.partial(log.warning, "model %s: %s", name)
            graph = await asyncio.to_thread(cache.find, files, level, warn=warn)
        if cache is not None and graph is not None:
            try:
                return await open_model(name, files, config, metrics=metrics, optimised=graph)
            except ModelLoadFailed as error:
                log.warning("model %s: its cached graph %s is not used: %s", name, graph, error)
                await asyncio.to_thread(cache.discard, graph)
        return await open_model(name, files, config, metrics=metrics)

    def _new_prover(self, forks: ForkServer | None) -> Prover | None:
        config = self._config
        if not config.prove_models:
            return None
        if not Prover.possible():
            log.warning("models are loaded without a proof: this system has no fork")
            return None
        return Prover(
            timeout_s=config.load_timeout_s,
            memory_bytes=config.proof_memory_bytes,
            cache=self._graph_cache,
            log_form=config.log_format,
            server=forks,
        )

    def _new_graph_cache(self) -> GraphCache | None:
        folder = self._config.graph_cache
        if folder is None:
            return None
        cache = GraphCache(folder.absolute(), self._config.graph_cache_bytes)
        if refusal := cache.refusal():
            log.warning("optimised graphs are not kept in %s: %s", folder, refusal)
            return None
        return cache
