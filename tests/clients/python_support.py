"""What the tests of clients/python share: the four ways to call, and little servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from nerve_client import AsyncClient, Client, ItemError
from nerve_client._proto import nerve_pb2 as pb
from nerve_client.results import Entity

KINDS = ("http", "http-async", "grpc", "grpc-async")
PROTOCOLS = ("http", "grpc")


@dataclass(slots=True)
class Caller:
    """A client of one of the four kinds, made anew for each call; coroutines run in a thread."""

    kind: str
    url: str
    settings: dict[str, Any] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.kind.endswith("async"):
                return in_thread(
                    lambda: asyncio.run(self._ask(name, arguments, options), debug=True)
                )
            settings = {"random": lambda: 0.5, "sleep": self.slept.append, **self.settings}
            with Client(self.url, **settings) as client:
                return getattr(client, name)(*arguments, **options)

        return call

    async def _ask(self, name: str, arguments: Any, options: Any) -> Any:
        async with AsyncClient(self.url, **self._async_settings()) as client:
            return await getattr(client, name)(*arguments, **options)

    def _async_settings(self) -> dict[str, Any]:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        return {"random": lambda: 0.5, "sleep": sleep, **self.settings}

    def many(
        self, texts: Any, *, most: int | None = None, **options: Any
    ) -> list[list[Entity] | ItemError]:
        """Results of `extract_many`, or the first `most` of them; then it is closed."""
        found: list[Any] = []
        self.many_into(found, texts, most=most, **options)
        return found

    def many_into(
        self, found: list[Any], texts: Any, *, most: int | None = None, **options: Any
    ) -> None:
        """The same into a list, which has what came before an error."""
        if self.kind.endswith("async"):
            in_thread(lambda: asyncio.run(self._many(found, texts, most, options), debug=True))
            return
        settings = {"random": lambda: 0.5, "sleep": self.slept.append, **self.settings}
        with Client(self.url, **settings) as client:
            results = client.extract_many(texts, **options)
            for result in results:
                found.append(result)
                if len(found) == most:
                    results.close()

    async def _many(self, found: list[Any], texts: Any, most: int | None, options: Any) -> None:
        async with AsyncClient(self.url, **self._async_settings()) as client:
            results = client.extract_many(texts, **options)
            async for result in results:
                found.append(result)
                if len(found) == most:
                    await results.aclose()


def in_thread(work: Callable[[], Any]) -> Any:
    """Beside the test's own event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a request: an HTTP status and a gRPC code, or `drop` the connection."""

    status: int = 503
    code: str = "UNAVAILABLE"
    retry_after: str | None = None
    drop: bool = False
    reason: str = "trouble"


Behaviour = Callable[[int, Sequence[str]], "Fault | None"]
"""What is wrong with the nth request (from 0) of these texts."""


@dataclass(slots=True)
class Seen:
    """Requests that arrived: texts, and headers or metadata."""

    texts: list[list[str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, texts: list[str], headers: dict[str, str]) -> int:
        with self.lock:
            self.texts.append(texts)
            self.headers.append(headers)
            return len(self.texts) - 1


def entity_of(text: str) -> Entity:
    """What the little servers find in a text."""
    return Entity(text, "X", 0, len(text), 0.5)


@contextmanager
def little_server(
    protocol: str, behave: Behaviour = lambda _number, _texts: None, *, tls: Any = None
) -> Iterator[tuple[str, Seen]]:
    """A real server on a real socket; its URL, and what it saw. `tls`: PEM files (key, chain)."""
    seen = Seen()
    serve = _http if protocol == "http" else _grpc
    with serve(behave, seen, tls) as port:
        yield f"{protocol}{'s' if tls else ''}://127.0.0.1:{port}", seen


@contextmanager
def _http(behave: Behaviour, seen: Seen, tls: Any) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            number = seen.add(body["inputs"], headers | {"path": self.path})
            fault = behave(number, body["inputs"])
            if fault is not None and fault.drop:
                self.close_connection = True
                return
            if fault is None:
                self._write(200, [[_span(text)] for text in body["inputs"]], {})
            else:
                sent = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                self._write(fault.status, {"error": "in trouble", "reason": fault.reason}, sent)

        def _write(self, status: int, body: Any, headers: dict[str, str]) -> None:
            written = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(written))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        block_on_close = False  # idle connections of clients are theirs to close

        def handle_error(self, *_: Any) -> None:
            pass  # a client that gave up

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile=tls[1], keyfile=tls[0])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _span(text: str) -> dict[str, Any]:
    return {"token": text, "token_id": 0, "start": 0, "end": len(text), "results": {"X": 0.5}}


def _found(text: str) -> pb.Entities:
    return pb.Entities(
        entities=[pb.Entity(text=text, label="X", start=0, end=len(text), score=0.5)]
    )


@contextmanager
def _grpc(behave: Behaviour, seen: Seen, tls: Any) -> Iterator[int]:
    def check(fault: Fault | None, context: Any) -> None:
        if fault is not None:
            sent = [] if fault.drop else [("x-nerve-reason", fault.reason)]
            if fault.retry_after is not None:
                sent.append(("retry-after", fault.retry_after))
            context.set_trailing_metadata(tuple(sent))
            context.abort(grpc.StatusCode[fault.code], "in trouble")

    def extract(request: Any, context: Any) -> Any:
        texts = list(request.texts)
        number = seen.add(texts, dict(context.invocation_metadata()) | {"path": "unary"})
        check(behave(number, texts), context)
        return pb.ExtractResponse(results=[_found(text) for text in texts])

    def stream(requests: Any, context: Any) -> Any:
        for request in requests:
            texts = [item.text for item in request.items]
            number = seen.add(texts, dict(context.invocation_metadata()) | {"path": "stream"})
            fault = behave(number, texts)
            if fault is None or fault.code in ("UNAVAILABLE", "CANCELLED"):
                check(fault, context)
            yield pb.ExtractStreamResponse(results=[_item(behave, number, text) for text in texts])

    handlers = {
        "Extract": grpc.unary_unary_rpc_method_handler(
            extract, pb.ExtractRequest.FromString, pb.ExtractResponse.SerializeToString
        ),
        "ExtractStream": grpc.stream_stream_rpc_method_handler(
            stream, pb.ExtractStreamRequest.FromString, pb.ExtractStreamResponse.SerializeToString
        ),
    }
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("nerve.v1.Nerve", handlers),)
        )
        if tls is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            key, chain = tls
            credentials = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


def _item(behave: Behaviour, number: int, text: str) -> pb.ExtractItemResult:
    fault = behave(number, [text])
    if fault is None:
        return pb.ExtractItemResult(entities=_found(text))
    code = grpc.StatusCode[fault.code].value[0]
    return pb.ExtractItemResult(
        error=pb.Error(
            code=code,
            reason=fault.reason,
            message="in trouble",
            retry_after_s=float(fault.retry_after or 0),
        )
    )
