"""What a run will take: a `CostModel` fitted to a few runs at the start, refined by those that serve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nerve.types import CostModel, crowded

Floats = npt.NDArray[np.float64]

UNMEASURED: Final = CostModel(run_s=3e-3, token_s=2.5e-4, attention_s=0.0, crowding_s=0.0)
"""Until something was measured: a small model on one core. Decisions only depend on ratios."""

_TERMS: Final = 4
_SUBSETS: Final = [
    list(subset)
    for size in range(1, _TERMS + 1)
    for subset in itertools.combinations(range(_TERMS), size)
]
_KEPT: Final = 0.99
"""How much of its weight a run keeps with each one after it: about the last hundred count."""
_PRIOR_RUNS: Final = 100.0
"""How many served runs those of the start weigh: they hold up the shapes that are not served."""
_MOST: Final = 2.0
"""A run that took more than so many times what was predicted counts as one that took so many
times, and likewise below: it may have been interrupted, but if all do, the model follows."""
_REFIT_EVERY: Final = 32
_SCALE_STEP: Final = 0.05
_LEAST_S: Final = 1e-6
"""What a run takes at least, whatever a coarse clock says."""
_TERM_WORTH: Final = 3e-4
"""A term more must lower the mean square of relative errors by this much, or it is noise."""


class Run(NamedTuple):
    """A run of `rows` x `length` tokens, padding counted, that took `seconds`."""

    rows: int
    length: int
    seconds: float


class CostEstimator:
    """Keeps a cost model up to date. Not thread-safe."""

    def __init__(self) -> None:
        self.cost = UNMEASURED
        self._start = _Moments()  # runs of the start, of which `_first` was made
        self._first = UNMEASURED
        self._scale = 1.0  # what serving runs take, over what `_first` predicts
        self._served = _Moments()
        self._since_fit = 0

    def begin(self, runs: Sequence[Run]) -> None:
        """Start from runs of several shapes on an idle instance; nothing happens without any."""
        for each in runs:
            run = each._replace(seconds=max(each.seconds, _LEAST_S))
            self._start.add(run, expected_s=run.seconds, weight=_PRIOR_RUNS / len(runs))
        if runs:
            self.cost = self._first = _fit(
                self._start.squares, self._start.products, self._start.weight
            )

    def observe(self, run: Run) -> None:
        """Take a serving run into account."""
        expected = float(self.cost.seconds(run.rows, run.length))
        seconds = min(max(run.seconds, expected / _MOST), expected * _MOST)
        first = float(self._first.seconds(run.rows, run.length))
        self._scale += _SCALE_STEP * (seconds / first - self._scale)
        self._served.fade(_KEPT)
        self._served.add(run._replace(seconds=seconds), expected_s=expected)
        self._since_fit += 1
        if self._since_fit >= _REFIT_EVERY:
            self._since_fit = 0
            # What the start measured, as if it had been measured at today's speed.
            self.cost = _fit(
                self._start.squares / self._scale**2 + self._served.squares,
                self._start.products / self._scale + self._served.products,
                self._start.weight + self._served.weight,
            )


class _Moments:
    """Sums of a least-squares fit of relative errors."""

    def __init__(self) -> None:
        self.squares: Floats = np.zeros((_TERMS, _TERMS))
        self.products: Floats = np.zeros(_TERMS)
        self.weight = 0.0

    def fade(self, kept: float) -> None:
        self.squares *= kept
        self.products *= kept
        self.weight *= kept

    def add(self, run: Run, *, expected_s: float, weight: float = 1.0) -> None:
        padded = np.array(float(run.rows * run.length))
        terms = np.array([1.0, padded, padded * run.length, padded * crowded(padded)]) / expected_s
        self.squares += weight * np.outer(terms, terms)
        self.weight += weight
        self.products += weight * terms * (run.seconds / expected_s)


def _fit(squares: Floats, products: Floats, weight: float) -> CostModel:
    """Non-negative least squares: of all subsets of the four terms, the best without a negative.

    Args:
        squares, products: (4, 4) and (4,), the moments.
        weight: of all runs in them.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diag(squares), 1e-300))
    squares, products = squares * np.outer(scale, scale), products * scale
    best, least = np.zeros(_TERMS), math.inf
    for subset in _SUBSETS:
        # The ridge decides where fewer shapes than terms were seen.
        part = squares[np.ix_(subset, subset)] + 1e-9 * np.eye(len(subset))
        found = np.linalg.solve(part, products[subset])
        loss = len(subset) * _TERM_WORTH * weight - float(found @ products[subset])
        if (found >= 0).all() and loss < least - 1e-12:
            best, least = np.zeros(_TERMS), loss
            best[subset] = found
    best *= scale
    return CostModel(*map(float, best))
