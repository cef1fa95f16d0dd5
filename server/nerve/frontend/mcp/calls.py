"""What the calls of all tools share: what they are, metrics, errors, a caller that leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol, TypeVar

import mcp_types as types
from mcp.shared.exceptions import MCPError

from nerve.errors import NerveError, ServerFault, ServerStopping
from nerve.exchange import Exchange, Exchanges, current

log = logging.getLogger(__name__)

DIALECT: Final = "mcp"
"""Name of these calls in metrics."""
REQUEST_CANCELLED: Final = -32800
"""As the SDK has it; nobody reads it."""
UNKNOWN_TOOL: Final = "unknown_tool"
"""Reason of a call of what is no tool; it stands for whatever name the client wrote."""
ResultT = TypeVar("ResultT")


class Tool(Protocol):
    """Something that a language model may call."""

    @property
    def name(self) -> str:
        """As callers write it."""
        ...

    def describe(self) -> types.Tool:
        """What callers are told of it now."""
        ...

    async def call(self, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """The result; raises MCPError where the protocol itself is to tell of a fault."""
        ...


class Calls:
    """Reports calls, and gives those up whose caller has left."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def make(
        self,
        call: Awaitable[types.CallToolResult],
        *,
        tool: str,
        left: asyncio.Event | None,
        parent: Exchange | None,
    ) -> types.CallToolResult:
        """The result of `call` of a tool. `left` is set when nobody waits for it any more; it came
        in `parent`, None over pipes.

        Raises:
            MCPError: what `call` raises; or nobody waits, or the server stops.
        """
        with self._open(tool, parent) as exchange:
            try:
                result = await _unless(left, call)
            except _CallerLeftError:
                exchange.left = True
                raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # something that it waited for was cancelled: nobody would be told
                exchange.reason = ServerStopping.reason
                raise MCPError(types.INTERNAL_ERROR, str(ServerStopping())) from None
            if not result.is_error:
                exchange.status = "OK"
        return result

    def refuse(self, parent: Exchange | None) -> NoReturn:
        """Report a call of a tool that there is not, and raise MCPError."""
        with self._open("", parent) as exchange:
            exchange.reason = UNKNOWN_TOOL
            raise MCPError(types.INVALID_PARAMS, "tool not found")

    @contextmanager
    def _open(self, tool: str, parent: Exchange | None) -> Iterator[Exchange]:
        exchange = Exchange("mcp", DIALECT, "", tool, status="ERROR", parent=parent)
        if parent is not None:  # a session's tasks run in the context of its first request
            exchange.request_id, exchange.peer = parent.request_id, parent.peer
        with self._exchanges.open(exchange, {}):
            yield exchange


class _CallerLeftError(MCPError):
    """Nobody waits for the answer any more."""


def presentable(error: Exception) -> NerveError:
    """What the caller is told of an error, which is written down in its exchange; it is logged if it
    is the server's fault."""
    if not isinstance(error, NerveError):
        log.error("tool call failed: %s", error, exc_info=error)
        error = ServerFault("the server failed; its log tells why")
    elif isinstance(error, ServerFault):
        log.error("tool call failed: %s", error)
    if (exchange := current()) is not None:
        exchange.reason = error.reason
    return error


async def _unless(left: asyncio.Event | None, work: Awaitable[ResultT]) -> ResultT:
    """The outcome of `work`, which is cancelled if `left` is set first.

    A session's calls outlive the request that brought them, so that a client may come back for
    the answer. Nothing is kept here that it could come back for.
    """
    if left is None:
        return await work
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise _CallerLeftError(REQUEST_CANCELLED, "the caller has left")
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)
