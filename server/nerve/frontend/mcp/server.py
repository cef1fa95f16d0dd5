"""The MCP server: its tools behind the SDK, and its sessions over streamable HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

import nerve
from nerve.config.server import ServerConfig
from nerve.exchange import Exchanges
from nerve.frontend.http.asgi import EXCHANGE, LEFT, Asgi
from nerve.frontend.mcp.calls import Calls, Tool
from nerve.frontend.mcp.extract_entities import ExtractEntities
from nerve.frontend.mcp.list_models import ListModels
from nerve.frontend.mcp.run_encoder import RunEncoder
from nerve.frontend.mcp.sessions import Sessions
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService

INSTRUCTIONS: Final = "This tool will classify each token of an input text sequence."
"""As Encoderfile has it."""
LOG_LEVELS: Final = {
    "mcp": logging.WARNING,
    "mcp.server.streamable_http_manager": logging.ERROR,
    "sse_starlette": logging.WARNING,
}
"""The SDK logs lines for each session, for each that it refuses, and at debug level what it sends."""

Context = ServerRequestContext[Any, Any]


def _user(key: str) -> AuthenticatedUser:
    """Whoever has the key of that name, for the SDK; the key itself is nothing that it needs."""
    return AuthenticatedUser(AccessToken(token="", client_id=key, scopes=[]))


class McpServer:
    """Tools, for any transport of the SDK: `sdk` over stdio, `app` over HTTP."""

    def __init__(
        self,
        inference: InferenceService,
        control: ControlService,
        config: ServerConfig,
        exchanges: Exchanges,
    ) -> None:
        for name, level in LOG_LEVELS.items():
            logging.getLogger(name).setLevel(level)
        tools: list[Tool] = [
            RunEncoder(inference, config),
            ExtractEntities(inference, control, config),
            ListModels(control),
        ]
        self._tools = {tool.name: tool for tool in tools}
        self._calls = Calls(exchanges)
        self.max_message_bytes, self.drain_s = config.max_body_bytes, config.shutdown_timeout_s
        self._loaded = asyncio.Event()
        self.patient = False
        """Whether calls that come while models are loaded at start wait for that."""
        self.sdk: Server[Any] = Server(
            "nerve",
            version=nerve.__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._sessions = StreamableHTTPSessionManager(
            self.sdk,
            session_idle_timeout=config.mcp_session_timeout_s,
            max_request_body_size=config.max_body_bytes,
            max_sessions=config.mcp_max_sessions,
        )
        self._places = Sessions(
            self._sessions.handle_request,
            most=config.mcp_max_sessions,
            timeout_s=config.mcp_session_timeout_s,
            user=_user,
        )
        self._running: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    @property
    def app(self) -> Asgi:
        """Streamable HTTP, as an ASGI application; `start` first."""
        return self._places

    async def start(self) -> None:
        """Take sessions over HTTP."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            # The SDK wants its task group left by the task that entered it.
            async with self._sessions.run():
                started.set_result(None)
                await self._end.wait()

        self._running = asyncio.create_task(run(), name="mcp sessions")
        await started

    def loaded(self) -> None:
        """The models that are loaded at start are."""
        self._loaded.set()

    async def aclose(self) -> None:
        """End all sessions over HTTP."""
        self._end.set()
        if self._running is not None:
            await self._running

    async def _list(
        self, _context: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.describe() for tool in self._tools.values()])

    async def _call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        request, tool = context.request, self._tools.get(params.name)
        parent = getattr(request.state, EXCHANGE, None) if request is not None else None
        if tool is None:
            self._calls.refuse(parent)
        if self.patient:
            await self._loaded.wait()
        left = getattr(request.state, LEFT) if request is not None else None
        work = tool.call(params.arguments or {})
        return await self._calls.make(work, tool=tool.name, left=left, parent=parent)
