"""A model of a running server as a target for load: HTTP/1.1, connections kept and pooled.

The only code of the command line that needs aiohttp's client; what it asks a server otherwise goes
through `nerve.cli.client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import orjson

from nerve.cli.client import NOBODY, Client
from nerve.cli.drive import RequestFailed
from nerve.cli.https import Identity
from nerve.errors import NerveError
from nerve.frontend.http.dialect import TRUNCATED_HEADER
from nerve.types import EngineStatistics


class NotAnswering(NerveError):
    """The server knows the model, but no version of it is ready."""

    reason = "not_answering"

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(name, detail)
        self.name, self.detail = name, detail

    def __str__(self) -> str:
        return f"no version of model {self.name!r} is READY: {self.detail}"


class Answer(NamedTuple):
    """What a server answered, whatever it is.

    `retry_after` is that header, or None; `truncated` how many texts were cut.
    """

    status: int
    content: bytes
    retry_after: str | None = None
    truncated: int = 0


class RemoteTarget:
    """`nerve.cli.drive.Target` on a server's POST …/predict_tokens."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        client: Client,
        name: str,
        *,
        version: str | None = None,
    ) -> None:
        """`version` None leaves it to the server."""
        self._http, self._client, self._name = http, client, name
        place = quote(name, safe="") + ("" if version is None else f"/versions/{version}")
        self._url = f"{client.url}/v1/models/{place}/predict_tokens"

    async def send(self, texts: Sequence[str]) -> None:
        """See `Target.send`; entities are asked for."""
        answer = await self.ask({"inputs": texts, "aggregation_strategy": "max"})
        if answer.status != 200:
            raise refused(answer)

    async def ask(self, request: Mapping[str, object]) -> Answer:
        """Whatever is answered to a request. Raises RequestFailed: nothing is."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self._http.post(
                self._url, data=orjson.dumps(request), headers=headers
            ) as response:
                content = await response.read()
                retry_after = response.headers.get("Retry-After")
                truncated = response.headers.get(TRUNCATED_HEADER, "")
                cut = int(truncated) if truncated.isdecimal() else 0
                return Answer(response.status, content, retry_after, cut)
        except TimeoutError:
            raise RequestFailed("timeout", "no answer in time") from None
        except aiohttp.ClientConnectorError as error:
            raise RequestFailed("no connection", str(error)) from None
        except aiohttp.ClientError as error:
            detail = str(error) or type(error).__name__
            raise RequestFailed("connection lost", detail) from None

    async def statistics(self) -> EngineStatistics | None:
        """See `Target.statistics`: of all its versions that are loaded."""
        try:
            return totals(await asyncio.to_thread(self._client.model, self._name))
        except NerveError:  # gone, or too busy to say; the requests tell
            return None


def refused(answer: Answer) -> RequestFailed:
    """A refusal in the server's own words. Pure."""
    try:
        told = orjson.loads(answer.content)
        kind, message = str(told["error_type"]), str(told["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        kind, message = "", answer.content[:200].decode("utf-8", "replace")
    return RequestFailed(f"{answer.status} {kind}".rstrip(), message)


def totals(model: Mapping[str, Any]) -> EngineStatistics | None:
    """Sums over the versions of a GET /v1/models/{name}; None if it has none of them. Pure."""
    each = [
        statistics
        for version in model.get("versions") or []
        if isinstance(version, dict) and isinstance(statistics := version.get("statistics"), dict)
    ]
    if not each:
        return None

    def total(key: str) -> int:
        return sum(int(one.get(key, 0)) for one in each)

    return EngineStatistics(
        total("batches"), total("rows"), total("tokens"), total("padded_tokens")
    )


@asynccontextmanager
async def open_remote(
    url: str,
    name: str,
    *,
    timeout_s: float,
    connections: int,
    identity: Identity = NOBODY,
    version: str | None = None,
) -> AsyncIterator[RemoteTarget]:
    """A model of the server at `url`, which is asked first whether it has it.

    With `version` only that version answers.

    Raises:
        InvalidField: a file for TLS cannot be used.
        ServerUnreachable, HungUp, HandshakeFailed, AnswerTimeout, StrangeAnswer, Refused: it has not.
        NotAnswering: no version of it is READY.
    """
    client = Client(url, timeout_s=timeout_s, identity=identity)
    model = await asyncio.to_thread(client.model, name)
    versions = [each for each in model.get("versions") or [] if isinstance(each, dict)]
    if not any(version.get("state") == "READY" for version in versions):
        reasons = [str(each.get("reason")) for each in (model, *versions) if each.get("reason")]
        raise NotAnswering(name, reasons[0] if reasons else str(model.get("state") or "not loaded"))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=client.context or True),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers=client.credentials,
    ) as http:
        yield RemoteTarget(http, client, name, version=version)
