"""What is told of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from nerve.config.settings.kinds import Settings, lower


class ObserveSettings(Settings):
    """What is told of it."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = (
        "info"
    )
    """Least severe line that is logged (to stderr)."""
