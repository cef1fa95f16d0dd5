"""Composition root of the daemon: build, start, announce, wait for a signal, drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from nerve.access_log import AccessLog
from nerve.config.server import ServerConfig
from nerve.doors import Doors
from nerve.engine.session import require_runtime
from nerve.errors import LoadFailed
from nerve.exchange import Exchanges
from nerve.frontend.admission import Admission
from nerve.frontend.guard import Anyone
from nerve.frontend.http.about import About
from nerve.frontend.http.application import QUICK, build_app
from nerve.frontend.http.asynchronous.dialect import AsyncDialect
from nerve.frontend.http.baseten import BasetenDialect
from nerve.frontend.http.bei import BeiDialect
from nerve.frontend.http.browsers import Browsers
from nerve.frontend.http.dialect import Dialect
from nerve.frontend.http.encoderfile import EncoderfileDialect
from nerve.frontend.http.mcp import McpDialect
from nerve.frontend.http.metrics import Probes
from nerve.frontend.http.native import NativeDialect
from nerve.frontend.http.openapi import build_document
from nerve.frontend.http.openinference.dialect import OpenInferenceDialect
from nerve.frontend.http.playground import PlaygroundDialect
from nerve.frontend.mcp import new_server
from nerve.frontend.v2.infer import Inferrer
from nerve.frontend.v2.settings import Settings
from nerve.loading import ModelLoader
from nerve.logs import Logs
from nerve.metrics.all import Metrics
from nerve.metrics.security import SecurityMetrics
from nerve.proof import ForkServer
from nerve.repository.catalog import Catalog
from nerve.repository.manager import ModelManager
from nerve.repository.sync import RepositorySync
from nerve.security.security import Security
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService
from nerve.service.tokenization import TokenizationService
from nerve.tracing import new_tracing

if TYPE_CHECKING:
    from nerve.frontend.grpc.server import GrpcServer
    from nerve.jobs.service import JobService

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
        forks: ForkServer | None = None,
    ) -> None:
        """With `only_mcp` HTTP has /mcp and our own routes, and no other protocol's; with `load_first`
        ports open when all models are loaded, so that whoever can connect is answered. `forks` is where
        proofs are forked from, if that runs already.

        Raises:
            SetupError: MCP is enabled, and its SDK is not installed; or a file of keys or for TLS
                cannot be used.
        """
        self._config, self._announce = config, announce
        self._unsaid: list[str] | None = [] if load_first else None
        self.registry = CollectorRegistry(auto_describe=True)
        self._metrics = metrics = Metrics(self.registry, compat=config.metrics_compat)
        self._tracing = new_tracing(config) if config.enable_otel else None
        self._security = Security(config, SecurityMetrics(self.registry))
        self._guard = Admission(
            self._security.guard or Anyone(),
            max_requests=config.max_requests_in_flight,
            max_bytes=config.max_bytes_in_flight,
        )
        self._exchanges = Exchanges(
            [
                *filter(None, [self._tracing]),
                *metrics.observers,
                self._guard,
                AccessLog(info=config.access_log),
            ]
        )
        self._loader = ModelLoader(config, metrics, forks)
        self.catalog = Catalog(default_model=config.default_model)
        self.manager = ModelManager(
            open_model=self._loader.open,
            catalog=self.catalog,
            load_threads=config.load_threads,
            metrics=metrics.repository,
            announce=lambda name, version: self._tell_model(f"Model: {name} v{version}"),
        )
        self.sync = RepositorySync(self.manager, self.catalog, config=config)
        self.inference = InferenceService(self.catalog, config=config, metrics=metrics.requests)
        self._control = control = ControlService(self.catalog, self.sync, config=config)
        self._inferrer = Inferrer(self.inference, config)
        self._settings = Settings(
            Logs(config.log_level),
            control,
            traced=lambda: None if self._tracing is None else self._tracing.share,
            changes_logs=config.model_control or self._security.guard is not None,
        )
        self.mcp = (
            new_server(self.inference, control, config, self._exchanges)
            if config.enable_mcp
            else None
        )
        self._jobs = None if only_mcp else self._new_jobs()
        self._probes = Probes(control, metrics.exposition)
        self._mcp_dialect = McpDialect(self.mcp.app, config) if self.mcp else None
        dialects: list[Dialect] = [
            *([] if only_mcp else self._inference_dialects(control)),
            *([self._mcp_dialect] if self._mcp_dialect else []),
            NativeDialect(
                control,
                self._probes,
                About(
                    config,
                    metrics.exposition,
                    keys=self._security.guard is not None,
                    grpc_port=lambda: self._doors.grpc_port,
                ),
                describe=lambda: build_document(dialects, keyed=self._security.guard is not None),
                metrics_port=config.metrics_port,
            ),
        ]
        self.http_app = build_app(dialects, self._exchanges, self._guard, Browsers(config))
        self.http_app[QUICK].count = self.inference.statistics.again
        metrics.ask(
            ready=lambda: control.ready,
            connections=lambda: self._doors.connections,
            totals=lambda: self.inference.statistics.versions(None, None),
        )
        self._doors = Doors(
            config,
            http_app=self.http_app,
            http_name="MCP" if only_mcp else "HTTP",
            probes=self._probes,
            new_grpc=self._grpc_server,
            announce=announce,
        )
        self.catalog.on_change(self._doors.tell_health)
        self.catalog.on_change(self._tell_serving)

    def _inference_dialects(self, control: ControlService) -> list[Dialect]:
        config = self._config
        encoderfile = EncoderfileDialect(self.inference, config)
        page = not (config.disable_playground or config.disable_http)
        return [
            AsyncDialect(self._jobs, self.inference, config),  # what ends alike is Baseten's
            BasetenDialect(self.inference, config),
            BeiDialect(TokenizationService(self.catalog, config=config), control, config),
            encoderfile,
            *([PlaygroundDialect(encoderfile)] if page else []),
            OpenInferenceDialect(
                self.inference,
                control,
                config,
                inferrer=self._inferrer,
                settings=self._settings,
            ),
        ]

    def _new_jobs(self) -> JobService | None:
        if self._config.async_store is None:
            return None
        # Imported here: a server without async inference starts faster without it.
        from nerve.frontend.http.asynchronous.work import new_jobs  # noqa: PLC0415

        return new_jobs(self.inference, self._config, self._exchanges, self._metrics.jobs)

    async def start(self) -> dict[str, int]:
        """Listen, then load every model; or the other way round. Returns the ports.

        Raises:
            RuntimeMissing, AddressUnavailable, RepositoryInvalid, StoreUnavailable: the server cannot
                run at all.
        """
        self._metrics.start()
        if self._tracing is not None:
            self._tracing.start()
        self._loader.start()
        require_runtime()
        # Before the first request can come: a model that is still to be loaded is no unknown one.
        await self.sync.find()
        self._security.start()
        if self._jobs is not None:  # what was accepted before waits for its model
            await self._jobs.start()
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
        if self.mcp is not None and not self._config.disable_http:
            await self.mcp.start()
        tls = self._security.tls
        ports = await self._doors.open(tls)
        if self._security.guard is None and tls is None:
            log.info("whoever can reach the ports may ask: there are no API keys and no TLS")
        return ports

    async def _load_all(self) -> None:
        """Raises LoadFailed: of a model, and that is to end us."""
        causes = await self.sync.load_all()
        if causes and self._config.exit_on_error:
            name = next(iter(causes))
            raise LoadFailed(name, causes[name])
        if not self.catalog.ready:
            log.error("no model is ready; see the reasons above")

    def _tell_serving(self) -> None:
        """Have the metrics show the copies that answer now."""
        copies = [
            row.copy
            for model in self.catalog.models()
            for row in model.versions.values()
            if row.copy is not None
        ]
        self._metrics.serving.tell(
            [(copy.served, copy.config.optimization.precision or "as_it_is") for copy in copies]
        )

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
            tls=self._security.tls,
        )

    def drain(self) -> None:
        """Say that the server wants no more; it still answers."""
        self._control.draining = True
        self._doors.drain()

    async def stop(self) -> int:
        """Stop accepting, finish what is in flight, free the models.

        Returns:
            Requests that were cut off, as they took too long.
        """
        until = time.monotonic() + self._config.shutdown_timeout_s
        self.drain()
        if self._mcp_dialect is not None:
            self._mcp_dialect.drain()
        # A load in progress ends when it can; who waits for an answer does not wait for that.
        loads = asyncio.gather(self.sync.aclose(), self._security.aclose())
        cut_off = await self._doors.close()
        if self._jobs is not None:  # after HTTP: who asks is answered to the last
            await self._jobs.aclose(max(0.0, until - time.monotonic()))
        await loads
        if self.mcp is not None:
            await self.mcp.aclose()
        await self.inference.aclose()
        await self.manager.aclose()
        await self._loader.aclose()
        await self._doors.close_metrics()
        await self._metrics.aclose()
        if self._tracing is not None:
            await self._tracing.aclose()
        return cut_off
