"""Bounds of the histograms."""

from __future__ import annotations

from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Of requests and waits: from what the smallest model takes to the default time limit."""
SHORT_SECONDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5,
)  # fmt: skip
"""Of work that takes a fraction of a millisecond where all is well."""
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS: Final = (4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
SCORES: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
"""Of probabilities; models are sure of most that they find, so most bounds are near 1."""
