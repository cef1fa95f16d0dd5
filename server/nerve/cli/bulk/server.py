"""Texts tagged by a running server, which may be busy, or be started anew meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from nerve.cli.bulk.records import Failed, Outcome, Tagged
from nerve.cli.bulk.window import Flight, Tagging
from nerve.cli.client import Client
from nerve.cli.drive import RequestFailed
from nerve.cli.remote import Answer, NotAnswering, RemoteTarget, open_remote, refused
from nerve.errors import InvalidField, NerveError

if TYPE_CHECKING:
    from nerve.cli.bulk.run import Remote

CALLS: Final = 16
TEXTS: Final = 32
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
"""What passes: a server that is busy, stops, starts, or is behind a gateway and does."""
_TOO_MANY: Final = 413
_LATE: Final = 504
LATE_ANSWERS: Final = 3
"""In a row, until that is taken for the texts' fault."""
_OF_THE_CALLER: Final = frozenset({401, 403, 404, 405, 415})
"""What no other text would change."""


class ServerGone(NerveError):
    """The server has not answered for as long as it may take."""

    reason = "server_gone"

    def __init__(self, url: str, waited_s: float, detail: str) -> None:
        super().__init__(url, waited_s, detail)
        self.url, self.waited_s, self.detail = url, waited_s, detail

    def __str__(self) -> str:
        return f"{self.url} has tagged nothing for {self.waited_s:g} s (--wait): {self.detail}"


class ServerRefused(NerveError):
    """The server will not tag texts for us."""

    reason = "server_refused"

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url, self.detail = url, detail

    def __str__(self) -> str:
        return f"{self.url} refuses: {self.detail}"


class RemoteTagging:
    """Calls on one version of a server's model."""

    def __init__(self, target: RemoteTarget, url: str, wait_s: float) -> None:
        self._target, self._url, self._wait_s = target, url, wait_s
        self._answered_at = time.monotonic()

    async def tag(self, texts: Sequence[str]) -> list[Outcome]:
        """See `Tag`. When texts fail together, they are tried in smaller calls.

        Raises:
            ServerGone, ServerRefused: nothing can be tagged there.
        """
        answer = await self._answer(texts)
        if answer.status == 200:
            return self._outcomes(answer, len(texts))
        failed = refused(answer)
        if answer.status in _OF_THE_CALLER:
            raise ServerRefused(self._url, f"{failed.kind}: {failed.message}")
        if len(texts) == 1:
            return [Failed(failed.message or failed.kind)]
        # One too large in all is cut in two; of those that fail, any may be the one that does.
        size = -(-len(texts) // 2) if answer.status == _TOO_MANY else 1
        parts = [texts[at : at + size] for at in range(0, len(texts), size)]
        return [outcome for part in parts for outcome in await self.tag(part)]

    async def _answer(self, texts: Sequence[str]) -> Answer:
        """An answer that will not be another one soon. Raises ServerGone."""
        request = {
            "inputs": texts,
            "default_aggregation_strategy": "max",
        }
        pause_s, since, late = FIRST_PAUSE_S, time.monotonic(), 0
        while True:
            wanted_s = None
            try:
                answer = await self._target.ask(request)
            except RequestFailed as error:
                detail = f"{error.kind}: {error.message}"
                answer = Answer(_LATE if error.kind == "timeout" else 0, detail.encode())
            else:
                detail = refused(answer).message
                wanted_s = seconds(answer.retry_after)
            late += answer.status == _LATE
            if (answer.status and answer.status not in _AGAIN) or late == LATE_ANSWERS:
                self._answered_at = time.monotonic()
                return answer
            waited_s = time.monotonic() - max(since, self._answered_at)
            if waited_s >= self._wait_s:
                raise ServerGone(self._url, self._wait_s, detail)
            await asyncio.sleep(
                min(pause_s if wanted_s is None else wanted_s, self._wait_s - waited_s)
            )
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _outcomes(self, answer: Answer, count: int) -> list[Outcome]:
        # Which were cut it does not say; the longest, which are the last.
        whole = count - answer.truncated
        try:
            found = [
                Tagged([_entity(each) for each in entities], number >= whole)
                for number, entities in enumerate(orjson.loads(answer.content))
            ]
        except (ValueError, KeyError, TypeError):
            raise ServerRefused(self._url, "its answer is none of predict_tokens") from None
        if len(found) != count:
            raise ServerRefused(self._url, f"it answered {len(found)} of {count} texts")
        return list(found)


def seconds(retry_after: str | None) -> float | None:
    """What Retry-After asks for; None if it says nothing that is a number of seconds. Pure."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return float(retry_after)


def _entity(found: Mapping[str, Any]) -> dict[str, Any]:
    ((label, score),) = found["results"].items()
    return {
        "text": found["token"],
        "label": label,
        "start": found["start"],
        "end": found["end"],
        "score": score,
    }


def choose(models: Sequence[Mapping[str, Any]], name: str | None) -> str:
    """The name of the model that is meant. Raises InvalidField. Pure."""
    if name is not None:
        return name
    default = [str(model["name"]) for model in models if model.get("default")]
    ready = [str(model["name"]) for model in models if model.get("state") == "READY"]
    for found in (default, ready):
        if len(found) == 1:
            return found[0]
    raise InvalidField("--model", f"name one of the models: {', '.join(ready) or 'none is READY'}")


def newest(model: Mapping[str, Any]) -> str:
    """The highest version that is READY. Raises NotAnswering. Pure."""
    ready = [
        int(each["version"]) for each in model.get("versions") or [] if each.get("state") == "READY"
    ]
    if not ready:
        raise NotAnswering(str(model.get("name")), str(model.get("reason") or "not loaded"))
    return str(max(ready))


@asynccontextmanager
async def open_server(remote: Remote) -> AsyncIterator[Tagging]:
    """One version of one model, from the begin to the end, whatever is loaded meanwhile.

    Raises:
        What `nerve.cli.remote.open_remote` raises.
        InvalidField: it is not clear which model is meant.
    """
    client = Client(remote.url, timeout_s=remote.timeout_s, identity=remote.identity)
    models = await asyncio.to_thread(client.models)
    name = choose(models, remote.model)
    version = newest(await asyncio.to_thread(client.model, name))
    limits = await asyncio.to_thread(client.limits)
    flight = Flight(CALLS, max(1, min(TEXTS, int(limits["max_client_batch_size"]))))
    identity = {"the server": client.url, "the model": name, "its version": version}
    async with open_remote(
        remote.url,
        name,
        timeout_s=remote.timeout_s,
        connections=CALLS,
        identity=remote.identity,
        version=version,
    ) as target:
        tagging = RemoteTagging(target, client.url, remote.wait_s)
        yield Tagging(tagging.tag, flight, identity)
