"""A real app on a real socket that the ring shares, apps of a test's own, and ways to talk to them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import json
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import uvloop
import yaml
from multidict import CIMultiDict, CIMultiDictProxy
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from yarl import URL

from nerve.app import App
from nerve.config.server import ServerConfig
from nerve.frontend.http.server import HttpServer

BOUND_S = 60.0
"""No wait in this ring lasts longer; nothing measures time."""
LOOPBACK = "127.0.0.1"
FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2")
RULE_LABELS = ("O", "B-PER", "I-PER", "B-WORK-OF-ART", "I-WORK-OF-ART")
RULE_LOGITS = {
    "german": (0.5, 5.5, 0.25, 0.0, -1.0),
    "israel": (0.5, 0.0, 3.25, 0.0, -1.0),
    "university": (0.5, 0.0, 0.25, 6.0, -1.0),
    "company": (0.5, 0.0, 0.25, 0.0, 2.0),
    "music": (1.5, 1.5, 1.5, 1.5, 1.5),
    "night": (float("nan"),) * 5,
    "black": (0.0, float("inf"), 0.0, 0.0, 0.0),
}
"""What the model `rule` says of a word; of any other it says `RULE_ELSE`, and `RULE_CRASH` makes
the runtime fail."""
RULE_ELSE = (4.0, 0.0, -0.5, 1.0, -1.0)
RULE_CRASH = "early"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, which must be UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)

    def decimals(self) -> list[str]:
        """Every number with a fraction or an exponent in the body, as it is written."""
        found: list[str] = []
        json.loads(self.body, parse_float=found.append)
        return found


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Write, and wait until it has left."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next response, by its Content-Length."""
        async with asyncio.timeout(BOUND_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = CIMultiDict(
                (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
            )
            body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return Answer(int(status.split(" ")[1]), CIMultiDictProxy(headers), body)

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection, or breaks it."""
        got = b""
        async with asyncio.timeout(BOUND_S):
            with suppress(ConnectionError):
                while part := await self.reader.read(65536):
                    got += part
        return got

    async def closed(self) -> bool:
        """Wait for the server's end of the connection; whether it came without more bytes."""
        return await self.rest() == b""


@dataclass(frozen=True, slots=True)
class Server:
    """An app that listens. `announced` holds what it told its operator."""

    app: App
    port: int
    announced: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its HTTP root."""
        return f"http://{LOOPBACK}:{self.port}"

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A new connection."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that keeps its connections until the block ends."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=BOUND_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Client(self, session)


class Client:
    """What tests say to a server."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server, self._session = server, session

    async def send(
        self,
        method: str,
        path: str,
        *,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = "application/json",
    ) -> Answer:
        """One request; `path` goes out as it is. `content_type` None sends no such header."""
        sent = dict(headers or {})
        if content_type is not None and data is not None:
            sent["Content-Type"] = content_type
        async with self._session.request(
            method,
            URL(self.server.url + path, encoded=True),
            # aiohttp warns of large bytes; a file is sent in the same way, with its length
            data=io.BytesIO(data) if isinstance(data, bytes) else data,
            headers=sent,
            skip_auto_headers=["Content-Type"],
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Answer:
        """GET."""
        return await self.send("GET", path)

    async def post(
        self, path: str, value: object, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST `value` as JSON."""
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return await self.send("POST", path, data=data, headers=headers)

    async def predict(
        self, inputs: object, *, model: str | None = None, **fields: object
    ) -> Answer:
        """Encoderfile's route."""
        return await self.post(_path(model, "predict"), {"inputs": inputs, **fields})

    async def predict_tokens(
        self,
        inputs: object,
        *,
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: object,
    ) -> Answer:
        """Baseten's route."""
        path = _path(model, "predict_tokens")
        return await self.post(path, {"inputs": inputs, **fields}, headers=headers)

    async def statistics(self, model: str) -> dict[str, Any]:
        """Totals of a model's newest version."""
        answer = await self.get(f"/v1/models/{model}")
        statistics: dict[str, Any] = answer.json()["versions"][-1]["statistics"]
        return statistics

    async def queued(self, model: str, rows: int) -> None:
        """Wait until exactly so many rows of a model wait."""

        async def there() -> bool:
            return bool((await self.statistics(model))["queued_rows"] == rows)

        await self.until(there)

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 where there is none yet."""
        page = await self.get("/metrics")
        for family in text_string_to_metric_families(page.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    @staticmethod
    async def until(condition: Callable[[], Awaitable[bool]]) -> None:
        """Ask again and again until it is so; fail at the bound."""
        async with asyncio.timeout(BOUND_S):
            while not await condition():
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def waiting(
        self, request: Coroutine[Any, Any, Answer]
    ) -> AsyncIterator[asyncio.Task[Answer]]:
        """Send without waiting for the answer; the caller leaves when the block ends."""
        task = asyncio.create_task(request)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _path(model: str | None, route: str) -> str:
    return f"/{route}" if model is None else f"/v1/models/{model}/{route}"


class Serve(Protocol):
    """Starts an app on the test's own loop; it is stopped after the test."""

    async def __call__(self, *repositories: Path, **settings: object) -> Client:
        """Start with `settings` over those that the ring needs; return when all is loaded."""


class ServerOf(Protocol):
    """Opens an app that need not be loaded yet, on the test's own loop."""

    def __call__(
        self, *repositories: Path, started: bool = True, **settings: object
    ) -> AbstractAsyncContextManager[Server]:
        """Listen; with `started` its own start is under way, else nothing is found or loaded."""


class Oracle:
    """What the bundled model says of one text alone: tokenizers and ONNX Runtime, nothing else."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        names = json.loads((folder / "config.json").read_text())["id2label"]
        self.labels = [names[str(number)] for number in range(len(names))]

    def count(self, text: str) -> int:
        """Tokens, special ones counted."""
        return len(self.tokenizer.encode(text).ids)

    def tokens(self, text: str) -> list[tuple[str, int, int, int, npt.NDArray[np.float32]]]:
        """Piece, id, start, end (code points) and logits of every token of the text's own."""
        encoded = self.tokenizer.encode(text)
        ids = np.array([encoded.ids], dtype=np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        logits = self.session.run(["logits"], given)[0][0]
        rows = zip(
            encoded.tokens,
            encoded.ids,
            encoded.offsets,
            encoded.special_tokens_mask,
            logits,
            strict=True,
        )
        return [
            (piece, number, start, end, row)
            for piece, number, (start, end), special, row in rows
            if not special
        ]


class Repository:
    """A folder of models in the making."""

    def __init__(self, path: Path, tiny_models: Path) -> None:
        self.path, self._tiny = path, tiny_models
        path.mkdir(parents=True, exist_ok=True)

    def add(
        self, name: str, *, of: str = "bert", version: int | None = None, **config: object
    ) -> Path:
        """Copy a tiny model, flat or as a version, with `config` as its config.yaml."""
        folder = self.path / name
        target = folder if version is None else folder / str(version)
        shutil.copytree(self._tiny / of, target)
        if config:
            self.configure(name, config)
        return folder

    def configure(self, name: str, config: Mapping[str, object]) -> None:
        """Write a model's config.yaml."""
        (self.path / name / "config.yaml").write_text(yaml.safe_dump(dict(config)))

    def add_patient(self, name: str, **batching: int) -> Path:
        """A model whose queue waits 10 s for a batch of two: one text stays queued, two run at once."""
        return self.add(
            name,
            max_batch_size=2,
            dynamic_batching={"scheduler": "fifo", "max_queue_delay_microseconds": 10_000_000}
            | batching,
            instance_group={"count": 1, "kind": "KIND_CPU"},
            model_warmup=[{"batch_size": 2}],
        )

    def add_rule(self, name: str) -> Path:
        """A model that labels each word by `RULE_LOGITS`, whatever stands around it."""
        folder = self.add(name)
        about = json.loads((folder / "config.json").read_text())
        about["id2label"] = {str(number): label for number, label in enumerate(RULE_LABELS)}
        (folder / "config.json").write_text(json.dumps(about))
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        rows = [RULE_ELSE, *RULE_LOGITS.values()]
        place = np.zeros(len(vocabulary), dtype=np.int64)
        for number, word in enumerate(RULE_LOGITS, start=1):
            place[vocabulary[word]] = number
        place[vocabulary[RULE_CRASH]] = len(rows) + 1  # out of bounds: the run fails
        graph = helper.make_graph(
            [
                helper.make_node("Gather", ["place", "input_ids"], ["row"]),
                helper.make_node("Gather", ["table", "row"], ["logits"]),
            ],
            "rule",
            [
                helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "tokens"])
                for each in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 5])],
            [
                numpy_helper.from_array(place, "place"),
                numpy_helper.from_array(np.array(rows, dtype=np.float32), "table"),
            ],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests"
        )
        onnx.save(model, str(folder / "model.onnx"))
        return folder

    def add_picky(self, name: str) -> Path:
        """A model whose tokenizer fails on every word but `people`."""
        folder = self.add(name, model_warmup=[{"text": "people"}])
        tokenizer = Tokenizer(WordLevel({"people": 7}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    def add_broken(self, name: str) -> Path:
        """A model whose graph is no graph."""
        folder = self.add(name)
        (folder / "model.onnx").write_bytes(b"this is no graph")
        return folder


def settings(*repositories: Path, **more: object) -> ServerConfig:
    """The ring's configuration: loopback, a port of the kernel's choice."""
    return ServerConfig.model_validate(
        {
            "repositories": list(repositories),
            "http_hostname": LOOPBACK,
            "http_port": 0,
            "disable_grpc": True,
            "shutdown_timeout_s": 5.0,
            "prove_models": False,  # proofs are for tests/unit/test_proof.py and the daemon's ring
            "settle_seconds": 0.05,  # the models of this ring were written a moment ago
        }
        | more
    )


@asynccontextmanager
async def serving(*repositories: Path, **more: object) -> AsyncIterator[Client]:
    """An app on the running loop, loaded, and a client of it."""
    announced: list[str] = []
    app = App(settings(*repositories, **more), announce=announced.append)
    try:
        ports = await app.start()
        async with Server(app, ports["http"], announced).client() as client:
            yield client
    finally:
        await app.stop()


@contextmanager
def in_thread(config: ServerConfig) -> Iterator[Server]:
    """An app on a uvloop loop of its own, as the daemon has it."""
    started: concurrent.futures.Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = (
        concurrent.futures.Future()
    )

    async def live() -> None:
        announced: list[str] = []
        app = App(config, announce=announced.append)
        stop = asyncio.Event()
        try:
            ports = await app.start()
            server = Server(app, ports["http"], announced)
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
        finally:
            await app.stop()

    def run() -> None:
        with asyncio.Runner(debug=True, loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        server, loop, stop = started.result(timeout=60)
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join(timeout=60)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def shared_repository(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Repository:
    """Models beside the bundled one: every family, and some with a character."""
    repository = Repository(tmp_path_factory.mktemp("shared"), tiny_models)
    for family in FAMILIES:
        repository.add(family, of=family)
    repository.add("multi", version=1)
    repository.add("multi", of="distilbert", version=2, version_policy="all")
    repository.add("strided", tokenizer={"max_length": 32, "stride": 8})
    repository.add("configured", aggregation_strategy="max", offset_unit="utf16")
    repository.add_patient("patient", max_queue_size=1)
    repository.add_rule("rule")
    repository.add_picky("picky")
    repository.add_broken("broken")
    return repository


@pytest.fixture(scope="session")
def server(bundled: Path, shared_repository: Repository) -> Iterator[Server]:
    """The ring's server; its default model is the bundled one."""
    config = settings(bundled, shared_repository.path, default_model="minilm-ner")
    with in_thread(config) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Client]:
    """A client of the ring's server."""
    async with server.client() as client:
        yield client


@pytest.fixture
def repository(tmp_path: Path, tiny_models: Path) -> Repository:
    """A repository of the test's own."""
    return Repository(tmp_path / "repository", tiny_models)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts apps on the test's own loop."""
    async with AsyncExitStack() as stack:

        async def start(*repositories: Path, **more: object) -> Client:
            return await stack.enter_async_context(serving(*repositories, **more))

        yield start


@pytest.fixture
def server_of() -> ServerOf:
    """Opens apps that need not be loaded yet."""

    @asynccontextmanager
    async def listen(
        *repositories: Path, started: bool = True, **more: object
    ) -> AsyncIterator[Server]:
        config = settings(*repositories, **more)
        if not started:
            app = App(config, announce=lambda _line: None)
            http = HttpServer(app.http_app, config)
            try:
                yield Server(app, await http.start(LOOPBACK, 0))
            finally:
                await http.stop()
                await app.stop()
            return
        told: asyncio.Queue[str] = asyncio.Queue()
        app = App(config, announce=told.put_nowait)
        starting = asyncio.create_task(app.start())
        try:
            async with asyncio.timeout(BOUND_S):
                line = await told.get()
            yield Server(app, int(line.rpartition(":")[2]))
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await app.stop()

    return listen


@pytest.fixture(scope="session")
def oracle(bundled: Path) -> Oracle:
    """What the bundled model says of one text alone."""
    return Oracle(bundled / "minilm-ner" / "1")


@pytest.fixture(autouse=True)
def nothing_unhandled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may end with an exception that nobody handled, neither in a request nor in the loop.

    aiohttp logs "Error handling request" where it answers 400 to what is no HTTP; that is handled.
    """
    yield
    wild = [
        f"{record.name}: {record.getMessage()}: {record.exc_info and record.exc_info[1]!r}"
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR
        and record.exc_info
        and record.name.startswith(("nerve.frontend", "asyncio", "aiohttp"))
        and not record.getMessage().startswith("Error handling request")
    ]
    assert not wild
