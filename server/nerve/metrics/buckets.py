"""Bounds of the histograms."""

from __future__ import annotations

from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
