"""The client for asyncio; what the methods take and give is told in `client`."""
# A str is an iterable of str as well, so that the overloads for one and several texts overlap:
# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

import asyncio
import random as randomness
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from os import PathLike
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, cast, overload

from nerve_client.bulk import Batch, OnError, Outcome, async_batches, isolate
from nerve_client.checks import known
from nerve_client.core import (
    AGENT,
    BULK_OPTIONS,
    DEFAULT_RETRY,
    MAX_TEXTS,
    TIMEOUT_S,
    Core,
    check_bulk,
    grpc_is_missing,
)
from nerve_client.errors import DeadlineExceeded, ItemError, NerveError, Unavailable
from nerve_client.http_transport import AsyncHttpTransport
from nerve_client.lanes import AsyncLane, AsyncStreamLane, TaskLane
from nerve_client.requests import (
    Extract,
    ExtractOptions,
    GetModel,
    ListModels,
    Live,
    Predict,
    PredictOptions,
    PredictTokens,
    PredictTokensOptions,
    Ready,
    Request,
    TextRequest,
    as_texts,
)
from nerve_client.results import (
    Answer,
    Entity,
    ModelStatus,
    ModelSummary,
    Token,
    TokenResult,
    joined,
    only,
)
from nerve_client.retry import Retry

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class AsyncClient:
    """A server's models, from any thread; connections are kept and used again.

    Every method raises errors of the tree of `NerveError`, and tries again as `retry` says. Close
    the client, or use it in a `with` statement.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        timeout_s: float = TIMEOUT_S,
        retry: Retry = DEFAULT_RETRY,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | PathLike[str] | None = None,
        cert_file: str | PathLike[str] | None = None,
        key_file: str | PathLike[str] | None = None,
        max_texts: int = MAX_TEXTS,
        random: Callable[[], float] = randomness.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: http://, https://, grpc:// or grpcs://; HTTP's may have a path before the routes,
                gRPC's port is 50051 where it has none.
            timeout_s: of a call, where it names none.
            retry: when to try again.
            api_key: sent as `Authorization: Bearer`, to a server that wants one.
            headers: sent with every request, as metadata over gRPC; credentials of a gateway.
            ca_file: PEM certificates to trust in place of the system's.
            cert_file: PEM certificate to show to a server that wants one of its clients.
            key_file: its private key, if that is not in the same file.
            max_texts: of one request; a call with more is several requests.
            random: numbers from 0 to 1 for pauses.
            sleep: waits for so many seconds.
        Raises:
            ValueError, TypeError: a wrong setting.
            ImportError: gRPC is not installed.
        """
        self._core = Core(
            url,
            timeout_s=timeout_s,
            retry=retry,
            api_key=api_key,
            headers=headers,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            max_texts=max_texts,
            random=random,
        )
        self._sleep = sleep
        address, headers = self._core.address, self._core.headers
        if address.target:
            try:
                from nerve_client.grpc_transport import AsyncGrpcTransport  # noqa: PLC0415  an extra
            except ModuleNotFoundError as error:
                raise grpc_is_missing() from error
            self._grpc: AsyncGrpcTransport | None = AsyncGrpcTransport(address, headers)
            self._transport: AsyncHttpTransport | AsyncGrpcTransport = self._grpc
        else:
            self._grpc = None
            self._transport = AsyncHttpTransport(address, {"user-agent": AGENT} | headers)

    @overload
    async def extract(self, texts: str, **options: Unpack[ExtractOptions]) -> Answer[Entity]: ...
    @overload
    async def extract(
        self, texts: Iterable[str], **options: Unpack[ExtractOptions]
    ) -> Answer[list[Entity]]: ...
    async def extract(
        self, texts: str | Iterable[str], **options: Unpack[ExtractOptions]
    ) -> Answer[Entity] | Answer[list[Entity]]:
        """Entities of a text, or a list of them for each of several. See `ExtractOptions`."""
        request = Extract(as_texts(texts), **known("extract", Extract, options))
        return await self._answer(texts, request)

    @overload
    async def predict_tokens(
        self, texts: str, **options: Unpack[PredictTokensOptions]
    ) -> Answer[TokenResult]: ...
    @overload
    async def predict_tokens(
        self, texts: Iterable[str], **options: Unpack[PredictTokensOptions]
    ) -> Answer[list[TokenResult]]: ...
    async def predict_tokens(
        self, texts: str | Iterable[str], **options: Unpack[PredictTokensOptions]
    ) -> Answer[TokenResult] | Answer[list[TokenResult]]:
        """Tokens with their labels, or entities, as the model's config or `aggregation` says."""
        return await self._answer(
            texts, PredictTokens(as_texts(texts), **known("predict_tokens", PredictTokens, options))
        )

    @overload
    async def predict(self, texts: str, **options: Unpack[PredictOptions]) -> Answer[Token]: ...
    @overload
    async def predict(
        self, texts: Iterable[str], **options: Unpack[PredictOptions]
    ) -> Answer[list[Token]]: ...
    async def predict(
        self, texts: str | Iterable[str], **options: Unpack[PredictOptions]
    ) -> Answer[Token] | Answer[list[Token]]:
        """Every token with the logits of all labels."""
        request = Predict(as_texts(texts), **known("predict", Predict, options))
        return await self._answer(texts, request)

    @overload
    def extract_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        batch_size: int = 32,
        concurrency: int = 4,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[ExtractOptions],
    ) -> AsyncGenerator[list[Entity], None]: ...
    @overload
    def extract_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        batch_size: int = 32,
        concurrency: int = 4,
        on_error: Literal["return"],
        **options: Unpack[ExtractOptions],
    ) -> AsyncGenerator[list[Entity] | ItemError, None]: ...
    def extract_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        batch_size: int = 32,
        concurrency: int = 4,
        on_error: OnError = "raise",
        **options: Unpack[ExtractOptions],
    ) -> AsyncGenerator[list[Entity] | ItemError, None]:
        """Entities of each text of an iterable, one list a text, in order.

        At most `batch_size` x `concurrency` texts are read ahead of what was taken. A text that
        fails alone is an `ItemError`, raised at its position or given in its place; whatever every
        other text would meet as well (nobody answers, no such model) is raised in any case. Over
        gRPC the texts go through one stream.

        Args:
            texts: read as results are taken.
            batch_size: texts that are sent together.
            concurrency: batches under way.
            on_error: "raise" or "return".
            options: as in `extract`; `timeout_s` is for each batch.
        """
        check_bulk(texts, batch_size, concurrency, on_error)
        request = Extract((), **known("extract_many", Extract, options, *BULK_OPTIONS))
        self._core.deadline(None)  # raises if closed
        found = async_batches(texts, min(batch_size, self._core.max_texts))
        return self._extract_many(found, request, concurrency, on_error)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelSummary]:
        """Every model with its state."""
        return await self._send(ListModels(), self._core.deadline(timeout_s))

    async def model(self, name: str, *, timeout_s: float | None = None) -> ModelStatus:
        """State, versions, labels, limits and statistics of a model."""
        return await self._send(GetModel(name), self._core.deadline(timeout_s))

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server wants traffic; False too where nobody answers. Asks once."""
        return await self._probe(Ready(), timeout_s)

    async def live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server answers at all. Asks once."""
        return await self._probe(Live(), timeout_s)

    async def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._core.closed = True
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _answer(
        self, texts: str | Iterable[str], request: TextRequest[ItemT]
    ) -> Answer[ItemT] | Answer[list[ItemT]]:
        answer = await self._ask(request)
        return only(answer) if isinstance(texts, str) else answer

    async def _ask(
        self, request: TextRequest[ItemT], met: Unavailable | None = None
    ) -> Answer[list[ItemT]]:
        """All texts of a request, by as many requests as it takes, within its time."""
        deadline = self._core.deadline(request.timeout_s)
        parts = request.parts(self._core.max_texts)
        return joined([await self._send(part, deadline, met) for part in parts])

    async def _send(
        self, request: Request[ResultT], deadline: float, met: Unavailable | None = None
    ) -> ResultT:
        """One request, again and again; `met` is the error of a try before."""
        tries = self._core.tries(deadline)
        while True:
            if met is not None:
                await self._sleep(tries.pause_s(met))
            try:
                return await self._transport.send(request, timeout_s=tries.left_s())
            except Unavailable as error:
                met = error

    async def _probe(self, request: Request[bool], timeout_s: float | None) -> bool:
        left = self._core.tries(self._core.deadline(timeout_s)).left_s()
        try:
            return await self._transport.send(request, timeout_s=left)
        except (Unavailable, DeadlineExceeded):
            return False

    async def _extract_many(
        self,
        found: AsyncGenerator[Batch, None],
        request: Extract,
        concurrency: int,
        on_error: OnError,
    ) -> AsyncGenerator[list[Entity] | ItemError, None]:
        waiting: deque[Batch] = deque()
        failed: Exception | None = None
        more = True
        lane = self._lane(request)
        try:
            while more or waiting:
                while more and len(waiting) < concurrency:
                    try:
                        batch = await anext(found, None)
                    except Exception as error:  # noqa: BLE001  raised in its place, below
                        batch, failed = None, error
                    if batch is None:
                        more = False
                        break
                    waiting.append(batch)
                    if batch.texts:
                        lane.submit(request.of(batch.texts))
                if waiting:
                    batch = waiting.popleft()
                    outcomes = await lane.receive() if batch.texts else []
                    for result in batch.results(outcomes, on_error):
                        yield result
        finally:
            await lane.close()
            await found.aclose()
        if failed is not None:
            raise failed

    def _lane(self, request: Extract) -> AsyncLane:
        if self._grpc is None:
            return TaskLane(self._solve)
        grpc, timeout_s = self._grpc, request.timeout_s or self._core.timeout_s
        return AsyncStreamLane(lambda: grpc.stream(request.priority), self._solve, timeout_s)

    async def _solve(self, request: Extract, met: Unavailable | None) -> list[Outcome]:
        """What becomes of each text, see `isolate`."""
        steps = isolate(request.texts)
        texts = next(steps)
        while True:
            said: list[Outcome] | NerveError
            try:
                said = [*await self._ask(request.of(texts), met)]
            except NerveError as error:
                said = error
            try:
                texts, met = steps.send(said), None
            except StopIteration as end:
                return cast("list[Outcome]", end.value)
