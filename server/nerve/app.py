"""Composition root of the daemon: build, start, announce, wait for a signal, drain."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig
from nerve.config.server import ServerConfig
from nerve.conversion import Converter
from nerve.engine.graph_cache import GraphCache
from nerve.engine.memory import map_large_blocks
from nerve.engine.session import require_runtime
from nerve.errors import LoadFailed, ModelLoadFailed
from nerve.frontend.http.baseten import BasetenDialect
from nerve.frontend.http.bei import BeiDialect
from nerve.frontend.http.dialect import Dialect
from nerve.frontend.http.encoderfile import EncoderfileDialect
from nerve.frontend.http.native import NativeDialect
from nerve.frontend.http.openapi import build_document
from nerve.frontend.http.openinference.dialect import OpenInferenceDialect
from nerve.frontend.http.server import HttpServer, build_app
from nerve.frontend.v2.infer import Inferrer
from nerve.frontend.v2.settings import Settings
from nerve.golden import answers_before, check_gate
from nerve.logs import Logs
from nerve.metrics import EngineMetrics, RepositoryMetrics, RequestMetrics
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
GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Next to nothing here is a cycle. By default a body of many small lists is looked through so often
while it is parsed that this takes eight times as long, and everybody waits."""


class App:
    """The daemon's parts, wired."""

    def __init__(self, config: ServerConfig, *, announce: Announce) -> None:
        self._config, self._announce = config, announce
        self.registry = CollectorRegistry(auto_describe=True)
        metrics = RequestMetrics(self.registry)
        self._engine_metrics = EngineMetrics(self.registry)
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
            announce=lambda name, version: announce(f"Model: {name} v{version}"),
        )
        self.sync = RepositorySync(self.manager, self.catalog, config=config)
        self.inference = InferenceService(self.catalog, config=config, metrics=metrics)
        self._control = control = ControlService(self.catalog, self.sync, config=config)
        self._inferrer = Inferrer(self.inference, config)
        self._settings = Settings(Logs(config.log_level), control)
        dialects: list[Dialect] = [
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
            NativeDialect(control, self.registry, describe=lambda: build_document(dialects)),
        ]
        self.http_app = build_app(dialects, metrics)
        self.catalog.on_change(self._tell_health)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self._metrics = metrics

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
        return model

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
        """Listen, then load every model. Returns the ports.

        Raises:
            RuntimeMissing, AddressUnavailable, RepositoryInvalid: the server cannot run at all.
        """
        if self._prover is not None:
            self._prover.start()  # imports what we do, at the same time
        require_runtime()
        config = self._config
        # Before the first request can come: a model that is still to be loaded is no unknown one.
        await self.sync.find()
        ports = {}
        if not config.disable_http:
            self._http = HttpServer(self.http_app, shutdown_timeout_s=config.shutdown_timeout_s)
            port = await self._http.start(config.http_hostname, config.http_port)
            ports["http"] = port
            self._announce(f"Starting HTTP server on {config.http_hostname}:{port}")
        if not config.disable_grpc:
            self._grpc = self._grpc_server()
            port = await self._grpc.start(config.grpc_hostname, config.grpc_port)
            ports["grpc"] = port
            self._announce(f"Starting gRPC server on {config.grpc_hostname}:{port}")
        causes = await self.sync.load_all()
        if causes and config.exit_on_error:
            name = next(iter(causes))
            raise LoadFailed(name, causes[name])
        if not self.catalog.ready:
            log.error("no model is ready; see the reasons above")
        self.sync.start()
        return ports

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

        config, metrics, control = self._config, self._metrics, self._control
        return GrpcServer(
            [
                EncoderfileService(self.inference, config, metrics),
                OpenInferenceService(
                    self.inference, control, self._inferrer, self._settings, metrics
                ),
                NerveService(self.inference, control, config, metrics),
            ],
            control=control,
            config=config,
            metrics=metrics,
        )

    async def stop(self) -> None:
        """Stop accepting, finish what is in flight, free the models."""
        self._control.draining = True
        servers = [server for server in (self._http, self._grpc) if server is not None]
        await self.sync.aclose()
        await asyncio.gather(*(server.stop() for server in servers))
        await self.inference.aclose()
        await self.manager.aclose()
        if self._prover is not None:
            await self._prover.aclose()


async def serve(config: ServerConfig, *, announce: Announce) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        SetupError: it cannot run at all.
    """
    map_large_blocks()
    gc.set_threshold(*GC_THRESHOLDS)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal(name: str) -> None:
        if stopping.is_set():
            sys.exit(1)
        log.info("got %s: finishing requests in flight", name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    app = App(config, announce=announce)
    starting = asyncio.create_task(app.start())
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            ports = starting.result()
            if 0 in (config.http_port, config.grpc_port):
                announce(json.dumps({"event": "ready", "ports": ports}))
            await told
    finally:
        starting.cancel()
        told.cancel()
        await asyncio.gather(starting, told, return_exceptions=True)
        await app.stop()
