"""Tools for language models."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from nerve.config.settings.kinds import Settings, origin


class McpSettings(Settings):
    """Tools for language models."""

    enable_mcp: bool = False
    """Offer tools to language models at /mcp on HTTP's port, by the Model Context Protocol."""
    mcp_allowed_origins: list[Annotated[str, AfterValidator(origin)]] = []  # noqa: RUF012  pydantic copies it
    """Web pages that may use /mcp, as scheme://host[:port], beside those of this machine; "*" is
    any. In NERVE_MCP_ALLOWED_ORIGINS separated by commas."""
    mcp_max_sessions: Annotated[int, Field(ge=1)] = 1000
    """Most sessions of MCP clients that are open at the same time."""
    mcp_session_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Time without a request or an open stream after which such a session is ended."""
