"""How requests are answered."""

from __future__ import annotations

from nerve.config.settings.kinds import Settings
from nerve.words import OffsetUnit


class AnswerSettings(Settings):
    """How requests are answered."""

    offset_unit: OffsetUnit | None = None
    """What start and end count where neither the request nor the model says; by default the
    dialect's own."""
