"""Composition root of the daemon: build, start, announce, wait for a signal, drain."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from nerve.caching.model import cached
from nerve.config.model import ModelConfig
from nerve.config.server import ServerConfig
from nerve.conversion import Converter
from nerve.engine.graph_cache import GraphCache
from nerve.engine.session import require_runtime
from nerve.errors import LoadFailed, ModelLoadFailed
from nerve.exchange import Exchanges
from nerve.frontend.guard import Anyone
from nerve.frontend.http.application import build_app
from nerve.frontend.http.baseten import BasetenDialect
from nerve.frontend.http.bei import BeiDialect
from nerve.frontend.http.dialect import Dialect
from nerve.frontend.http.encoderfile import EncoderfileDialect
from nerve.frontend.http.mcp import McpDialect
from nerve.frontend.http.native import NativeDialect
from nerve.frontend.http.openapi import build_document
from nerve.frontend.http.openinference.dialect import OpenInferenceDialect
from nerve.frontend.http.server import HttpServer
from nerve.frontend.mcp import new_server
from nerve.frontend.v2.infer import Inferrer
from nerve.frontend.v2.settings import Settings
from nerve.golden import answers_before, check_gate
from nerve.logs import Logs
from nerve.metrics.cache import CacheMetrics
from nerve.metrics.engine import EngineMetrics
from nerve.metrics.repository import RepositoryMetrics
from nerve.metrics.requests import RequestMetrics
from nerve.model import NerModel
from nerve.opening import open_model
from nerve.proof import Prover
from nerve.repository.catalog import Catalog
from nerve.repository.manager import ModelManager
from nerve.repository.onnx_file import batch_dependence
from nerve.repository.sync import RepositorySync
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService
from nerve.service.tokenization import TokenizationService
from nerve.types import ServedModel, VersionFiles

if TYPE_CHECKING:
    from nerve.frontend.grpc.server import GrpcServer

log = logging.getLogger(__name__)

Announce = Callable[[str], None]


class App:
    """The daemon's parts, wired."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        announce: Announce,
        only_mcp: bool = False,
        load_first: bool = False,
    ) -> None:
        """With `only_mcp` HTTP has /mcp and our own routes, and no other protocol's; with `load_first`
        ports open when all models are loaded, so that whoever can connect is answered.

        Raises:
            SetupError: MCP is enabled, and its SDK is not installed.
        """
        self._config, self._announce = config, announce
        self._unsaid: list[str] | None = [] if load_first else None
        self._http_name = "MCP" if only_mcp else "HTTP"
        self.registry = CollectorRegistry(auto_describe=True)
        metrics = RequestMetrics(self.registry)
        self._exchanges, self._guard = Exchanges([metrics]), Anyone()
        self._engine_metrics = EngineMetrics(self.registry)
        self._cache_metrics = CacheMetrics(self.registry)
        self._graph_cache = self._new_graph_cache()
        self._prover = self._new_prover()
        self._converter = Converter(
            timeout_s=config.load_timeout_s,
            memory_bytes=config.proof_memory_bytes,
            cache=self._graph_cache,
            fills=self._prover is not None,
        )
        self.catalog = Catalog(default_model=config.default_model)
        self.manager = ModelManager(
            open_model=self._open_model,
            catalog=self.catalog,
            load_threads=config.load_threads,
            metrics=RepositoryMetrics(self.registry),
            announce=lambda name, version: self._tell_model(f"Model: {name} v{version}"),
        )
        self.sync = RepositorySync(self.manager, self.catalog, config=config)
        self.inference = InferenceService(self.catalog, config=config, metrics=metrics)
        self._control = control = ControlService(self.catalog, self.sync, config=config)
        self._inferrer = Inferrer(self.inference, config)
        self._settings = Settings(Logs(config.log_level), control)
        self.mcp = (
            new_server(self.inference, control, config, self._exchanges)
            if config.enable_mcp
            else None
        )
        self._mcp_dialect = McpDialect(self.mcp.app, config) if self.mcp else None
        dialects: list[Dialect] = [
            *([] if only_mcp else self._inference_dialects(control)),
            *([self._mcp_dialect] if self._mcp_dialect else []),
            NativeDialect(control, self.registry, describe=lambda: build_document(dialects)),
        ]
        self.http_app = build_app(dialects, self._exchanges, self._guard)
        self.catalog.on_change(self._tell_health)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None

    def _inference_dialects(self, control: ControlService) -> list[Dialect]:
        config = self._config
        return [
            BasetenDialect(self.inference, config),
            BeiDialect(TokenizationService(self.catalog, config=config), control, config),
            EncoderfileDialect(self.inference, config),
            OpenInferenceDialect(
                self.inference,
                control,
                config,
                inferrer=self._inferrer,
                settings=self._settings,
            ),
        ]

    def _new_prover(self) -> Prover | None:
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

    async def _open_model(self, name: str, files: VersionFiles, config: ModelConfig) -> ServedModel:
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
                        open_model, name, config=config, metrics=self._engine_metrics, lean=True
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
        return cached(model, config, self._cache_metrics)

    async def _load(
        self, name: str, files: VersionFiles, config: ModelConfig, graph: Path | None
    ) -> NerModel:
        """Load a version from its optimised graph if there is one, else from its own."""
        metrics, cache = self._engine_metrics, self._graph_cache
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

    async def start(self) -> dict[str, int]:
        """Listen, then load every model; or the other way round. Returns the ports.

        Raises:
            RuntimeMissing, AddressUnavailable, RepositoryInvalid: the server cannot run at all.
        """
        if self._prover is not None:
            self._prover.start()  # imports what we do, at the same time
        require_runtime()
        # Before the first request can come: a model that is still to be loaded is no unknown one.
        await self.sync.find()
        lines, ports = self._unsaid, {}
        if lines is None:
            ports = await self._listen()
        await self._load_all()
        if lines is not None:
            ports, self._unsaid = await self._listen(), None
            for line in lines:
                self._announce(line)
        if self.mcp is not None:
            self.mcp.loaded()
        self.sync.start()
        return ports

    def _tell_model(self, line: str) -> None:
        """Announce it, after the ports."""
        (self._announce if self._unsaid is None else self._unsaid.append)(line)

    async def _listen(self) -> dict[str, int]:
        config, ports = self._config, {}
        if not config.disable_http:
            if self.mcp is not None:
                await self.mcp.start()
            self._http = HttpServer(self.http_app, shutdown_timeout_s=config.shutdown_timeout_s)
            port = await self._http.start(config.http_hostname, config.http_port)
            ports[self._http_name.lower()] = port
            name = self._http_name
            self._announce(f"Starting {name} server on {config.http_hostname}:{port}")
        if not config.disable_grpc:
            self._grpc = self._grpc_server()
            port = await self._grpc.start(config.grpc_hostname, config.grpc_port)
            ports["grpc"] = port
            self._announce(f"Starting gRPC server on {config.grpc_hostname}:{port}")
        return ports

    async def _load_all(self) -> None:
        """Raises LoadFailed: of a model, and that is to end us."""
        causes = await self.sync.load_all()
        if causes and self._config.exit_on_error:
            name = next(iter(causes))
            raise LoadFailed(name, causes[name])
        if not self.catalog.ready:
            log.error("no model is ready; see the reasons above")

    def _tell_health(self) -> None:
        """Have gRPC's health service look again."""
        if self._grpc is not None:
            self._grpc.tell_change()

    def _grpc_server(self) -> GrpcServer:
        # Imported here: a server without gRPC starts faster without it.
        from nerve.frontend.grpc.encoderfile import EncoderfileService  # noqa: PLC0415
        from nerve.frontend.grpc.inference import OpenInferenceService  # noqa: PLC0415
        from nerve.frontend.grpc.nerve import NerveService  # noqa: PLC0415
        from nerve.frontend.grpc.server import GrpcServer  # noqa: PLC0415

        config, control = self._config, self._control
        exchanges, guard = self._exchanges, self._guard
        return GrpcServer(
            [
                EncoderfileService(self.inference, config, exchanges, guard),
                OpenInferenceService(
                    self.inference, control, self._inferrer, self._settings, exchanges, guard
                ),
                NerveService(self.inference, control, config, exchanges, guard),
            ],
            control=control,
            config=config,
            exchanges=exchanges,
            guard=guard,
        )

    async def stop(self) -> None:
        """Stop accepting, finish what is in flight, free the models."""
        self._control.draining = True
        servers = [server for server in (self._http, self._grpc) if server is not None]
        await self.sync.aclose()
        if self._mcp_dialect is not None:
            self._mcp_dialect.drain()
        await asyncio.gather(*(server.stop() for server in servers))
        if self.mcp is not None:
            await self.mcp.aclose()
        await self.inference.aclose()
        await self.manager.aclose()
        if self._prover is not None:
            await self._prover.aclose()
