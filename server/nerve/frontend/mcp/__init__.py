"""The Model Context Protocol: tools for language models. The only home of the SDK, package `mcp`.

Importing this package imports no SDK; `new_server` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerve.config.server import ServerConfig
from nerve.errors import SetupError
from nerve.exchange import Exchanges
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService

if TYPE_CHECKING:
    from nerve.frontend.mcp.server import McpServer


def new_server(
    inference: InferenceService,
    control: ControlService,
    config: ServerConfig,
    exchanges: Exchanges,
) -> McpServer:
    """The server of tools; the SDK is imported for it, which takes a second.

    Raises:
        SetupError: the SDK is not installed, or is of another major version.
    """
    try:
        from nerve.frontend.mcp.server import McpServer  # noqa: PLC0415  see above
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise SetupError(
            "the MCP SDK, 2.2 or later, is not installed: run `pip install 'nerve-server[mcp]'`, "
            "in the source `pip install '.[mcp]'`"
        ) from error
    return McpServer(inference, control, config, exchanges)
