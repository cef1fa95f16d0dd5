"""What the calls of all tools share: what they are, metrics, errors, a caller that leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Protocol, TypeVar

import mcp_types as types
from mcp.shared.exceptions import MCPError

from nerve.errors import NerveError, ServerFault, ServerStopping
from nerve.exchange import Exchange, Exchanges

log = logging.getLogger(__name__)

DIALECT: Final = "mcp"
"""Name of these calls in metrics."""
REQUEST_CANCELLED: Final = -32800
"""As the SDK has it; nobody reads it."""
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
        exchange = Exchange("mcp", DIALECT, "", tool, status="ERROR", parent=parent)
        if parent is not None:  # a session's tasks run in the context of its first request
            exchange.request_id, exchange.peer = parent.request_id, parent.peer
        with self._exchanges.open(exchange, {}):
            try:
                result = await _unless(left, call)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # something that it waited for was cancelled: nobody would be told
                raise MCPError(types.INTERNAL_ERROR, str(ServerStopping())) from None
            if not result.is_error:
                exchange.status = "OK"
        return result


def presentable(error: Exception) -> NerveError:
    """What the caller is told of an error; it is logged if it is the server's fault."""
    if not isinstance(error, NerveError):
        log.error("tool call failed: %s", error, exc_info=error)
        return ServerFault("the server failed; its log tells why")
    if isinstance(error, ServerFault):
        log.error("tool call failed: %s", error)
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
        raise MCPError(REQUEST_CANCELLED, "the caller has left")
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)
