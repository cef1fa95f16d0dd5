"""Requests become spans: a request's own when it comes, those of its stages when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nerve import __version__
from nerve.config.settings.observing import ObserveSettings
from nerve.exchange import Exchange, Stage
from nerve.tracing.attributes import (
    Attributes,
    beginning_of,
    end_of,
    error_of,
    is_fault,
    name_of,
    of_run,
)
from nerve.tracing.export import Complaints, collector_url, new_exporter, new_provider, share_of
from nerve.types import TracedRun

log = logging.getLogger(__name__)

FLUSH_S: Final = 5.0
"""How long the end of the server may wait for spans to be sent."""
BREAK_S: Final = 1.0
"""And how long after that for the sending to be broken off."""
MAX_STAGES: Final = 64
"""Spans of stages that one request has at most: of a large one, its first runs."""
STEP_NS: Final = 1_000_000
"""The system's clock was set if it is off by more than so many nanoseconds."""
_CARRIED: Final = "traceparent"
_STATE: Final = "tracestate"
_SCOPE: Final = InstrumentationScope("nerve", __version__)


class Clock:
    """Monotonic seconds as nanoseconds since 1970, one after the other as long as nobody sets the
    clock."""

    def __init__(self) -> None:
        self._offset = self._measured()

    @staticmethod
    def _measured() -> int:
        return time.time_ns() - time.monotonic_ns()

    def follow(self) -> None:
        """Look at the system's clock."""
        measured = self._measured()
        if abs(measured - self._offset) > STEP_NS:
            self._offset = measured

    def at(self, seconds: float) -> int:
        """Nanoseconds since 1970."""
        return int(seconds * 1e9) + self._offset


class Tracing:
    """An observer of exchanges. `start`, then `aclose`; outside of that it does nothing."""

    def __init__(self, settings: ObserveSettings) -> None:
        self._settings = settings
        self._complaints = Complaints(url=collector_url(settings))
        self._propagator = TraceContextTextMapPropagator()
        self._clock = Clock()
        self._exporter: SpanExporter | None = None
        self._provider: TracerProvider | None = None
        self._processor: SpanProcessor | None = None
        self._tracer: Tracer | None = None

    @property
    def share(self) -> float | None:
        """The share of requests that are traced; None while none are."""
        return None if self._provider is None else share_of(self._provider)

    def start(self) -> None:
        """Begin to trace. Raises SetupError: what a variable says cannot be used."""
        self._complaints.begin()
        try:
            self._exporter = new_exporter(self._settings)
            self._provider, self._processor = new_provider(self._settings, self._exporter)
        except BaseException:
            self._complaints.end()
            raise
        self._tracer = self._provider.get_tracer(_SCOPE.name, _SCOPE.version)

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """Begin its span, as part of its caller's trace if there is one."""
        if self._tracer is None or exchange.is_probe:
            return
        self._clock.follow()
        context = Context()
        if exchange.parent is not None:
            if exchange.parent.trace is None and exchange.parent.traceparent:
                headers = {_CARRIED: exchange.parent.traceparent}  # which is not sampled
            elif exchange.parent.trace is not None:
                context = set_span_in_context(exchange.parent.trace, context)
        if _CARRIED in headers:
            # The SDK writes a state that is none into the log, in which not every character can stand.
            if not headers.get(_STATE, "").isprintable() or not headers.get(_STATE, "").isascii():
                headers = {_CARRIED: headers[_CARRIED]}
            context = self._propagator.extract(headers, context)
        span = self._tracer.start_span(
            name_of(exchange),
            context,
            kind=SpanKind.INTERNAL if exchange.parent is not None else SpanKind.SERVER,
            start_time=self._clock.at(exchange.began),
        )
        about = span.get_span_context()
        if about.is_valid:
            exchange.traceparent = _traceparent(about)
        if span.is_recording():
            span.set_attributes(beginning_of(exchange))
            exchange.trace = span

    def finished(self, exchange: Exchange) -> None:
        """Make the spans of its stages, and end its own."""
        span: Span | None = exchange.trace
        if span is None or self._tracer is None:
            return
        about = span.get_span_context()
        for stage in exchange.stages[:MAX_STAGES]:
            self._add_stage(exchange, stage, about)
        if (more := len(exchange.stages) - MAX_STAGES) > 0:
            span.set_attribute("nerve.stages_left_out", more)
        span.set_attributes(end_of(exchange))
        if is_fault(exchange):
            span.set_status(Status(StatusCode.ERROR, error_of(exchange)))
        span.end(self._clock.at(exchange.ended))

    def _add_stage(self, exchange: Exchange, stage: Stage, parent: SpanContext) -> None:
        facts = dict(stage.facts)
        run: TracedRun | None = facts.pop("run", None)
        made: Attributes = {f"nerve.{name}": value for name, value in facts.items()}
        links: tuple[Link, ...] = ()
        if run is not None:
            parent_of, about = self._batch(exchange, run)
            if parent_of is exchange.trace:
                return  # its batch is its child
            links = (Link(about),)
        self._add(stage.name, stage.began, stage.ended, parent, made, links)

    def _batch(self, exchange: Exchange, run: TracedRun) -> tuple[Span, SpanContext]:
        """The span of a run after that of its parent, made for the first of its requests that ends
        well: a child of the request that led the batch, of those whose callers have not left
        meanwhile; with links to the others."""
        if run.span is None:
            spans = cast("tuple[Span, ...]", run.traces)
            leader = next((span for span in spans if span.is_recording()), spans[0])
            others = [span.get_span_context() for span in spans if span is not leader]
            made = of_run(run)
            if exchange.info is not None:
                made["nerve.model"] = exchange.info.name
                made["nerve.version"] = exchange.info.version
            links = tuple(Link(other) for other in others)
            parent, ended = leader.get_span_context(), run.began + run.took_s
            run.span = leader, self._add("batch", run.began, ended, parent, made, links)
        return cast("tuple[Span, SpanContext]", run.span)

    def _add(
        self,
        name: str,
        began: float,
        ended: float,
        parent: SpanContext,
        attributes: Attributes,
        links: tuple[Link, ...],
    ) -> SpanContext:
        """A span that has ended already, in monotonic seconds.

        Not by the tracer: its parent's trace was chosen long ago, and locks and limits for what is
        still to be written into a span take most of the time.
        """
        assert self._provider is not None
        assert self._processor is not None
        about = SpanContext(
            parent.trace_id,
            self._provider.id_generator.generate_span_id(),
            is_remote=False,
            trace_flags=parent.trace_flags,
            trace_state=parent.trace_state,
        )
        span = ReadableSpan(
            name,
            about,
            parent,
            self._provider.resource,
            attributes,
            links=links,
            instrumentation_scope=_SCOPE,
            start_time=self._clock.at(began),
            end_time=self._clock.at(ended),
        )
        self._processor.on_end(span)
        return about

    async def aclose(self) -> None:
        """Send what is left, for so long as `FLUSH_S`."""
        provider, exporter = self._provider, self._exporter
        self._provider = self._tracer = self._exporter = self._processor = None
        if provider is None or exporter is None:
            return
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            self._complaints.end()
            with contextlib.suppress(RuntimeError):  # nobody waited so long: the loop is closed
                loop.call_soon_threadsafe(sent.set)

        _in_background(shut_down)  # for up to 30 s
        try:
            async with asyncio.timeout(FLUSH_S):
                await sent.wait()
        except TimeoutError:
            log.warning("traces: the last ones were not sent within %g s", FLUSH_S)
            self._complaints.hush()  # that it was broken off is no news
            _in_background(exporter.shutdown)  # breaks off what it does, if not at once
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BREAK_S):
                    await sent.wait()


def _in_background(work: Callable[[], None]) -> None:
    """In no thread of the loop's, which would wait for it in the end."""
    threading.Thread(target=work, name="nerve-traces", daemon=True).start()


def _traceparent(about: SpanContext) -> str:
    trace, span = format_trace_id(about.trace_id), format_span_id(about.span_id)
    return f"00-{trace}-{span}-{about.trace_flags:02x}"
