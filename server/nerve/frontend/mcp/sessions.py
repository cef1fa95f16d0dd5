"""Sessions over HTTP: whose they are, and which of them ends when there is no room for another.

The SDK ends a session that nobody uses, but late; until then a client that opens one after the other
would hold all that there may be. No SDK is imported here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nerve.exchange import Exchange
from nerve.frontend.http.asgi import EXCHANGE, Asgi, Message, Receive, Send

log = logging.getLogger(__name__)

OPENS: Final = "opens"
"""Key of the request's state: whether it asks for a new session."""
PATIENCE_S: Final = 5.0
"""A session that nobody uses for less keeps its place before one of a client that has as many."""
_ID: Final = b"mcp-session-id"


@dataclass(slots=True, eq=False)
class Session:
    """One that is open, or being opened."""

    key: str | None
    """Name of the API key that opened it, None without keys."""
    holder: str
    """Who has it: the key, or without keys the client's address."""
    last: float
    """When it was used last, in monotonic seconds."""
    id: str = ""
    """From the SDK; "" while it is being opened."""
    used: bool = False
    """By another request than the one that opened it."""
    calls: int = 0
    """Requests that are being answered."""
    streams: int = 0
    """Of those that wait for what the server may have to say."""


def to_end(
    sessions: Collection[Session], holder: str, *, now: float, patience_s: float
) -> Session | None:
    """The session that makes room for a new one of `holder`, None if none should. Pure.

    It is one of whoever has most, of these one that was never used, else the one that was used
    longest ago. Those of clients that have fewer than `holder` are left alone, and so is one with
    a call in flight; of those that have as many, so is what is in use or was just now.

    Args:
        sessions: all, with the new one.
        holder: who has the new one.
        now: in the seconds of `Session.last`.
        patience_s: see `PATIENCE_S`.
    """
    counts = Counter(session.holder for session in sessions)

    def may_end(session: Session) -> bool:
        if session.calls or counts[session.holder] < counts[holder]:
            return False
        if counts[session.holder] > counts[holder]:
            return True
        if session.holder == holder and not session.used:
            return True
        return session.streams == 0 and now - session.last >= patience_s

    return min(
        filter(may_end, sessions),
        key=lambda each: (-counts[each.holder], each.streams > 0, each.used, each.last),
        default=None,
    )


class Sessions:
    """An ASGI application before the SDK's, which stays the one that knows what a session is."""

    def __init__(
        self, app: Asgi, *, most: int, timeout_s: float, user: Callable[[str], object]
    ) -> None:
        """Keep count of the sessions of an application.

        Args:
            app: the SDK's, which refuses more than `most` sessions.
            most: sessions at the same time.
            timeout_s: after which the SDK ends one that is not used.
            user: what the SDK takes for an authenticated user, of a key's name; it lets nobody
                else use a session.
        """
        self._app, self._most, self._user = app, most, user
        self._patience_s = min(PATIENCE_S, timeout_s)
        self._open: dict[Session, None] = {}
        self._by_id: dict[str, Session] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request; its state has `EXCHANGE`, and `OPENS` where it opens a session."""
        exchange: Exchange | None = scope["state"][EXCHANGE]
        key = None if exchange is None else exchange.key
        if key is not None:
            scope["user"] = self._user(key)
        asked = next((value for name, value in scope["headers"] if name == _ID), b"")
        session = self._by_id.get(asked.decode("latin-1"))
        if session is not None and session.key == key:
            session.used = True
        elif not asked and scope["state"].get(OPENS):
            holder = key or ("" if exchange is None else exchange.peer)
            session = Session(key, holder, time.monotonic())
            self._open[session] = None
        else:  # none, or somebody else's: the SDK refuses it
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(session, scope["method"], message)
            await send(message)

        with self._busy(session, scope["method"]):
            if not session.id:
                await self._make_room(session.holder)
            await self._app(scope, receive, noting)

    @contextmanager
    def _busy(self, session: Session, method: str) -> Iterator[None]:
        """A request of the session is being answered in the block."""
        calls, streams = (0, 1) if method == "GET" else (1, 0)
        session.calls += calls
        session.streams += streams
        try:
            yield
        finally:
            session.calls -= calls
            session.streams -= streams
            session.last = time.monotonic()
            if not session.id:  # it came to nothing
                self._forget(session)

    def _note(self, session: Session, method: str, start: Message) -> None:
        """What the beginning of an answer says of the session."""
        status = start["status"]
        if status == 404 or (method == "DELETE" and status < 400):
            self._forget(session)
        elif not session.id and status < 400:
            given = next((value for name, value in start["headers"] if name.lower() == _ID), b"")
            if given:
                session.id = given.decode("latin-1")
                self._by_id[session.id] = session

    def _forget(self, session: Session) -> None:
        self._open.pop(session, None)
        self._by_id.pop(session.id, None)

    async def _make_room(self, holder: str) -> None:
        """End sessions as long as there are too many; where none can be, the SDK refuses the new one."""
        while len(self._open) > self._most:
            now = time.monotonic()
            ended = to_end(self._open, holder, now=now, patience_s=self._patience_s)
            if ended is None:
                return
            self._forget(ended)
            log.debug("a session of %s was ended to make room for another", ended.holder)
            task = asyncio.create_task(self._end(ended), name="mcp session ends")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            await asyncio.shield(task)

    async def _end(self, session: Session) -> None:
        """As its client would."""
        scope: Message = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "DELETE",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(_ID, session.id.encode("latin-1"))],
            "client": None,
            "server": None,
            "state": {},
        }
        if session.key is not None:
            scope["user"] = self._user(session.key)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message: Message) -> None:
            """It may have been gone, which is as well."""

        await self._app(scope, receive, send)
